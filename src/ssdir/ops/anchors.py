"""SSD's default boxes over a feature pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor


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
    shapes = [(min_size, min_size), (sqrt(min_size * max_size),) * 2]
    shapes += [(min_size * sqrt(ratio), min_size / sqrt(ratio)) for ratio in aspect_ratios]
    centers = (torch.arange(feature_size) + 0.5) / feature_size
    grid = torch.cartesian_prod(centers, centers).flip(-1)
    A = len(shapes)
    return torch.cat([grid.repeat_interleave(A, dim=0), torch.tensor(shapes).repeat(len(grid), 1)], dim=1)
