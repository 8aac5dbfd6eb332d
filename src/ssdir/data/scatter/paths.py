"""Paths of moving glyphs: a velocity, walls that reflect it, and a way out of the image and back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_SLOWEST_AT_BORDER = 2.0
"""The least speed across the border in pixels per frame, so that no glyph stays half outside for long."""

_MARGIN = 1.0
"""The pixels between the border and a glyph outside, so that no rounding shows a part of it."""


@dataclass
class _Axis:
    """A coordinate of a glyph's centre, its velocity, and whether the glyph is on its way out along this axis."""

    position: float
    velocity: float
    is_leaving: bool = False


@dataclass(frozen=True)
class Walls:
    """The image that glyphs move in.

    Attributes:
        canvas: side of the image in pixels.
        leave_share: the share of the hits at a wall at which a glyph leaves the image.
        absence: the fewest and most frames that it then stays outside.
    """

    canvas: int
    leave_share: float
    absence: tuple[int, int]


def sample_path(
    half_sides: NDArray[np.float64], speed: float, walls: Walls, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Samples a glyph's path: it starts at a random place inside the image, in a random direction.

    At a wall, the velocity is reflected such that the glyph stays inside. Or the glyph leaves, stays outside while
    its velocity along the wall carries it on, and comes back through the same wall.

    Args:
        half_sides: (T, 2), half the glyph's width and height in each frame, in pixels; at most half of the image.
        speed: in pixels per frame.
        walls: the image.
        rng: the random generator.

    Returns:
        (T, 2), the centres in pixels, x and y.
    """
    start = half_sides[0] + rng.random(2) * (walls.canvas - 2 * half_sides[0])
    angle = rng.random() * 2 * math.pi
    axes = [_Axis(float(start[0]), speed * math.cos(angle)), _Axis(float(start[1]), speed * math.sin(angle))]
    centers, outside = [], 0
    for half in half_sides.tolist():
        for axis, other, extent in zip(axes, axes[::-1], half, strict=True):
            if axis.is_leaving:
                outside = _move_outside(axis, extent, outside, walls.canvas)
            elif _reaches_wall(axis, extent, walls.canvas):
                if not other.is_leaving and rng.random() < walls.leave_share:
                    axis.is_leaving = True
                    axis.velocity = math.copysign(max(abs(axis.velocity), _SLOWEST_AT_BORDER), axis.velocity)
                    outside = int(rng.integers(walls.absence[0], walls.absence[1] + 1))
                else:
                    _reflect(axis, extent, walls.canvas)
        centers.append([axis.position for axis in axes])
        for axis in axes:
            axis.position += axis.velocity
    return np.array(centers)


def _reaches_wall(axis: _Axis, extent: float, canvas: int) -> bool:
    """Returns whether a glyph touches the wall that it moves to; one that comes back in is left alone."""
    return axis.position < extent if axis.velocity < 0 else axis.position > canvas - extent


def _reflect(axis: _Axis, extent: float, canvas: int) -> None:
    wall = extent if axis.velocity < 0 else canvas - extent
    axis.position = min(max(2 * wall - axis.position, extent), canvas - extent)
    axis.velocity = -axis.velocity


def _move_outside(axis: _Axis, extent: float, frames: int, canvas: int) -> int:
    """Keeps a glyph just outside the image once it has left it, and turns it round after a number of frames.

    Returns:
        The frames that it still stays outside.
    """
    border = -extent if axis.velocity < 0 else canvas + extent
    has_left = axis.position <= border if axis.velocity < 0 else axis.position >= border
    if not has_left:
        return frames
    if frames == 0:
        axis.is_leaving = False
        axis.velocity = -axis.velocity
        axis.position = border + axis.velocity
        return 0
    axis.position = border + math.copysign(_MARGIN, axis.velocity)
    return frames - 1


def overlap(
    centers: NDArray[np.float64],
    half_sides: NDArray[np.float64],
    others: list[tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> float:
    """Returns the largest share, over all frames, of the smaller one of two boxes that the other one overlaps.

    Args:
        centers: (T, 2), of a glyph.
        half_sides: (T, 2), of the glyph.
        others: centres and half sides of other glyphs.
    """
    largest = 0.0
    for other_centers, other_half in others:
        low = np.maximum(centers - half_sides, other_centers - other_half)
        high = np.minimum(centers + half_sides, other_centers + other_half)
        shared = (high - low).clip(0).prod(axis=1)
        smaller = 4 * np.minimum(half_sides.prod(axis=1), other_half.prod(axis=1))
        largest = max(largest, float((shared / smaller).max()))
    return largest
