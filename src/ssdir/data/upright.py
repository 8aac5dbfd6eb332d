"""Which picture boxes refer to, where a photograph is stored on its side: as seen, or as stored?

Images are read as seen, turned as their EXIF orientation says, because annotation tools show them so, and because
a model is later given photographs so. But some exporters write boxes in the grid of pixels as stored. Where the
annotated size tells the two apart, it decides; where it can't, boxes are taken to refer to the picture as seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from ssdir.data.annotations import AnnotationTable, same_shape
from ssdir.data.images import image_orientation, image_size
from ssdir.errors import InputError

Box: TypeAlias = tuple[float, float, float, float]
Size: TypeAlias = tuple[int, int]


def turn_box(box: Sequence[float], size: Sequence[int], orientation: int) -> Box:
    """A box of an image as stored, in the upright image of the given (height, width)."""
    height, width = size
    x1, y1, x2, y2 = box
    if orientation >= 5:
        x1, y1, x2, y2 = y1, x1, y2, x2
    if orientation in (3, 4, 7, 8):
        y1, y2 = height - y2, height - y1
    if orientation in (2, 3, 6, 7):
        x1, x2 = width - x2, width - x1
    return x1, y1, x2, y2


def refers_to_stored(annotated: Size, upright: Size, orientation: int) -> bool:
    """Whether an annotated (height, width) is that of the image as stored, and not that of the upright one."""
    if orientation < 5 or annotated == upright:
        return False
    stored = upright[::-1]
    return annotated == stored or (same_shape(stored, annotated) and not same_shape(upright, annotated))


def is_ambiguous(upright: Size, orientation: int) -> bool:
    """Whether an image looks different as stored and as seen, but has the same size."""
    return orientation in (2, 3, 4) or (orientation >= 5 and upright[0] == upright[1])


def turn_upright(table: AnnotationTable) -> AnnotationTable:
    """Turns the boxes that refer to images as stored; reads the images' headers, and passes over missing ones."""
    orientations = np.ones(len(table.image_names), dtype=np.int64)
    for i, path in enumerate(table.image_paths):
        height, width = table.image_sizes[i].tolist()
        try:
            orientation = image_orientation(path)
            if orientation >= 5 and refers_to_stored((height, width), image_size(path), orientation):
                orientations[i] = orientation
        except InputError:  # Whoever reads the image will say what is wrong with it.
            continue
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
    """What a reader remarks of images whose boxes it turned."""
    return f"images annotated as stored, on their side, whose boxes were turned upright: {len(names)} ({names[0]})"
