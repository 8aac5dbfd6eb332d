"""Glimpses: crops of images at the objects' boxes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor
from torchvision.ops import roi_align

from ssdir.ops.bins import sum_of_bins
from ssdir.ops.pasting import tent_weights
from ssdir.ops.precision import at_least_single, in_full_precision


@in_full_precision
def crop_glimpses(images: Tensor, boxes: Tensor, image_index: Tensor, size: int) -> Tensor:
    """Crops each box and resizes it to `size` × `size`, averaging if the box has more pixels than the glimpse.

    Args:
        images: float (B, C, H, W).
        boxes: float (M, 4), xyxy relative to the image.
        image_index: int64 (M,), the image of each box.
        size: side S of the glimpses.

    Returns:
        float (M, C, S, S). No per-object copy of an image is made.
    """
    if images.requires_grad and images.device.type == "cpu":
        return sum_of_bins([images], boxes, image_index, size)
    H, W = images.shape[-2:]
    corners = boxes * boxes.new_tensor([W, H, W, H])
    rois = torch.cat([image_index[:, None].to(corners.dtype), corners], dim=1)
    glimpses: Tensor = roi_align(images, rois.to(images.dtype), output_size=size, aligned=True)
    return glimpses


def crop_levels(levels: Sequence[Tensor], boxes: Tensor, image_index: Tensor, size: int) -> Tensor:
    """Sums `crop_glimpses` of several feature maps, each (B, C, h, w), of the same images."""
    if levels[0].device.type == "cpu" and any(level.requires_grad for level in levels):
        return sum_of_bins([at_least_single(level) for level in levels], boxes, image_index, size)
    return torch.stack([crop_glimpses(level, boxes, image_index, size) for level in levels]).sum(dim=0)


@in_full_precision
def sample_glimpses(
    images: Tensor, boxes: Tensor, image_index: Tensor, size: int, antialias: bool = False
) -> Tensor:
    """Samples each box bilinearly at `size` × `size` points, differentiably in the box (`crop_glimpses` is not).

    This is the spatial transformer of AIR, SPAIR and SPACE, the inverse of pasting, as two matrix products per
    image: A_y · I · A_xᵀ with tent weights. Points outside the image are black.

    Args:
        images: float (B, C, H, W).
        boxes: float (M, 4), xyxy relative to the image, with positive area; may reach beyond the image.
        image_index: int64 (M,), never decreasing.
        size: side S of the glimpses.
        antialias: average over pixels if the box has more pixels than samples; without it, the result equals
            `grid_sample(align_corners=False, padding_mode="zeros")`.

    Returns:
        float (M, C, S, S). No per-object copy of an image is made.
    """
    H, W = images.shape[-2:]
    # In the frame of the box, the image extends from -low / extent over 1 / extent.
    low, per_extent = boxes[:, :2], 1 / (boxes[:, 2:] - boxes[:, :2])
    across = tent_weights(-low[:, 0] * per_extent[:, 0], per_extent[:, 0], size, W, antialias)
    down = tent_weights(-low[:, 1] * per_extent[:, 1], per_extent[:, 1], size, H, antialias)
    return _contract(images, down, across, image_index)


def _contract(images: Tensor, down: Tensor, across: Tensor, image_index: Tensor) -> Tensor:
    """Computes glimpses (M, C, S, S), A_y · I · A_xᵀ, from weights (M, S, H) and (M, S, W), ordered by image."""
    B, C, _, W = images.shape
    size = down.shape[1]
    counts = torch.bincount(image_index, minlength=B).tolist()
    if len(set(counts)) == 1:  # Every image has as many: one call instead of one per image.
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
