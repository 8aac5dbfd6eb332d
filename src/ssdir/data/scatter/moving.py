"""Generates clips of moving glyphs: identities to be tracked, whose sizes differ widely and change.

Each glyph of a clip is one object through all of its frames. It has a velocity, is reflected by the borders or
leaves the image and comes back, and its size oscillates. A constant order says who hides whom.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Self

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ssdir.config import Config
from ssdir.data.images import Image8
from ssdir.data.readers.splits import SplitName
from ssdir.data.scatter.glyphs import Glyphs, fit_to_ink, sized_ink
from ssdir.data.scatter.paths import Walls, overlap, sample_path

Difficulty = Literal["standard", "hard"]

MIN_SIDE = 8
"""The least side of a moving glyph, in pixels."""


class MovingConfig(Config):
    """The parameters of generated clips, their number, and their seed. The defaults are the standard difficulty.

    Sizes are those of a glyph's ink, without the margin of the glyph's picture.

    Attributes:
        canvas: side of the square frames in pixels, 16 ... 8192.
        frames: frames of each clip, 2 or more.
        frame_rate: frames per second, for players; nothing depends on it.
        objects: the fewest and most glyphs of a clip, 1 ... 250.
        min_size: smallest mean of a glyph's longer side, as a fraction of the canvas, in (0, 1].
        max_size: largest mean of a glyph's longer side, likewise. On a logarithmic scale, the sizes of a clip's n
            glyphs are uniform in n equal parts of this range, one in each.
        size_factors: the smallest and largest factor that a glyph's size oscillates by.
        period: the shortest and longest period of these oscillations, in frames.
        speed: the slowest and fastest velocity, as a fraction of the canvas per frame.
        paths: paths that are sampled for each glyph; the one that overlaps the earlier glyphs least is taken.
        opaque: what of a glyph hides those behind it: its `ink` alone, or its convex `hull`.
        same_class: the share of glyphs, but the first, with the class of an earlier one: distractors.
        leave_share: the share of the hits at the border at which a glyph leaves the image, and comes back.
        absence: the fewest and most frames that it then stays outside.
        train: number of training clips.
        val: number of validation clips.
        test: number of test clips.
        seed: every clip follows from this, its split and its number.
    """

    canvas: int = Field(default=128, ge=16, le=8192)
    frames: int = Field(default=30, ge=2, le=100_000)
    frame_rate: int = Field(default=10, ge=1, le=1000)
    objects: tuple[int, int] = (2, 8)
    min_size: float = Field(default=0.14, gt=0, le=1)
    max_size: float = Field(default=0.28, gt=0, le=1)
    size_factors: tuple[float, float] = (0.8, 1.4)
    period: tuple[float, float] = (12.0, 30.0)
    speed: tuple[float, float] = (0.01, 0.03)
    paths: int = Field(default=20, ge=1, le=1000)
    opaque: Literal["ink", "hull"] = "ink"
    same_class: float = Field(default=0.0, ge=0, le=1)
    leave_share: float = Field(default=0.0, ge=0, le=1)
    absence: tuple[int, int] = (5, 20)
    train: int = Field(default=400, ge=0)
    val: int = Field(default=40, ge=0)
    test: int = Field(default=40, ge=0)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        ranges = {
            "objects": (1, 250),
            "size_factors": (0.01, 100),
            "period": (2, math.inf),
            "speed": (0, 1),
            "absence": (1, math.inf),
        }
        for name, (lowest, highest) in ranges.items():
            low, high = getattr(self, name)
            if not lowest <= low <= high <= highest:
                raise ValueError(f"{name} must be a range within {lowest} ... {highest}, got {low} to {high}")
        if self.min_size > self.max_size:
            raise ValueError(f"min_size {self.min_size:g} must not exceed max_size {self.max_size:g}")
        smallest = self.min_size * self.size_factors[0] * self.canvas
        if smallest < MIN_SIDE:
            raise ValueError(f"the smallest glyph would have {smallest:.1f} px, below {MIN_SIDE} px")
        if self.max_size * self.size_factors[1] > 1:
            raise ValueError("max_size times the largest of size_factors exceeds the canvas")
        return self

    def count(self, split: SplitName) -> int:
        """Returns the number of clips of a split."""
        return {"train": self.train, "val": self.val, "test": self.test}[split]


def moving_values(difficulty: Difficulty) -> dict[str, Any]:
    """Returns the values of a difficulty that differ from the defaults of `MovingConfig`.

    Hard clips have mean sizes that range over up to 4.4 times, opaque glyphs that cross, glyphs that leave and
    come back, and several glyphs of a class.
    """
    if difficulty == "standard":
        return {}
    return {
        "objects": (4, 7),
        "min_size": 0.11,
        "max_size": 0.48,
        "speed": (0.015, 0.045),
        "paths": 1,
        "opaque": "hull",
        "same_class": 0.5,
        "leave_share": 0.7,
    }


@dataclass(frozen=True, eq=False)
class MovingClip:
    """A generated clip with T frames and N rows: a glyph in a frame that shows some of its ink, or hides it.

    Rows are sorted by frame, then by track. A glyph that is wholly outside a frame has no row there.

    Attributes:
        images: uint8 (T, H, W), grey.
        frame: int64 (N,), from 0.
        track_id: int64 (N,), from 1.
        boxes_px: int32 (N, 4), xyxy, half-open: tight around the part of the glyph's whole ink that is inside the
            image, hidden or not.
        labels: int64 (N,), the glyphs' classes.
        source_index: int64 (N,), the glyphs' numbers in their source.
        draw_order: int64 (N,), larger is nearer; constant for a track.
        visible: float32 (N,) in [0, 1], the share of the whole ink that is inside and that no nearer glyph hides.
    """

    images: Image8
    frame: NDArray[np.int64]
    track_id: NDArray[np.int64]
    boxes_px: NDArray[np.int32]
    labels: NDArray[np.int64]
    source_index: NDArray[np.int64]
    draw_order: NDArray[np.int64]
    visible: NDArray[np.float32]


def moving_clip(glyphs: Glyphs, config: MovingConfig, rng: np.random.Generator) -> MovingClip:
    """Generates one clip; `rng` is `image_rng` of the seed, the split and the clip's number."""
    chosen = _choose_glyphs(glyphs, config, rng)
    order = rng.permutation(len(chosen))
    movers = _sample_movers([fit_to_ink(glyphs.images[glyph]) for glyph in chosen], config, rng)
    frames = [_render(movers, np.argsort(order).tolist(), frame, config) for frame in range(config.frames)]
    shown = np.stack([frame.shown for frame in frames])
    frame, track = np.nonzero(shown)
    glyph = np.array(chosen, dtype=np.int64)[track]
    return MovingClip(
        images=np.stack([frame.image for frame in frames]),
        frame=frame,
        track_id=track + 1,
        boxes_px=np.stack([frame.boxes_px for frame in frames])[shown],
        labels=glyphs.labels[glyph],
        source_index=glyphs.indices[glyph],
        draw_order=order[track].astype(np.int64),
        visible=np.stack([frame.visible for frame in frames])[shown],
    )


@dataclass(frozen=True, eq=False)
class _Mover:
    """A glyph without margin, and its longer side (T,) and centre (T, 2) in pixels."""

    glyph: Image8
    side: NDArray[np.float64]
    centers: NDArray[np.float64]


def _choose_glyphs(glyphs: Glyphs, config: MovingConfig, rng: np.random.Generator) -> list[int]:
    """Chooses different glyphs, some of the class of an earlier one."""
    chosen: list[int] = []
    for _ in range(int(rng.integers(config.objects[0], config.objects[1] + 1))):
        left = np.setdiff1d(np.arange(len(glyphs)), chosen)
        if chosen and rng.random() < config.same_class:
            label = glyphs.labels[chosen[int(rng.integers(len(chosen)))]]
            left = same if len(same := left[glyphs.labels[left] == label]) else left
        if not len(left):
            break
        chosen.append(int(left[int(rng.integers(len(left)))]))
    return chosen


def _sample_movers(glyphs: list[Image8], config: MovingConfig, rng: np.random.Generator) -> list[_Mover]:
    walls = Walls(config.canvas, config.leave_share, config.absence)
    movers: list[_Mover] = []
    taken: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    parts = rng.permutation(len(glyphs))
    for glyph, part in zip(glyphs, parts.tolist(), strict=True):
        side = _sample_sides(config, (part + rng.random()) / len(glyphs), rng)
        height, width = glyph.shape
        half = side[:, None] * np.array([width, height]) / (2 * max(height, width))
        speed = config.canvas * rng.uniform(*config.speed)
        paths = [sample_path(half, speed, walls, rng) for _ in range(config.paths)]
        best = min(paths, key=lambda path: overlap(path, half, taken)) if config.paths > 1 else paths[0]
        taken.append((best, half))
        movers.append(_Mover(glyph, side, best))
    return movers


def _sample_sides(config: MovingConfig, size: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Samples a glyph's longer side in each frame: a mean, times a factor that oscillates.

    Args:
        config: the parameters.
        size: where the mean is between `min_size` and `max_size` on a logarithmic scale, 0 ... 1.
        rng: the random generator.
    """
    mean = config.canvas * config.min_size * (config.max_size / config.min_size) ** size
    low, high = config.size_factors
    phase = 2 * math.pi * (rng.random() + np.arange(config.frames) / rng.uniform(*config.period))
    return np.asarray(mean * ((low + high) / 2 + (high - low) / 2 * np.sin(phase)))


@dataclass(frozen=True, eq=False)
class _Frame:
    """A frame with n glyphs, by track.

    Attributes:
        image: uint8 (H, W).
        shown: bool (n,), whether some ink is inside the image, hidden or not.
        boxes_px: int32 (n, 4), see `MovingClip`; zeros for what is not shown.
        visible: float32 (n,), see `MovingClip`.
    """

    image: Image8
    shown: NDArray[np.bool_]
    boxes_px: NDArray[np.int32]
    visible: NDArray[np.float32]


def _render(movers: list[_Mover], order: list[int], frame: int, config: MovingConfig) -> _Frame:
    """Renders a frame of glyphs; `order` has their positions, the farthest first."""
    image, owners = np.zeros((2, config.canvas, config.canvas), dtype=np.uint8)
    boxes, ink_pixels = np.zeros((len(movers), 4), dtype=np.int32), np.ones(len(movers))
    for track in order:
        ink = sized_ink(movers[track].glyph, round(float(movers[track].side[frame])))
        height, width = ink.shape
        x, y = movers[track].centers[frame].tolist()
        left, top = round(x - width / 2), round(y - height / 2)
        x1, y1 = max(0, left), max(0, top)
        x2, y2 = min(config.canvas, left + width), min(config.canvas, top + height)
        if x2 <= x1 or y2 <= y1:
            continue
        part = np.s_[y1 - top : y2 - top, x1 - left : x2 - left]
        inside, hides = ink[part], (_hull(ink) if config.opaque == "hull" else ink)[part] > 0
        np.copyto(image[y1:y2, x1:x2], inside, where=hides)
        np.copyto(owners[y1:y2, x1:x2], np.where(inside > 0, track + 1, 0).astype(np.uint8), where=hides)
        box_x, box_y, box_width, box_height = cv2.boundingRect(inside)
        if box_width:
            boxes[track] = x1 + box_x, y1 + box_y, x1 + box_x + box_width, y1 + box_y + box_height
        ink_pixels[track] = max(1, cv2.countNonZero(ink))  # Thin lines may vanish once they are reduced.
    visible = np.bincount(owners.ravel(), minlength=len(movers) + 1)[1:] / ink_pixels
    return _Frame(image, boxes[:, 2] > 0, boxes, visible.astype(np.float32))


def _hull(ink: Image8) -> Image8:
    """Returns a mask (h, w) of the convex hull of the ink."""
    points = cv2.findNonZero(ink)
    hull: Image8 = np.zeros_like(ink)
    if points is not None:
        cv2.fillConvexPoly(hull, cv2.convexHull(points), 255)
    return np.maximum(hull, ink)
