"""Box coordinates, and box deltas relative to anchors (SSD; paper §3.1, eq. 3)."""

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


def grow_boxes(boxes_cxcywh: Tensor, factor: float) -> Tensor:
    """Scales boxes (N, 4), cxcywh, by `factor` about their centres."""
    return torch.cat([boxes_cxcywh[:, :2], boxes_cxcywh[:, 2:] * factor], dim=1)


def with_area(boxes: Tensor, image_size: int) -> Tensor:
    """Widens boxes xyxy (M, 4) to at least a tenth of a pixel: pasting and sampling divide by their sides."""
    low, high = boxes[:, :2], boxes[:, 2:]
    return torch.cat([low, torch.maximum(high, low + 0.1 / image_size)], dim=1)


def encode_boxes(boxes_cxcywh: Tensor, anchors: Tensor, variances: tuple[float, float] = (0.1, 0.2)) -> Tensor:
    """Encodes boxes as deltas relative to anchors, the regression target of SSD.

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
    """Decodes deltas to boxes (..., 4) in cxcywh: the inverse of `encode_boxes`."""
    centers = anchors[..., :2] + box_deltas[..., :2] * variances[0] * anchors[..., 2:]
    sizes = anchors[..., 2:] * torch.exp(box_deltas[..., 2:] * variances[1])
    return torch.cat([centers, sizes], dim=-1)


def clip_cxcywh(boxes_cxcywh: Tensor) -> Tensor:
    """Clips boxes in cxcywh (..., 4) to the unit square."""
    return to_cxcywh(to_xyxy(boxes_cxcywh).clamp(0, 1))


def tight_boxes(shapes: Tensor, threshold: float) -> Tensor:
    """Computes the box around what is visible in each window.

    Args:
        shapes: float (M, 1, S, S), visibility of each sample of the window.
        threshold: minimum visibility that counts; capped at the window's own maximum, so that no box is empty.

    Returns:
        float (M, 4), xyxy relative to the window, in [0, 1], with positive area.
    """
    S = shapes.shape[-1]
    visible = shapes[:, 0] >= shapes.amax(dim=(1, 2, 3)).clamp(max=threshold)[:, None, None]
    across, down = visible.any(dim=1).to(torch.uint8), visible.any(dim=2).to(torch.uint8)
    low = torch.stack([side.argmax(dim=1) for side in (across, down)], dim=1)
    high = S - torch.stack([side.flip(1).argmax(dim=1) for side in (across, down)], dim=1)
    return torch.cat([low, high], dim=1).to(shapes) / S


def inside_windows(windows: Tensor, parts: Tensor) -> Tensor:
    """Converts `parts` (..., 4) relative to `windows` (..., 4) to boxes of the image (..., 4), all xyxy."""
    low, extent = windows[..., :2], windows[..., 2:] - windows[..., :2]
    return torch.cat([low + parts[..., :2] * extent, low + parts[..., 2:] * extent], dim=-1)


def around_parts(boxes: Tensor, parts: Tensor) -> Tensor:
    """Computes the windows (..., 4) of which `boxes` (..., 4) are the `parts`: inverse of `inside_windows`."""
    extent = (boxes[..., 2:] - boxes[..., :2]) / (parts[..., 2:] - parts[..., :2])
    low = boxes[..., :2] - parts[..., :2] * extent
    return torch.cat([low, low + extent], dim=-1)
