"""Glimpses: what an image shows inside each object's box."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torchvision.ops import roi_align

from ssdir.ops.compositing import tent_weights


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


def sample_glimpses(
    images: Tensor, boxes: Tensor, image_index: Tensor, size: int, antialias: bool = False
) -> Tensor:
    """Samples each box bilinearly at `size` × `size` points, differentiably in the box (`crop_glimpses` is not).

    The spatial transformer of AIR, SPAIR and SPACE as two matrix products per image, A_y · I · A_xᵀ with tent
    weights: the compositor's paste, the other way round. What lies outside the image is black.

    Args:
        images: float (B, C, H, W).
        boxes: float (M, 4), xyxy relative to the image, with positive area; may reach beyond the image.
        image_index: int64 (M,), never decreasing.
        size: side S of the glimpses.
        antialias: average over the pixels that a sample stands for, where the box has more of them than samples;
            without, equal to `grid_sample(align_corners=False, padding_mode="zeros")`.

    Returns:
        float (M, C, S, S). No per-object copy of an image is made.
    """
    B, C, H, W = images.shape
    # Seen from the box, the image is what is spread: from -low / extent, over 1 / extent.
    low, per_extent = boxes[:, :2], 1 / (boxes[:, 2:] - boxes[:, :2])
    across = tent_weights(-low[:, 0] * per_extent[:, 0], per_extent[:, 0], size, W, antialias)
    down = tent_weights(-low[:, 1] * per_extent[:, 1], per_extent[:, 1], size, H, antialias)
    counts = torch.bincount(image_index, minlength=B).tolist()
    if len(set(counts)) == 1:  # As many in every image: one call instead of one per image.
        left = rearrange(down, "(b n) s h -> b (n s) h", b=B)
        rows = torch.bmm(left, rearrange(images, "b c h w -> b h (c w)")).flatten(0, 1)
    else:
        parts = [
            rearrange(part, "m s h -> (m s) h") @ rearrange(image, "c h w -> h (c w)")
            for part, image in zip(down.split(counts), images, strict=True)
        ]
        rows = torch.cat([images.new_zeros(0, C * W), *parts])
    lines = rearrange(rows, "(m s) (c w) -> m (s c) w", s=size, c=C)
    return rearrange(torch.bmm(lines, across.transpose(1, 2)), "m (s c) t -> m c s t", c=C)
