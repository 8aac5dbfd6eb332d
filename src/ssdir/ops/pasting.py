"""Pasting objects into images: the spatial transformer of SSDIR as matrix products (paper §3.1, "SSDIR Decoder").

Pasting an S×S appearance into an axis-aligned box is separable bilinear interpolation: A_y · I · A_xᵀ with tent
weights. Outside the box these are zero, so only the object's region of the image need be computed
(`_sum_of_regions`). For many small objects, one product per image contracted over (object, row) is faster,
[A_y,1 … A_y,M] · [I_1 A_x,1ᵀ; …; I_M A_x,Mᵀ] (`_sum_as_product`); and on GPUs, one for all images at once, for
which objects are put together in groups of equal size (`_sum_of_groups`). No object has a canvas of its own.
"""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.autograd.function import once_differentiable

from ssdir.ops.precision import in_full_precision

Region = tuple[int, int, int, int, int]
"""Image, first row, number of rows, first column, number of columns."""

CALL_COST = 2_000_000
"""Number of multiplications that take a CPU core about as long as the overhead of the calls for one object."""

GROUP_SIZE = 8
"""Objects of an image that a GPU sums in one product; the last group of an image may have fewer."""


@in_full_precision
def paste_sum(
    appearances: Tensor,
    boxes: Tensor,
    counts: list[int],
    size: tuple[int, int],
    antialias: bool = False,
) -> Tensor:
    """Pastes objects into their boxes, and sums those of each image.

    Args:
        appearances: float (M, C, S, S), already weighted; ordered by image.
        boxes: float (M, 4), xyxy relative to the image, with positive area.
        counts: objects of each image, B numbers that sum to M.
        size: (H, W) of the canvas.
        antialias: see `tent_weights`.

    Returns:
        float (B, C, H, W). Memory grows with M·C·S·W at most, not with M·C·H·W.
    """
    if not counts:
        return appearances.new_zeros(0, appearances.shape[1], *size)
    if boxes.device.type != "cpu":
        return _sum_of_groups(appearances, boxes, counts, size, antialias)
    regions = _regions(boxes, counts, size, appearances.shape[-1])
    if regions and _regions_are_cheaper(regions, appearances.shape[1], appearances.shape[-1], size):
        return _sum_of_regions(appearances, boxes, regions, (len(counts), *size), antialias)
    return _sum_as_product(appearances, boxes, counts, size, antialias)


def tent_weights(
    low: Tensor,
    extent: Tensor,
    num_pixels: int,
    size: int,
    antialias: bool = False,
    pixels: Tensor | None = None,
) -> Tensor:
    """Computes bilinear weights of `size` samples spread over [low, low + extent] for each pixel of an axis.

    Equal to `grid_sample(align_corners=False, padding_mode="zeros")` along one axis.

    Args:
        low: float (M,), start of the box, relative to the image.
        extent: float (M,), its width or height, > 0.
        num_pixels: pixels along the axis.
        size: samples S along the axis.
        antialias: widen the tents where the box has fewer pixels than samples, so that every sample contributes.
        pixels: int64 (M, P), the pixels to compute weights for; None for all.

    Returns:
        float (M, P, S).
    """
    if pixels is None:
        pixels = torch.arange(num_pixels, device=low.device)
    centers = (pixels.to(low.dtype) + 0.5) / num_pixels
    position = (centers - low[:, None]) / extent[:, None] * size - 0.5
    # The arithmetic is done in place: allocating memory takes several times as long.
    weights = position[:, :, None] - torch.arange(size, device=low.device, dtype=low.dtype)
    if not antialias:
        return weights.abs_().neg_().add_(1).clamp_(min=0)
    spread = (size / (extent * num_pixels)).clamp(min=1)[:, None, None]
    weights.abs_().div_(-spread).add_(1).clamp_(min=0)
    # A pixel inside the box averages over its samples; at the edge, the falloff of the tent stays.
    return weights.div_(weights.sum(dim=-1, keepdim=True).clamp(min=1))


def _sum_as_product(
    appearances: Tensor, boxes: Tensor, counts: list[int], size: tuple[int, int], antialias: bool
) -> Tensor:
    C, S = appearances.shape[1], appearances.shape[-1]
    down, rows = _factors(appearances, boxes, size, antialias)
    down, rows = rearrange(down, "m h s -> h (m s)"), rearrange(rows, "m s c w -> (m s) (c w)")
    canvases = [
        left @ right
        for left, right in zip(
            down.split([n * S for n in counts], dim=1), rows.split([n * S for n in counts]), strict=True
        )
    ]
    return rearrange(torch.stack(canvases), "b h (c w) -> b c h w", c=C)


def _factors(appearances: Tensor, boxes: Tensor, size: tuple[int, int], antialias: bool) -> tuple[Tensor, Tensor]:
    """Computes A_y (M, H, S) and I · A_xᵀ (M, S, C, W) of each object."""
    H, W = size
    C, S = appearances.shape[1], appearances.shape[-1]
    extent = boxes[:, 2:] - boxes[:, :2]
    across = tent_weights(boxes[:, 0], extent[:, 0], W, S, antialias)
    down = tent_weights(boxes[:, 1], extent[:, 1], H, S, antialias)
    rows = torch.bmm(rearrange(appearances, "m c s t -> m (s c) t"), across.transpose(1, 2))
    return down, rearrange(rows, "m (s c) w -> m s c w", c=C)


def _sum_of_groups(
    appearances: Tensor, boxes: Tensor, counts: list[int], size: tuple[int, int], antialias: bool
) -> Tensor:
    """Computes a product per group of objects of one image, all groups at once, and sums them.

    A loop would launch kernels once per image, which takes longer than the products from about 128 images on.
    """
    B, C = len(counts), appearances.shape[1]
    down, rows = _factors(appearances, boxes, size, antialias)
    # Computed on the host, which knows the counts, so that nothing waits for the device.
    per_image = torch.tensor(counts)
    groups = (per_image + GROUP_SIZE - 1) // GROUP_SIZE
    first_slot = (groups.cumsum(0) - groups) * GROUP_SIZE
    place = torch.arange(len(boxes)) - (per_image.cumsum(0) - per_image).repeat_interleave(per_image)
    slots = (first_slot.repeat_interleave(per_image) + place).to(boxes.device, non_blocking=True)
    image = torch.arange(B).repeat_interleave(groups).to(boxes.device, non_blocking=True)
    down, rows = (
        each.new_zeros(len(image) * GROUP_SIZE, *each.shape[1:]).index_copy(0, slots, each)
        for each in (down, rows)
    )
    left = rearrange(down, "(n m) h s -> n h (m s)", m=GROUP_SIZE)
    right = rearrange(rows, "(n m) s c w -> n (m s) (c w)", m=GROUP_SIZE)
    sums = torch.bmm(left, right)
    canvases = sums.new_zeros(B, *sums.shape[1:]).index_add(0, image, sums)
    return rearrange(canvases, "b h (c w) -> b c h w", c=C)


def _regions(boxes: Tensor, counts: list[int], size: tuple[int, int], samples: int) -> list[Region]:
    """Computes the region of pixels that each object can reach."""
    extent = boxes.detach()[:, 2:] - boxes.detach()[:, :2]
    pixels = boxes.new_tensor([size[1], size[0]])
    # Half a sample beyond the box, more with antialiasing, and a pixel against rounding.
    margin = torch.maximum(extent / (2 * samples), 1 / pixels) * pixels + 1
    first = (boxes.detach()[:, :2] * pixels - margin).floor().clamp(min=0).minimum(pixels - 1)
    end = (boxes.detach()[:, 2:] * pixels + margin).ceil().minimum(pixels).maximum(first + 1)
    image = [image for image, count in enumerate(counts) for _ in range(count)]
    (x, y), (w, h) = first.long().T.tolist(), (end - first).long().T.tolist()
    return list(zip(image, y, h, x, w, strict=True))


def _regions_are_cheaper(regions: list[Region], C: int, S: int, size: tuple[int, int]) -> bool:
    H, W = size
    alone = sum(C * S * w * (S + h) + CALL_COST for _, _, h, _, w in regions)
    return alone < len(regions) * C * S * W * (S + H)


def _sum_of_regions(
    appearances: Tensor, boxes: Tensor, regions: list[Region], size: tuple[int, int, int], antialias: bool
) -> Tensor:
    (_, H, W), S = size, appearances.shape[-1]
    extent = boxes[:, 2:] - boxes[:, :2]
    _, y, h, x, w = torch.tensor(regions).T
    columns = x[:, None] + torch.arange(int(w.max()))
    rows = y[:, None] + torch.arange(int(h.max()))
    across = tent_weights(boxes[:, 0], extent[:, 0], W, S, antialias, columns)
    down = tent_weights(boxes[:, 1], extent[:, 1], H, S, antialias, rows)
    pasted: Tensor = _PasteRegions.apply(appearances, across, down, regions, size)
    return pasted


class _PasteRegions(torch.autograd.Function):
    """Adds A_y · I · A_xᵀ of each object to its region; the backward pass reads the regions' gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        appearances: Tensor,
        across: Tensor,
        down: Tensor,
        regions: list[Region],
        size: tuple[int, int, int],
    ) -> Tensor:
        (B, H, W), C = size, appearances.shape[1]
        canvas = appearances.new_zeros(B, H, C, W)
        for m, (image, y, h, x, w) in enumerate(regions):
            rows = _rows(appearances[m], across[m, :w])
            canvas[image, y : y + h, :, x : x + w] += (down[m, :h] @ rows).view(h, C, w)
        ctx.save_for_backward(appearances, across, down)
        ctx.regions = regions
        return canvas.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        appearances, across, down = ctx.saved_tensors
        C, S = appearances.shape[1], appearances.shape[-1]
        of_appearances, of_across, of_down = (
            torch.zeros_like(each, memory_format=torch.contiguous_format) if needed else None
            for each, needed in zip(ctx.saved_tensors, ctx.needs_input_grad, strict=False)
        )
        for m, (image, y, h, x, w) in enumerate(ctx.regions):
            seen = grad[image, :, y : y + h, x : x + w].transpose(0, 1).reshape(h, C * w)
            of_rows = (down[m, :h].T @ seen).view(S, C, w).transpose(0, 1).reshape(C * S, w)
            if of_appearances is not None:
                torch.mm(of_rows, across[m, :w], out=of_appearances[m].view(C * S, S))
            if of_across is not None:
                torch.mm(of_rows.T, appearances[m].reshape(C * S, S), out=of_across[m, :w])
            if of_down is not None:
                torch.mm(seen, _rows(appearances[m], across[m, :w]).T, out=of_down[m, :h])
        return of_appearances, of_across, of_down, None, None


def _rows(appearance: Tensor, across: Tensor) -> Tensor:
    """Computes I · A_xᵀ of one object, (C, S, S) and (w, S), as (S, C·w)."""
    C, S, _ = appearance.shape
    rows = appearance.reshape(C * S, S) @ across.T
    return rows.view(C, S, len(across)).transpose(0, 1).reshape(S, C * len(across))
