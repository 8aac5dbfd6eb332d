"""Generates images of scattered glyphs whose sizes vary widely (paper §4.3).

A scene is a grid of random fineness; glyphs of random size land near the centres of random cells, each
over those before it. Where an earlier glyph already fills a cell, nothing is added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple, Self

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ssdir.config import Config
from ssdir.data.images import Image8
from ssdir.data.readers.splits import SPLITS, SplitName
from ssdir.data.scatter.glyphs import Glyphs, sized_ink
from ssdir.objects import Objects
from ssdir.ops.boxes import to_cxcywh

MIN_BOX_SIDE = 3
"""An object narrower or lower than this many pixels inside the image is left out."""

MIN_INSIDE = 0.5
"""An object with less than this share of its tight box inside the image is left out."""

COLOURS = {
    "blue": (0, 0, 255),
    "cyan": (0, 255, 255),
    "green": (0, 255, 0),
    "magenta": (255, 0, 255),
    "red": (255, 0, 0),
    "yellow": (255, 255, 0),
}
"""The colours of objects, RGB."""

BRIGHT_FROM = 128
"""The least intensity of a glyph's pixel that is coloured: at an edge, half of the pixel is the glyph's."""

MAX_GRID = 15
"""The finest grid, because an 8-bit map has 255 numbers for objects."""


class ScatterConfig(Config):
    """The parameters of generated scenes, their number, and their seed.

    Attributes:
        canvas: side of the square images in pixels, 16 ... 8192.
        grids: the grid sizes to sample from, cells per side, each 1 ... 15.
        min_size: smallest glyph side, as a fraction of the canvas, in (0, 1].
        max_size: largest glyph side, as a fraction of the canvas, in (0, 1].
        position_variance: how far a glyph's centre may leave its cell's, in half cells, 0 ... 2.
        filled_threshold: a cell of which a larger share is covered by boxes takes no glyph, 0 ... 1.
        colours: each object has one of six plain colours, without shades, and its visible pixels are a mask.
        objects: least and most cells of an image that a glyph is placed in if there is room; None for half to all.
        train: number of training images.
        val: number of validation images.
        test: number of test images.
        seed: every image follows from this, its split and its number.
    """

    canvas: int = Field(default=128, ge=16, le=8192)
    grids: tuple[int, ...] = Field(default=(2, 3, 4, 5, 6), min_length=1)
    min_size: float = Field(default=96 / 512, gt=0, le=1)
    max_size: float = Field(default=384 / 512, gt=0, le=1)
    position_variance: float = Field(default=0.7, ge=0, le=2)
    filled_threshold: float = Field(default=0.4, ge=0, le=1)
    colours: bool = False
    objects: tuple[int, int] | None = None
    train: int = Field(default=10_000, ge=0)
    val: int = Field(default=1_000, ge=0)
    test: int = Field(default=1_000, ge=0)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not all(1 <= grid <= MAX_GRID for grid in self.grids):
            raise ValueError(f"grids must be within 1 ... {MAX_GRID}, got {self.grids}")
        if self.objects is not None and not 0 <= self.objects[0] <= self.objects[1] <= min(self.grids) ** 2:
            raise ValueError(
                f"objects must be a range within 0 ... {min(self.grids) ** 2}, the cells of the coarsest grid, "
                f"got {self.objects[0]} to {self.objects[1]}"
            )
        if self.min_size > self.max_size:
            raise ValueError(f"min_size {self.min_size:g} must not exceed max_size {self.max_size:g}")
        if self.min_side < MIN_BOX_SIDE:
            raise ValueError(
                f"min_size {self.min_size:g} of a canvas of {self.canvas} px is below {MIN_BOX_SIDE} px"
            )
        if self.min_side > self.max_side:
            raise ValueError(f"no whole pixel size is between min_size and max_size of {self.canvas} px")
        return self

    @classmethod
    def paper(cls) -> Self:
        """The paper's data set: 512×512 pixels, sizes 96 to 384, 50,000 images and 10 % more to validate."""
        return cls(canvas=512, train=50_000, val=5_000, test=5_000)

    @property
    def min_side(self) -> int:
        """The smallest glyph side in pixels."""
        return math.ceil(self.min_size * self.canvas - 1e-6)

    @property
    def max_side(self) -> int:
        """The largest glyph side in pixels."""
        return math.floor(self.max_size * self.canvas + 1e-6)

    def tried_cells(self, num_cells: int) -> tuple[int, int]:
        """Returns the least and most cells of a grid that are tried."""
        return ((num_cells + 1) // 2, num_cells) if self.objects is None else self.objects

    def count(self, split: SplitName) -> int:
        """Returns the number of images of a split."""
        return {"train": self.train, "val": self.val, "test": self.test}[split]


@dataclass(frozen=True, eq=False)
class ScatteredImage:
    """A generated image and its objects, in draw order: a later one covers an earlier one.

    Attributes:
        image: uint8 (H, W), grey; (H, W, 3), RGB, of objects with colours.
        boxes_px: int32 (n, 4), xyxy, half-open, tight around the object's ink inside the image.
        labels: int64 (n,), the glyphs' classes.
        source_index: int64 (n,), the glyphs' numbers in their source.
        visible: float32 (n,) in [0, 1], the share of the object's ink that no later one covers.
        mask: uint8 (H, W), of objects with colours: i + 1 where object i is visible, 0 elsewhere.
        colours: the colours' names, of objects with colours.
    """

    image: Image8
    boxes_px: NDArray[np.int32]
    labels: NDArray[np.int64]
    source_index: NDArray[np.int64]
    visible: NDArray[np.float32]
    mask: Image8 | None = None
    colours: tuple[str, ...] = ()


def image_rng(seed: int, split: SplitName, index: int) -> np.random.Generator:
    """Returns the random generator of one image, so that neither processes nor their order change the image."""
    return np.random.default_rng([seed, SPLITS.index(split), index])


def scatter_image(glyphs: Glyphs, config: ScatterConfig, rng: np.random.Generator) -> ScatteredImage:
    """Generates one image.

    A grid is sampled, then half to all of its cells, or as many as `objects` says. Each cell in turn, unless it is
    filled, gets a uniformly sampled glyph. Its size (longer side) is uniform between the smallest and the largest
    that the free surroundings allow: the side of the largest block of cells around it that lies inside the image
    and has no filled one. Its centre is the cell's, moved by up to `position_variance` half cells along each axis.
    """
    grid_size = config.grids[int(rng.integers(len(config.grids)))]
    grid = _grid(config.canvas, grid_size, config.filled_threshold)
    num_cells = grid_size**2
    fewest, most = config.tried_cells(num_cells)
    num_tried = int(rng.integers(fewest, most + 1))
    cells: list[int] = rng.permutation(num_cells)[:num_tried].tolist()
    draws: list[list[float]] = rng.random((num_tried, 4)).tolist()
    reach = config.position_variance * grid.cell_side / 2
    min_side, max_side = config.min_side, config.max_side

    canvas = _Canvas(config.canvas, grid)
    pasted: list[int] = []
    for cell, (which, size, right, down) in zip(cells, draws, strict=True):
        if canvas.filled >> cell & 1:
            continue
        allowed = max(min_side, min(max_side, int(canvas.free_side(cell, max_side) + 1e-6)))
        side = min_side + int(size * (allowed - min_side + 1))
        x, y = grid.centers[cell]
        glyph = int(which * len(glyphs.images))
        if canvas.paste(glyphs.images[glyph], side, x + (2 * right - 1) * reach, y + (2 * down - 1) * reach):
            pasted.append(glyph)
    scattered = ScatteredImage(
        image=canvas.image,
        boxes_px=np.array(canvas.boxes, dtype=np.int32).reshape(-1, 4),
        labels=glyphs.labels[pasted],
        source_index=glyphs.indices[pasted],
        visible=canvas.visible(),
    )
    return _coloured(scattered, canvas.owners, rng) if config.colours else scattered


def _coloured(scattered: ScatteredImage, owners: Image8, rng: np.random.Generator) -> ScatteredImage:
    """Gives the objects random colours; `owners` is uint8 (H, W), the object of each pixel from 1 on, or 0."""
    names = [*COLOURS]
    colours = tuple(names[number] for number in rng.integers(len(names), size=len(scattered.labels)))
    mask = np.where(scattered.image >= BRIGHT_FROM, owners, 0).astype(np.uint8)
    table = np.array([(0, 0, 0), *(COLOURS[name] for name in colours)], dtype=np.uint8)
    return replace(scattered, image=table[mask], mask=mask, colours=colours)


def scattered_objects(scattered: ScatteredImage) -> Objects:
    """Returns the true objects of an image as `Objects` of batch size 1; `z_depth` is the draw order."""
    num_objects = len(scattered.labels)
    height, width = scattered.image.shape[:2]
    boxes = torch.from_numpy(scattered.boxes_px) / torch.tensor([width, height, width, height])
    return Objects(
        image_index=torch.zeros(num_objects, dtype=torch.int64),
        batch_size=1,
        z_where=to_cxcywh(boxes),
        labels=torch.from_numpy(scattered.labels),
        z_depth=torch.arange(num_objects, dtype=torch.float32),
        source_index=torch.from_numpy(scattered.source_index),
    )


class _Box(NamedTuple):
    x1: int
    y1: int
    x2: int
    y2: int


class _Grid(NamedTuple):
    """A grid that several scenes share; sets of cells are bit masks."""

    cell_side: float
    edges: list[int]
    centers: list[tuple[float, float]]
    blocks: list[list[int]]
    """The cells at most r away along either axis, as `blocks[cell][r]`, while all are inside the image."""
    filled_pixels: list[float]
    """The number of covered pixels beyond which a cell is filled."""


@lru_cache(maxsize=256)
def _grid(canvas: int, size: int, filled_threshold: float) -> _Grid:
    side = canvas / size
    edges = [round(i * side) for i in range(size + 1)]
    cells = [(row, column) for row in range(size) for column in range(size)]
    blocks = [
        [
            sum(1 << i for i, (y, x) in enumerate(cells) if max(abs(y - row), abs(x - column)) <= r)
            for r in range(1 + min(row, column, size - 1 - row, size - 1 - column))
        ]
        for row, column in cells
    ]
    areas = [(edges[y + 1] - edges[y]) * (edges[x + 1] - edges[x]) for y, x in cells]
    return _Grid(
        cell_side=side,
        edges=edges,
        centers=[((x + 0.5) * side, (y + 0.5) * side) for y, x in cells],
        blocks=blocks,
        filled_pixels=[filled_threshold * area for area in areas],
    )


class _Canvas:
    """An image that glyphs are pasted on, with Python integers and OpenCV, as NumPy is slow for small arrays."""

    def __init__(self, canvas: int, grid: _Grid) -> None:
        self.grid = grid
        self.canvas = canvas
        self.image: Image8 = np.zeros((canvas, canvas), dtype=np.uint8)
        self.filled = 0
        self.boxes: list[_Box] = []
        self.owners: Image8 = np.zeros((canvas, canvas), dtype=np.uint8)
        self._covered: Image8 = np.zeros((canvas, canvas), dtype=np.uint8)
        self._ink_pixels: list[int] = []

    def free_side(self, cell: int, enough: int) -> float:
        """Returns the side of the largest block of free cells around a cell, inside the image, up to `enough`."""
        side = self.grid.cell_side
        for block in self.grid.blocks[cell][1:]:
            if self.filled & block or side >= enough:
                return side
            side += 2 * self.grid.cell_side
        return side

    def paste(self, glyph: Image8, side: int, x: float, y: float) -> bool:
        """Pastes a glyph centred at (x, y), its longer side `side` pixels; False if too little is inside."""
        ink = sized_ink(glyph, side)
        height, width = ink.shape
        left, top = round(x - width / 2), round(y - height / 2)
        box = self._visible_box(ink, left, top)
        if box is None:
            return False
        x1, y1, x2, y2 = box
        ink = ink[y1 - top : y2 - top, x1 - left : x2 - left]
        owner = cv2.threshold(ink, 0, len(self.boxes) + 1, cv2.THRESH_BINARY)[1]
        cv2.copyTo(ink, ink, self.image[y1:y2, x1:x2])
        cv2.copyTo(owner, owner, self.owners[y1:y2, x1:x2])
        self._ink_pixels.append(cv2.countNonZero(ink))
        self.boxes.append(box)
        self._cover(box)
        return True

    def _visible_box(self, ink: Image8, left: int, top: int) -> _Box | None:
        """Returns the tight box of the ink inside the image, for ink placed at (left, top)."""
        x, y, width, height = cv2.boundingRect(ink)
        x1, y1 = max(0, -left, x), max(0, -top, y)
        x2, y2 = min(self.canvas - left, x + width), min(self.canvas - top, y + height)
        if x2 <= x1 or y2 <= y1 or (x2 - x1) * (y2 - y1) < MIN_INSIDE * width * height:
            return None
        if (x2 - x1, y2 - y1) != (
            width,
            height,
        ):  # The border cuts the glyph, and the rest may fill less of its box.
            x, y, width, height = cv2.boundingRect(ink[y1:y2, x1:x2])
            x1, y1 = x1 + x, y1 + y
            x2, y2 = x1 + width, y1 + height
        if min(x2 - x1, y2 - y1) < MIN_BOX_SIDE:
            return None
        return _Box(x1 + left, y1 + top, x2 + left, y2 + top)

    def _cover(self, box: _Box) -> None:
        """Marks a box as covered, and the cells that it fills."""
        self._covered[box.y1 : box.y2, box.x1 : box.x2] = 1
        edges, size = self.grid.edges, len(self.grid.edges) - 1
        for row in range(size):
            if edges[row + 1] <= box.y1 or edges[row] >= box.y2:
                continue
            for column in range(size):
                if edges[column + 1] <= box.x1 or edges[column] >= box.x2:
                    continue
                cell = row * size + column
                if not self.filled >> cell & 1:
                    pixels = self._covered[edges[row] : edges[row + 1], edges[column] : edges[column + 1]]
                    self.filled |= (cv2.countNonZero(pixels) > self.grid.filled_pixels[cell]) << cell

    def visible(self) -> NDArray[np.float32]:
        """Returns the share of each object's ink that is still visible."""
        counts = np.bincount(self.owners.ravel(), minlength=len(self.boxes) + 1)[1:]
        return (counts / np.array(self._ink_pixels, dtype=np.float64)).astype(np.float32)
