"""Index masks: images of one channel in which the visible pixels of each object have a value of their own."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage  # type: ignore[import-untyped]

from ssdir.data.images import open_image
from ssdir.data.pixel_budget import DECODING
from ssdir.errors import InputError

IndexMask: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]
"""An index mask (H, W); 0 is the background."""

_MODES = frozenset({"1", "L", "P", "I;16", "I;16B", "I;16L", "I;16N"})
_SCALES = {"L;2": 85, "L;4": 17}
"""The factors by which Pillow multiplies grey values of two or four bits, so that they reach 255."""

_STRIP_PIXELS = 1 << 22


def read_mask(path: Path, size: tuple[int, int], image_name: str) -> IndexMask:
    """Reads a mask: grey values as they are in the file; for a palette, the indices and not the colours.

    Its size is compared with the image's before it is decoded.

    Args:
        path: the mask's file.
        size: height and width of its image.
        image_name: name of the image in messages.

    Raises:
        InputError: if the mask is missing, damaged, of another size than its image, or in colour.
    """
    try:
        with open_image(path) as image:
            if image.size != size[::-1] or image.mode not in _MODES:
                raise _UnfitError
            scale = _grey_scale(image)
            with DECODING.of(image.width * image.height):
                mask = np.asarray(image)
    except InputError as error:
        raise InputError(f"the mask of {image_name} can't be read: {error}") from None
    except _UnfitError:
        raise InputError(
            f"mask '{path}' must be 8-bit grey, 16-bit grey or palette, {size[1]} x {size[0]} pixels as its image"
        ) from None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(f"mask '{path}' is not readable ({error})") from None
    mask = mask.astype(np.uint16) if mask.dtype.itemsize == 2 else mask.astype(np.uint8, copy=False)
    return mask // mask.dtype.type(scale) if scale > 1 else mask


def _grey_scale(image: Image.Image) -> int:
    """Returns the factor by which Pillow multiplies the grey values of a file."""
    tiles = getattr(image, "tile", None)  # Only files have tiles; the last part of one says how pixels are stored.
    return _SCALES.get(str(tiles[0][3]), 1) if tiles else 1


class _UnfitError(Exception):
    """Raised where a mask has another size than its image, or colours."""


def mask_boxes(mask: IndexMask, num_objects: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Computes the tight boxes of the values 1 ... M of a mask.

    Returns:
        Boxes (M, 4), xyxy in whole pixels, half-open, zeros where a value does not occur; and the number of pixels
        (M,) of each value.
    """
    boxes = np.zeros((num_objects, 4))
    flat = mask.ravel()
    pixels = np.zeros(num_objects)
    for start in range(0, len(flat), _STRIP_PIXELS):  # `bincount` takes eight bytes for each pixel.
        counts = np.bincount(flat[start : start + _STRIP_PIXELS], minlength=num_objects + 1)
        pixels += counts[1 : num_objects + 1]
    for i, window in enumerate(ndimage.find_objects(mask, num_objects)):
        if window is not None:
            rows, columns = window
            boxes[i] = columns.start, rows.start, columns.stop, rows.stop
    return boxes, pixels


def draw_order(depth: NDArray[np.float64]) -> NDArray[np.int64]:
    """Ranks the objects of an image by depth, farthest first.

    Args:
        depth: (n,), distance from the camera: smaller is nearer.

    Returns:
        int64 (n,), the number of objects farther away than each: larger is nearer.
    """
    return np.argsort(np.argsort(-depth, kind="stable"), kind="stable")
