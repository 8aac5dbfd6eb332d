"""Box coordinates, and their coding relative to anchors (SSD; paper §3.1, eq. 3)."""

from __future__ import annotations

import torch
from torch import Tensor


def to_xyxy(boxes_cxcywh: Tensor) -> Tensor:
    """Converts cxcywh (..., 4) to xyxy (..., 4)."""
    center, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
    return torch.cat([center - half, center + half], dim=-1)


def to_cxcywh(boxes: Tensor) -> Tensor:
    """Converts xyxy (..., 4) to cxcywh (..., 4)."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def with_area(boxes: Tensor, image_size: int) -> Tensor:
    """Boxes xyxy (M, 4) at least a tenth of a pixel wide and high, so that pasting never divides by zero."""
    low, high = boxes[:, :2], boxes[:, 2:]
    return torch.cat([low, torch.maximum(high, low + 0.1 / image_size)], dim=1)


def encode_boxes(boxes_cxcywh: Tensor, anchors: Tensor, variances: tuple[float, float] = (0.1, 0.2)) -> Tensor:
    """Box deltas relative to anchors, the regression target of SSD.

    Args:
        boxes_cxcywh: float (..., 4), width and height > 0.
        anchors: float (..., 4), cxcywh, row-aligned with the boxes.
        variances: divisors of the centre offsets and of the log size ratios.

    Returns:
        float (..., 4): (dx, dy, log dw, log dh).
    """
    offsets = (boxes_cxcywh[..., :2] - anchors[..., :2]) / (anchors[..., 2:] * variances[0])
    sizes = torch.log(boxes_cxcywh[..., 2:] / anchors[..., 2:]) / variances[1]
    return torch.cat([offsets, sizes], dim=-1)


def decode_boxes(box_deltas: Tensor, anchors: Tensor, variances: tuple[float, float] = (0.1, 0.2)) -> Tensor:
    """Inverse of `encode_boxes`: boxes (..., 4) in cxcywh."""
    centers = anchors[..., :2] + box_deltas[..., :2] * variances[0] * anchors[..., 2:]
    sizes = anchors[..., 2:] * torch.exp(box_deltas[..., 2:] * variances[1])
    return torch.cat([centers, sizes], dim=-1)


def clip_cxcywh(boxes_cxcywh: Tensor) -> Tensor:
    """Clips boxes to the unit square, in and out as cxcywh (..., 4)."""
    return to_cxcywh(to_xyxy(boxes_cxcywh).clamp(0, 1))
