"""SSD's default boxes over a feature pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor


def anchor_shapes(
    min_size: float, max_size: float, aspect_ratios: Sequence[float] = ()
) -> list[tuple[float, float]]:
    """Width and height of a cell's anchors; for the arguments see `level_anchors`."""
    larger = sqrt(min_size * max_size)
    ratios = [(min_size * sqrt(ratio), min_size / sqrt(ratio)) for ratio in aspect_ratios]
    return [(min_size, min_size), (larger, larger), *ratios]


def level_anchors(
    feature_size: int, min_size: float, max_size: float, aspect_ratios: Sequence[float] = ()
) -> Tensor:
    """Anchors of one pyramid level.

    Every cell has a square of `min_size`, a square of sqrt(min_size · max_size), and one box of the first
    square's area per aspect ratio.

    Args:
        feature_size: cells along each side of the level.
        min_size: side of the smaller square, relative to the image.
        max_size: usually the next level's `min_size`, relative to the image.
        aspect_ratios: width / height of each further anchor.

    Returns:
        float (feature_size² · A, 4): cxcywh in [0, 1], ordered row, column, anchor.
    """
    shapes = anchor_shapes(min_size, max_size, aspect_ratios)
    centers = (torch.arange(feature_size) + 0.5) / feature_size
    grid = torch.cartesian_prod(centers, centers).flip(-1)
    A = len(shapes)
    return torch.cat([grid.repeat_interleave(A, dim=0), torch.tensor(shapes).repeat(len(grid), 1)], dim=1)


def level_iou(
    boxes_cxcywh: Tensor, feature_size: int, min_size: float, max_size: float, aspect_ratios: Sequence[float] = ()
) -> Tensor:
    """The largest IoU of each box with any of a level's anchors, without building these.

    Of anchors of one shape, the one in the box's own cell overlaps it most: the overlap along an axis never grows
    with the distance of the centres. So each shape is compared once, not once per cell.

    Args:
        boxes_cxcywh: float (M, 4), centres in [0, 1].
        feature_size: as for the other arguments, see `level_anchors`.
        min_size: see there.
        max_size: see there.
        aspect_ratios: see there.

    Returns:
        float (M,).
    """
    center, sides = boxes_cxcywh[:, None, :2], boxes_cxcywh[:, None, 2:]
    shapes = boxes_cxcywh.new_tensor(anchor_shapes(min_size, max_size, aspect_ratios))
    cell = (center * feature_size).floor().clamp(0, feature_size - 1)
    distance = (center - (cell + 0.5) / feature_size).abs()
    shared = ((sides + shapes) / 2 - distance).clamp(min=0).minimum(sides).minimum(shapes).prod(dim=-1)
    union = sides.prod(dim=-1) + shapes.prod(dim=-1) - shared
    return (shared / union).amax(dim=1)
