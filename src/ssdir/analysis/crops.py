"""Objects as they look in their pictures, and grids of their crops."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ssdir.data.images import Image8, read_image
from ssdir.errors import InputError
from ssdir.plots.image_grids import BoxedImage, box_grid

MARGIN = 0.35
"""What is shown around an object, relative to its longer side: it needs surroundings to be recognised."""
COLOURS = ("#0072b2", "#e69f00")
GONE = np.full((64, 64, 3), 224, dtype=np.uint8)
"""Shown where a picture is gone or can't be read."""


@dataclass(frozen=True)
class Crop:
    """A part of a picture around an object.

    Attributes:
        picture: RGB.
        box: the object, xyxy relative to the picture; None where the picture is gone.
    """

    picture: Image8
    box: NDArray[np.float64] | None


@dataclass(frozen=True)
class Tile:
    """A crop in an image grid.

    Attributes:
        crop: what is shown.
        caption: what is said of it.
        group: its row of the legend.
    """

    crop: Crop
    caption: str
    group: int = 0


def crop_around(picture: Image8, box_px: Sequence[float]) -> Crop:
    """The object at a box, xyxy in pixels, with its surroundings."""
    height, width = picture.shape[:2]
    x1, y1, x2, y2 = box_px
    margin = MARGIN * max(x2 - x1, y2 - y1, 1)
    left, top = max(0, int(x1 - margin)), max(0, int(y1 - margin))
    right, bottom = min(width, int(np.ceil(x2 + margin))), min(height, int(np.ceil(y2 + margin)))
    part = picture[top : max(bottom, top + 1), left : max(right, left + 1)]
    sides = np.array([part.shape[1], part.shape[0]] * 2, dtype=np.float64)
    return Crop(np.ascontiguousarray(part), (np.array([x1, y1, x2, y2]) - [left, top, left, top]) / sides)


def read_crops(table: pa.Table, find: Callable[[str], Path] = Path) -> list[Crop]:
    """Crops of the rows of stored objects, each picture being read once.

    Args:
        table: with the columns `image` and `box_x1` … `box_y2`.
        find: where the picture of a path is.
    """
    boxes = np.stack([table[name].to_numpy() for name in ("box_x1", "box_y1", "box_x2", "box_y2")], axis=1)
    crops: dict[int, Crop] = {}
    images = np.asarray(table["image"].to_pylist(), dtype=object)
    for image in dict.fromkeys(images.tolist()):
        picture = _read(find(image))
        for row in np.flatnonzero(images == image).tolist():
            crops[row] = Crop(GONE, None) if picture is None else crop_around(picture, boxes[row].tolist())
    return [crops[row] for row in range(len(table))]


def crop_grid(rows: Sequence[Sequence[Tile]], legend: Sequence[str], cell: int = 120) -> Image8:
    """Rows of tiles, all as long as the longest.

    Args:
        rows: of tiles.
        legend: what the colours of the groups mean.
        cell: side of a tile in pixels.
    """
    columns = max((len(row) for row in rows), default=1)
    blank = Tile(Crop(np.full((1, 1, 3), 255, dtype=np.uint8), None), "")
    tiles = [tile for row in rows for tile in (*row, *[blank] * (columns - len(row)))]
    boxes = [np.zeros((0, 4)) if tile.crop.box is None else tile.crop.box[None] for tile in tiles]
    images = [
        BoxedImage(tile.crop.picture, box, np.full(len(box), tile.group), tile.caption)
        for tile, box in zip(tiles, boxes, strict=True)
    ]
    return box_grid(images, list(zip(legend, COLOURS, strict=False)), columns, cell)


def _read(path: Path) -> Image8 | None:
    if not os.path.isfile(path):  # A stored path may be longer than any file's.
        return None
    try:
        return read_image(path)
    except InputError:
        return None
