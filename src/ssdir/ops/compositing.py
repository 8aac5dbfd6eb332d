"""The spatial transformer and merge of SSDIR as matrix products (paper §3.1, "SSDIR Decoder Network").

Pasting an S×S appearance into an axis-aligned box is separable bilinear interpolation: A_y · I · A_xᵀ with
tent weights. The weighted sum over an image's objects is then one product contracted over (object, row):
[A_y,1 … A_y,M] · [I_1 A_x,1ᵀ; …; I_M A_x,Mᵀ], so no object ever has a canvas of its own.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from ssdir.ops.precision import in_full_precision


def tent_weights(low: Tensor, extent: Tensor, num_pixels: int, size: int, antialias: bool = False) -> Tensor:
    """Bilinear weights of `size` samples spread over [low, low + extent] for each pixel of an axis.

    Equal to `grid_sample(align_corners=False, padding_mode="zeros")` along one axis.

    Args:
        low: float (M,), start of the box, relative to the image.
        extent: float (M,), its width or height, > 0.
        num_pixels: pixels P along the axis.
        size: samples S along the axis.
        antialias: widen the tents where the box has fewer pixels than samples, so that every sample counts.

    Returns:
        float (M, P, S).
    """
    centers = (torch.arange(num_pixels, device=low.device, dtype=low.dtype) + 0.5) / num_pixels
    position = (centers - low[:, None]) / extent[:, None] * size - 0.5
    samples = torch.arange(size, device=low.device, dtype=low.dtype)
    if not antialias:
        return (1 - (position[:, :, None] - samples).abs()).clamp(min=0)
    spread = (size / (extent * num_pixels)).clamp(min=1)[:, None, None]
    weights = (1 - (position[:, :, None] - samples).abs() / spread).clamp(min=0)
    # A pixel inside the box averages over its samples; one that straddles the edge keeps its tent's falloff.
    return weights / weights.sum(dim=-1, keepdim=True).clamp(min=1)


@in_full_precision
def paste_sum(
    appearances: Tensor,
    boxes: Tensor,
    counts: list[int],
    size: tuple[int, int],
    antialias: bool = False,
) -> Tensor:
    """Sums the objects of each image, each pasted into its box.

    Args:
        appearances: float (M, C, S, S), already weighted; ordered by image.
        boxes: float (M, 4), xyxy relative to the image, with positive area.
        counts: objects of each image, B numbers that sum to M.
        size: (H, W) of the canvas.
        antialias: see `tent_weights`.

    Returns:
        float (B, C, H, W). Memory grows with M·C·S·W, not with M·C·H·W.
    """
    H, W = size
    C, S = appearances.shape[1], appearances.shape[-1]
    extent = boxes[:, 2:] - boxes[:, :2]
    across = tent_weights(boxes[:, 0], extent[:, 0], W, S, antialias)
    down = tent_weights(boxes[:, 1], extent[:, 1], H, S, antialias)
    rows = torch.bmm(rearrange(appearances, "m c s t -> m (s c) t"), across.transpose(1, 2))
    rows = rearrange(rows, "m (s c) w -> (m s) (c w)", c=C)
    down = rearrange(down, "m h s -> h (m s)")
    canvases = [
        left @ right
        for left, right in zip(
            down.split([n * S for n in counts], dim=1), rows.split([n * S for n in counts]), strict=True
        )
    ]
    return rearrange(torch.stack(canvases), "b h (c w) -> b c h w", c=C)


def image_softmax(logits: Tensor, image_index: Tensor, batch_size: int) -> Tensor:
    """Softmax of (M,) logits over the objects of each image: weights (M,)."""
    highest = logits.new_full((batch_size,), -torch.inf)
    highest = highest.scatter_reduce(0, image_index, logits.detach(), "amax")
    weights = torch.exp(logits - highest[image_index])
    total = weights.new_zeros(batch_size).scatter_add(0, image_index, weights)
    return weights / total[image_index]


@in_full_precision
def composite_weighted(
    appearances: Tensor,
    boxes: Tensor,
    z_depth: Tensor,
    image_index: Tensor,
    batch_size: int,
    size: tuple[int, int],
) -> Tensor:
    """The paper's merge: a sum weighted by softmaxed depth, divided by the image's maximum.

    Args:
        appearances: float (M, 3, S, S) in [0, 1].
        boxes: float (M, 4), xyxy relative to the image.
        z_depth: float (M,), larger is nearer.
        image_index: int64 (M,), never decreasing.
        batch_size: images B.
        size: (H, W).

    Returns:
        float (B, 3, H, W) in [0, 1].
    """
    weights = image_softmax(z_depth, image_index, batch_size)
    counts = torch.bincount(image_index, minlength=batch_size).tolist()
    canvas = paste_sum(appearances * weights[:, None, None, None], boxes, counts, size)
    return canvas / canvas.amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6)


@in_full_precision
def composite_alpha(
    appearances: Tensor,
    alpha: Tensor,
    boxes: Tensor,
    z_depth: Tensor,
    image_index: Tensor,
    batch_size: int,
    size: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """The per-pixel merge: where objects overlap, the nearer opaque one is seen.

    With opacity a_m, premultiplied colour c_m and depth weight w_m pasted at a pixel, the pixel shows
    (Σ w c / Σ w a) · min(1, Σ a): a mean over what is there, weighted by nearness, over black. A departure from
    the paper, whose weights are one number per object, so that an object dims all others of its image.

    Args:
        appearances: float (M, 3, S, S) in [0, 1], premultiplied by alpha.
        alpha: float (M, 1, S, S) in [0, 1].
        boxes: float (M, 4), xyxy relative to the image.
        z_depth: float (M,), larger is nearer.
        image_index: int64 (M,), never decreasing.
        batch_size: images B.
        size: (H, W).

    Returns:
        reconstructions (B, 3, H, W) over black and coverage (B, 1, H, W), the opacity of all objects together.
    """
    weights = _depth_weights(z_depth, image_index, batch_size)[:, None, None, None]
    counts = torch.bincount(image_index, minlength=batch_size).tolist()
    layers = torch.cat([appearances * weights, alpha * weights, alpha], dim=1)
    pasted = paste_sum(layers, boxes, counts, size, antialias=True)
    colour, weighted_alpha, total_alpha = pasted.split([3, 1, 1], dim=1)
    coverage = total_alpha.clamp(max=1)
    return (colour / weighted_alpha.clamp(min=1e-10) * coverage).clamp(0, 1), coverage


@in_full_precision
def pixel_owners(
    alpha: Tensor,
    boxes: Tensor,
    z_depth: Tensor,
    image_index: Tensor,
    batch_size: int,
    size: tuple[int, int],
    min_coverage: float = 0.5,
) -> Tensor:
    """Which object each pixel shows most of: a segmentation, from what `composite_alpha` merges.

    The owner is the object of the largest w_m a_m, its opacity weighted by its nearness, where the coverage of all
    objects together, Σ a, is at least `min_coverage`.

    Args:
        alpha: float (M, 1, S, S) in [0, 1].
        boxes: float (M, 4), xyxy relative to the image, with positive area.
        z_depth: float (M,), larger is nearer.
        image_index: int64 (M,), never decreasing.
        batch_size: images B.
        size: (H, W).
        min_coverage: least coverage of a pixel that belongs to an object.

    Returns:
        int64 (B, H, W): the owner's row, 0 ... M-1, or -1. The objects of one image at a time have canvases.
    """
    H, W = size
    S = alpha.shape[-1]
    extent = boxes[:, 2:] - boxes[:, :2]
    across = tent_weights(boxes[:, 0], extent[:, 0], W, S, antialias=True).transpose(1, 2)
    down = tent_weights(boxes[:, 1], extent[:, 1], H, S, antialias=True)
    weights = _depth_weights(z_depth, image_index, batch_size)[:, None, None]
    owners = image_index.new_full((batch_size, H, W), -1)
    first = 0
    for image, n in enumerate(torch.bincount(image_index, minlength=batch_size).tolist()):
        if n:
            rows = slice(first, first + n)
            pasted = torch.bmm(torch.bmm(down[rows], alpha[rows, 0]), across[rows])
            shown = (pasted * weights[rows]).argmax(dim=0) + first
            owners[image] = torch.where(pasted.sum(dim=0) >= min_coverage, shown, -1)
        first += n
    return owners


def _depth_weights(z_depth: Tensor, image_index: Tensor, batch_size: int) -> Tensor:
    """Nearness (M,): the floor keeps an object that is far behind the others in view where it is alone."""
    return image_softmax(z_depth, image_index, batch_size).clamp(min=1e-6)
