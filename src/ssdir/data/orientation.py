"""EXIF orientation: whether boxes refer to a photograph as it is shown, or as it is stored on its side.

Images are read with their EXIF orientation applied, because annotation tools and viewers show them that way. But
some exporters write boxes in the pixel grid of the stored image. The annotated image size decides which of the two
is meant; if it fits both, boxes are assumed to refer to the image as shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from ssdir.data.annotations import AnnotationTable, same_shape
from ssdir.data.images import image_orientation, image_size
from ssdir.errors import InputError
from ssdir.storage import Location

Number = TypeVar("Number", float, NDArray[np.float64])
Box: TypeAlias = tuple[float, float, float, float]
Size: TypeAlias = tuple[int, int]


def turn_box(
    box: Iterable[Number], size: Sequence[int], orientation: int
) -> tuple[Number, Number, Number, Number]:
    """Converts a box of the stored image to one of the image as shown.

    Args:
        box: xyxy in pixels of the stored image: four numbers, or four columns of many boxes.
        size: height and width of the image as shown, in pixels.
        orientation: EXIF orientation, 1 ... 8.
    """
    height, width = size
    x1, y1, x2, y2 = box
    if orientation >= 5:
        x1, y1, x2, y2 = y1, x1, y2, x2
    if orientation in (3, 4, 7, 8):
        y1, y2 = height - y2, height - y1
    if orientation in (2, 3, 6, 7):
        x1, x2 = width - x2, width - x1
    return x1, y1, x2, y2


def refers_to_stored(annotated: Size, shown: Size, orientation: int) -> bool:
    """Returns whether an annotated (height, width) is that of the image as stored, and not as shown."""
    if orientation < 5 or annotated == shown:
        return False
    stored = shown[::-1]
    return annotated == stored or (same_shape(stored, annotated) and not same_shape(shown, annotated))


def is_ambiguous(shown: Size, orientation: int) -> bool:
    """Returns whether an image differs between stored and shown form, but has the same size in both."""
    return orientation in (2, 3, 4) or (orientation >= 5 and shown[0] == shown[1])


def orientation_of_boxes(annotated: Size, shown: Size, path: Location) -> int:
    """Returns the EXIF orientation to apply to boxes so that they fit the image as shown; 1 changes nothing.

    Args:
        annotated: (height, width) that the boxes refer to.
        shown: (height, width) of the image as shown.
        path: the image, whose header is read where the two sizes don't decide.

    Raises:
        InputError: if the image can't be read.
    """
    if annotated == shown or (same_shape(shown, annotated) and annotated != shown[::-1]):
        return 1
    orientation = image_orientation(path)
    return orientation if refers_to_stored(annotated, shown, orientation) else 1


def fit_to_picture(
    boxes: NDArray[np.float64], annotated: Size, shown: Size, path: Location
) -> NDArray[np.float64]:
    """Converts boxes (n, 4), xyxy in pixels of the annotated (height, width), to pixels of the image as shown.

    The image may be a resized copy of the annotated image, or the boxes may refer to it as stored, on its side.

    Raises:
        InputError: if the image has other proportions, or can't be read.
    """
    if (orientation := orientation_of_boxes(annotated, shown, path)) != 1:
        annotated = annotated[::-1]
        boxes = np.stack(turn_box(boxes.T, annotated, orientation), axis=1)
    return boxes * _scale(annotated, shown, path)


def fit_to_annotation(
    boxes: NDArray[np.float64], shown: Size, annotated: Size, path: Location
) -> NDArray[np.float64]:
    """Reverses `fit_to_picture`: converts boxes of the image as shown to pixels of the one annotated.

    Raises:
        InputError: as `fit_to_picture`.
    """
    orientation = orientation_of_boxes(annotated, shown, path)
    seen = annotated if orientation == 1 else annotated[::-1]
    boxes = boxes / _scale(seen, shown, path)
    if orientation == 1:
        return boxes
    # Each orientation is its own inverse, except the quarter turns 6 and 8, which are each other's.
    reverse = {6: 8, 8: 6}.get(orientation, orientation)
    return np.stack(turn_box(boxes.T, annotated, reverse), axis=1)


def _scale(annotated: Size, shown: Size, path: Location) -> NDArray[np.float64]:
    """Returns the factors (4,) from xyxy boxes in annotated pixels to boxes in pixels of the image as shown."""
    if not same_shape(shown, annotated):
        has, says = (f"{width} x {height}" for height, width in (shown, annotated))
        raise InputError(f"'{path}' has {has} pixels, but is annotated as {says}: use the image annotated")
    (height, width), (old_height, old_width) = shown, annotated
    return np.array([width / old_width, height / old_height] * 2)


def apply_exif_orientation(table: AnnotationTable) -> AnnotationTable:
    """Applies the EXIF orientation to boxes that refer to images as stored; ignores missing images."""
    orientations = np.ones(len(table.image_names), dtype=np.int64)
    for i, (path, (height, width)) in enumerate(zip(table.image_paths, table.image_sizes.tolist(), strict=True)):
        with suppress(InputError):  # The error is reported when the image is read.
            orientations[i] = orientation_of_boxes((height, width), image_size(path), path)
    turned = orientations != 1
    if not turned.any():
        return table
    sizes, boxes = table.image_sizes.copy(), table.boxes_px.copy()
    sizes[turned] = sizes[turned][:, ::-1]
    for row in np.flatnonzero(turned[table.image]).tolist():
        image = table.image[row]
        boxes[row] = turn_box(boxes[row].tolist(), sizes[image].tolist(), int(orientations[image]))
    notes = (*table.notes, turned_note([table.image_names[i] for i in np.flatnonzero(turned)]))
    return replace(table, image_sizes=sizes, boxes_px=boxes, notes=notes)


def turned_note(names: Sequence[str]) -> str:
    """Formats the note that counts images whose boxes were turned, and names the first."""
    return (
        f"images annotated as stored, whose boxes were turned by their EXIF orientation: {len(names)} ({names[0]})"
    )
