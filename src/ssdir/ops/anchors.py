"""SSD's anchors (default boxes) over a feature pyramid, and their matching with objects."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import box_iou

from ssdir.objects import Objects
from ssdir.ops.boxes import to_xyxy


class AnchorLevel(NamedTuple):
    """The anchors of one pyramid level; see `level_anchors`."""

    feature_size: int
    min_size: float
    max_size: float
    aspect_ratios: Sequence[float] = ()


def anchor_shapes(
    min_size: float, max_size: float, aspect_ratios: Sequence[float] = ()
) -> list[tuple[float, float]]:
    """Lists width and height of the A anchors of a cell; for the arguments see `level_anchors`."""
    larger = sqrt(min_size * max_size)
    ratios = [(min_size * sqrt(ratio), min_size / sqrt(ratio)) for ratio in aspect_ratios]
    return [(min_size, min_size), (larger, larger), *ratios]


def level_anchors(
    feature_size: int, min_size: float, max_size: float, aspect_ratios: Sequence[float] = ()
) -> Tensor:
    """Builds the anchors of one pyramid level.

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
    """Computes the largest IoU (M,) of each box (M, 4) with any anchor of a level, without building the anchors.

    For the other arguments, see `level_anchors`.
    """
    level = AnchorLevel(feature_size, min_size, max_size, aspect_ratios)
    return _own_cell(boxes_cxcywh, level)[0].amax(dim=1)


def assign_anchors(boxes_cxcywh: Tensor, levels: Sequence[AnchorLevel]) -> Tensor:
    """Assigns to each box the anchor of largest IoU, which determines its level and cell.

    If several anchors of one shape have equal IoU, as anchors do that contain the box, the one in the cell of the
    box's centre is taken.

    Args:
        boxes_cxcywh: float (M, 4).
        levels: the levels of the pyramid, in its order.

    Returns:
        int64 (M,): index into the concatenated `level_anchors` of the levels.
    """
    overlaps, anchors, first = [], [], 0
    for level in levels:
        overlap, cell = _own_cell(boxes_cxcywh, level)
        A = overlap.shape[1]
        overlaps.append(overlap)
        anchors.append(first + cell[:, None] * A + torch.arange(A, device=cell.device))
        first += level.feature_size**2 * A
    best = torch.cat(overlaps, dim=1).argmax(dim=1, keepdim=True)
    return torch.cat(anchors, dim=1).gather(1, best)[:, 0]


def _own_cell(boxes_cxcywh: Tensor, level: AnchorLevel) -> tuple[Tensor, Tensor]:
    """Computes the IoU (M, A) of each box with the anchors of the cell that its centre is in, and that cell (M,).

    No other anchor of the same shape overlaps it more, since the overlap along an axis never grows with the
    distance of the centres. So each shape is compared once, not once per cell.
    """
    feature_size = level.feature_size
    center, sides = boxes_cxcywh[:, None, :2], boxes_cxcywh[:, None, 2:]
    shapes = boxes_cxcywh.new_tensor(anchor_shapes(*level[1:]))
    cell = (center * feature_size).floor().clamp(0, feature_size - 1)
    distance = (center - (cell + 0.5) / feature_size).abs()
    shared = ((sides + shapes) / 2 - distance).clamp(min=0).minimum(sides).minimum(shapes).prod(dim=-1)
    union = sides.prod(dim=-1) + shapes.prod(dim=-1) - shared
    column, row = cell[:, 0].long().unbind(1)
    return shared / union, row * feature_size + column


def match_anchors(targets: Objects, anchors: Tensor, iou_threshold: float = 0.5) -> Tensor:
    """Assigns to every anchor of every image the row of `targets` that it should detect.

    An anchor is matched with the object of largest IoU if that is at least `iou_threshold`; and every object is
    matched with its anchor of largest IoU, however small, so that every object is learned. If two objects share
    their best anchor, the one with the larger IoU keeps it.

    Args:
        targets: true objects of B images.
        anchors: float (N, 4), cxcywh.
        iou_threshold: least overlap of a match.

    Returns:
        int64 (B, N): row of `targets`, or -1 for background.
    """
    B, N, M = targets.batch_size, anchors.shape[0], len(targets)
    if not M:
        return torch.full((B, N), -1, dtype=torch.int64, device=anchors.device)
    overlaps = box_iou(to_xyxy(targets.z_where), to_xyxy(anchors))
    image, row = targets.image_index, torch.arange(M, device=anchors.device)
    # Vectorised over images: a loop would launch kernels once per image. Of equal overlaps, the first row counts.
    of_image = image[:, None].expand_as(overlaps)
    best_iou = overlaps.new_full((B, N), -1).scatter_reduce(0, of_image, overlaps, "amax")
    candidates = torch.where(overlaps == best_iou[image], row[:, None], M)
    best = candidates.new_full((B, N), M).scatter_reduce(0, of_image, candidates, "amin")
    matches = torch.where(best_iou >= iou_threshold, best, -1).flatten()
    forced_iou, forced_anchor = overlaps.max(dim=1)
    claimed = image * N + forced_anchor
    # Where objects share their best anchor, the one with the larger overlap keeps it.
    claim = overlaps.new_zeros(B * N).scatter_reduce(0, claimed, forced_iou, "amax")
    rows = torch.where(forced_iou == claim[claimed], row, -1)
    forced = torch.full_like(matches, -1).scatter_reduce(0, claimed, rows, "amax")
    return torch.where(forced >= 0, forced, matches).view(B, N)
