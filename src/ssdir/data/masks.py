"""Index masks: one channel per image, in which each object's visible pixels have a value of their own."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage  # type: ignore[import-untyped]

from ssdir.data.images import open_image
from ssdir.errors import InputError

IndexMask: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]
"""(H, W): 0 is background."""


def read_mask(path: Path, size: tuple[int, int], image_name: str) -> IndexMask:
    """Reads a mask: grey values as they are, of a palette the indices and not the colours.

    Args:
        path: the mask's file.
        size: height and width of its image.
        image_name: what messages call the image.

    Raises:
        InputError: if it is missing, damaged, of another size than its image, or a picture in colour.
    """
    try:
        with open_image(path) as image:
            mask = np.asarray(image)
        if mask.dtype == np.bool_:
            mask = mask.astype(np.uint8)
    except InputError as error:
        raise InputError(f"the mask of {image_name} can't be read: {error}") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"mask '{path}' is not readable ({error})") from None
    if mask.shape != size or mask.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"mask '{path}' must be 8-bit grey, 16-bit grey or palette, {size[1]} x {size[0]} pixels as its image"
        )
    return mask


def mask_boxes(mask: IndexMask, num_objects: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The tight boxes of the values 1 ... M of a mask.

    Returns:
        Boxes xyxy in whole pixels, half-open, (M, 4), zeros where a value does not occur; and the values' numbers
        of pixels (M,).
    """
    boxes = np.zeros((num_objects, 4))
    pixels = np.bincount(mask.ravel(), minlength=num_objects + 1)[1 : num_objects + 1].astype(np.float64)
    for i, found in enumerate(ndimage.find_objects(mask.astype(np.int32), num_objects)):
        if found is not None:
            rows, columns = found
            boxes[i] = columns.start, rows.start, columns.stop, rows.stop
    return boxes, pixels


def draw_order(depth: NDArray[np.float64]) -> NDArray[np.int64]:
    """The ranks of an image's objects by depth, farthest first: the number of objects farther away."""
    return np.argsort(np.argsort(-depth, kind="stable"), kind="stable")
