"""Glimpses: what an image shows inside each object's box."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import roi_align


def crop_glimpses(images: Tensor, boxes: Tensor, image_index: Tensor, size: int) -> Tensor:
    """Crops each box to `size` × `size`, averaging where the box is larger than the glimpse.

    Args:
        images: float (B, C, H, W).
        boxes: float (M, 4), xyxy relative to the image.
        image_index: int64 (M,), the image of each box.
        size: side S of the glimpses.

    Returns:
        float (M, C, S, S). No per-object copy of an image is made.
    """
    H, W = images.shape[-2:]
    corners = boxes * boxes.new_tensor([W, H, W, H])
    rois = torch.cat([image_index[:, None].to(corners.dtype), corners], dim=1)
    glimpses: Tensor = roi_align(images, rois.to(images.dtype), output_size=size, aligned=True)
    return glimpses
