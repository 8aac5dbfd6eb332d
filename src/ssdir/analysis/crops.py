"""Crops of objects from their images, and grids of crops."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ssdir.data.frame_names import file_of
from ssdir.data.images import Image8, read_image
from ssdir.errors import InputError
from ssdir.object_table import BOX_COLUMNS
from ssdir.plots.image_grids import BoxedImage, box_grid
from ssdir.storage import Location, to_location

MARGIN = 0.35
"""Margin shown around an object, relative to its longer side: it needs surroundings to be recognised."""
COLOURS = ("#0072b2", "#e69f00")
MISSING_IMAGE = np.full((64, 64, 3), 224, dtype=np.uint8)
"""Crop shown in place of an image that is missing or can't be read."""
BLANK = BoxedImage(np.full((1, 1, 3), 255, dtype=np.uint8), np.zeros((0, 4)), np.zeros(0, np.int64), "")


def crop_around(image: Image8, box_px: Sequence[float]) -> tuple[Image8, NDArray[np.float64]]:
    """Crops the object at a box, xyxy in pixels, with its surroundings.

    Returns:
        The crop, and the box relative to it, (1, 4).
    """
    height, width = image.shape[:2]
    x1, y1, x2, y2 = box_px
    margin = MARGIN * max(x2 - x1, y2 - y1, 1)
    left, top = max(0, int(x1 - margin)), max(0, int(y1 - margin))
    right, bottom = min(width, int(np.ceil(x2 + margin))), min(height, int(np.ceil(y2 + margin)))
    part = image[top : max(bottom, top + 1), left : max(right, left + 1)]
    sides = np.array([part.shape[1], part.shape[0]] * 2, dtype=np.float64)
    return np.ascontiguousarray(part), ((np.array([x1, y1, x2, y2]) - [left, top, left, top]) / sides)[None]


def read_crops(
    table: pa.Table, captions: Sequence[str], find: Callable[[str], Location] = to_location, group: int = 0
) -> list[BoxedImage]:
    """Crops stored objects from their images, each of which is read once.

    Args:
        table: with the columns `image` and `box_x1` … `box_y2`.
        captions: text below each crop.
        find: returns the file of an image.
        group: row of the grid's legend.
    """
    boxes = np.stack([table[name].to_numpy() for name in BOX_COLUMNS], axis=1)
    images = np.asarray(table["image"].to_pylist(), dtype=object)
    crops: dict[int, BoxedImage] = {}
    for name in dict.fromkeys(images.tolist()):
        image = _read(find(name))
        for row in np.flatnonzero(images == name).tolist():
            crop, box = (MISSING_IMAGE, BLANK.boxes) if image is None else crop_around(image, boxes[row].tolist())
            crops[row] = BoxedImage(crop, box, np.full(len(box), group), captions[row])
    return [crops[row] for row in range(len(table))]


def crop_grid(rows: Sequence[Sequence[BoxedImage]], legend: Sequence[str], cell: int = 120) -> Image8:
    """Draws rows of crops, padded to the longest.

    Args:
        rows: the crops.
        legend: what the colours of the groups mean.
        cell: side of a crop in pixels.
    """
    columns = max((len(row) for row in rows), default=1)
    crops = [crop for row in rows for crop in (*row, *[BLANK] * (columns - len(row)))]
    return box_grid(crops, list(zip(legend, COLOURS, strict=False)), columns, cell)


def _read(image: Location) -> Image8 | None:
    if isinstance(image, Path) and not os.path.isfile(
        file_of(image)
    ):  # A stored path may be longer than any file's.
        return None
    try:
        return read_image(image)
    except InputError:
        return None
