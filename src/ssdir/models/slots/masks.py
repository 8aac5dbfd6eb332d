"""Which slots are objects, and their boxes: rules on the masks of an image's slots.

A slot *wins* a pixel if its mask is the largest there. The one slot that wins most of the image's border is
background. A slot that wins fewer than `MIN_PIXELS` pixels is empty. All others are objects: their box is the
tight one around the pixels that they win, and their score the mean of their mask there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ssdir.ops.boxes import tight_boxes, to_cxcywh

MIN_PIXELS = 4
"""Least pixels that a slot that is an object wins."""


@dataclass(frozen=True, eq=False)
class SlotMasks:
    """What the masks of B images with K slots each say.

    Attributes:
        background: bool (B, K), whether a slot is background: one of each image.
        scores: float (B, K), in [0, 1]: the mean of the mask over the pixels that an object wins; 0 for background
            and empty slots.
        boxes_cxcywh: float (B, K, 4), the tight boxes of the pixels that the slots win; arbitrary for empty ones.
    """

    background: Tensor
    scores: Tensor
    boxes_cxcywh: Tensor


def read_masks(masks: Tensor) -> SlotMasks:
    """Decides which slots are objects.

    Args:
        masks: float (B, K, H, W), H = W, in [0, 1], that sum to 1 over the slots.
    """
    B, K, H, W = masks.shape
    wins = masks == masks.amax(dim=1, keepdim=True)
    background = background_slots(wins)
    pixels = wins.sum(dim=(2, 3))
    scores = (masks * wins).sum(dim=(2, 3)) / pixels.clamp(min=1)
    is_object = ~background & (pixels >= MIN_PIXELS)
    boxes = tight_boxes(wins.view(B * K, 1, H, W).to(masks), 0.5)
    return SlotMasks(background, scores * is_object, to_cxcywh(boxes).view(B, K, 4))


def background_slots(wins: Tensor) -> Tensor:
    """Decides which slot is background, bool (B, K), by the pixels that each wins, bool (B, K, H, W)."""
    edges = torch.cat([wins[:, :, 0], wins[:, :, -1], wins[:, :, 1:-1, 0], wins[:, :, 1:-1, -1]], dim=2)
    most = edges.sum(dim=2).argmax(dim=1, keepdim=True)
    return torch.zeros_like(wins[:, :, 0, 0]).scatter(1, most, True)


def mask_box_iou(masks: Tensor, boxes: Tensor) -> Tensor:
    """Computes the IoU of soft masks and boxes.

    Args:
        masks: float (M, K, H, W), in [0, 1].
        boxes: float (M, 4), xyxy relative to the image: pixels count whose centres are inside.

    Returns:
        float (M, K).
    """
    H, W = masks.shape[-2:]
    y = (torch.arange(H, device=masks.device) + 0.5) / H
    x = (torch.arange(W, device=masks.device) + 0.5) / W
    rows = (boxes[:, None, 1] <= y) & (y < boxes[:, None, 3])
    columns = (boxes[:, None, 0] <= x) & (x < boxes[:, None, 2])
    inside = (rows[:, :, None] & columns[:, None, :]).to(masks)
    shared = torch.einsum("mkhw,mhw->mk", masks, inside)
    union = masks.sum(dim=(2, 3)) + inside.sum(dim=(1, 2))[:, None] - shared
    return shared / union.clamp(min=1e-6)
