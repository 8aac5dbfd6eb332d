"""Compositing of decoded objects: the paper's weighted sum, or per pixel by opacity and depth."""

from __future__ import annotations

import torch
from torch import Tensor

from ssdir.ops.bins import bin_weights
from ssdir.ops.glimpses import crop_glimpses
from ssdir.ops.pasting import paste_sum, tent_weights
from ssdir.ops.precision import in_full_precision

LEAST_DEPTH_WEIGHT = 1e-12
"""Minimum depth weight: the order of objects is kept up to a difference in depth of 27."""


def image_softmax(logits: Tensor, image_index: Tensor, batch_size: int) -> Tensor:
    """Computes the softmax of logits (M,) over the objects of each image: weights (M,)."""
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
    counts: list[int],
    size: tuple[int, int],
) -> Tensor:
    """Composites as the paper does: a sum weighted by softmaxed depth, divided by the image's maximum.

    Args:
        appearances: float (M, 3, S, S) in [0, 1].
        boxes: float (M, 4), xyxy relative to the image.
        z_depth: float (M,), larger is nearer.
        image_index: int64 (M,), never decreasing.
        counts: objects of each of the B images.
        size: (H, W).

    Returns:
        float (B, 3, H, W) in [0, 1].
    """
    weights = image_softmax(z_depth, image_index, len(counts))
    canvas = paste_sum(appearances * weights[:, None, None, None], boxes, counts, size)
    return canvas / canvas.amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6)


@in_full_precision
def composite_alpha(
    appearances: Tensor,
    alpha: Tensor,
    boxes: Tensor,
    z_depth: Tensor,
    image_index: Tensor,
    counts: list[int],
    size: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Composites per pixel: where objects overlap, the nearer opaque one is visible.

    With opacity a_m, premultiplied colour c_m and depth weight w_m pasted at a pixel, the pixel shows
    (Σ w c / Σ w a) · min(1, Σ a): a mean over the objects, weighted by nearness, over black. This departs from
    the paper, whose weights are one number per object, so that an object dims all others of its image.

    Args:
        appearances: float (M, 3, S, S) in [0, 1], premultiplied by alpha.
        alpha: float (M, 1, S, S) in [0, 1].
        boxes: float (M, 4), xyxy relative to the image.
        z_depth: float (M,), larger is nearer.
        image_index: int64 (M,), never decreasing.
        counts: objects of each of the B images.
        size: (H, W).

    Returns:
        reconstructions (B, 3, H, W) over black and coverage (B, 1, H, W), the opacity of all objects together.
    """
    weights = _depth_weights(z_depth, image_index, len(counts))[:, None, None, None]
    layers = torch.cat([appearances * weights, alpha * weights, alpha], dim=1)
    pasted = paste_sum(layers, boxes, counts, size, antialias=True)
    colour, weighted_alpha, total_alpha = pasted.split([3, 1, 1], dim=1)
    coverage = total_alpha.clamp(max=1)
    return (colour / weighted_alpha.clamp(min=1e-4 * LEAST_DEPTH_WEIGHT) * coverage).clamp(0, 1), coverage


@in_full_precision
def pixel_owners(
    alpha: Tensor,
    boxes: Tensor,
    z_depth: Tensor,
    image_index: Tensor,
    counts: list[int],
    size: tuple[int, int],
    min_coverage: float = 0.5,
) -> Tensor:
    """Segments the image by the object of the largest weight at each pixel, as in `composite_alpha`.

    The owner is the object of the largest w_m a_m, its opacity weighted by its nearness, where the coverage of all
    objects together, Σ a, is at least `min_coverage`.

    Args:
        alpha: float (M, 1, S, S) in [0, 1].
        boxes: float (M, 4), xyxy relative to the image, with positive area.
        z_depth: float (M,), larger is nearer.
        image_index: int64 (M,), never decreasing.
        counts: objects of each of the B images.
        size: (H, W).
        min_coverage: minimum coverage of a pixel that belongs to an object.

    Returns:
        int64 (B, H, W): the owner's row, 0 ... M-1, or -1. The objects of one image at a time have canvases.
    """
    H, W = size
    S = alpha.shape[-1]
    extent = boxes[:, 2:] - boxes[:, :2]
    across = tent_weights(boxes[:, 0], extent[:, 0], W, S, antialias=True).transpose(1, 2)
    down = tent_weights(boxes[:, 1], extent[:, 1], H, S, antialias=True)
    weights = _depth_weights(z_depth, image_index, len(counts))[:, None, None]
    owners = image_index.new_full((len(counts), H, W), -1)
    first = 0
    for image, n in enumerate(counts):
        if n:
            rows = slice(first, first + n)
            pasted = torch.bmm(torch.bmm(down[rows], alpha[rows, 0]), across[rows])
            shown = (pasted * weights[rows]).argmax(dim=0) + first
            owners[image] = torch.where(pasted.sum(dim=0) >= min_coverage, shown, -1)
        first += n
    return owners


LEAST_OPACITY = 0.05
"""Minimum opacity of each object in its box, so that pixels that no object covers are shared by all."""


@torch.no_grad()
@in_full_precision
def pixel_shares(
    alpha: Tensor,
    boxes: Tensor,
    z_depth: Tensor,
    image_index: Tensor,
    counts: list[int],
    size: tuple[int, int],
) -> Tensor:
    """Computes the share of an object in each pixel of its box, w a / Σ w a, in the object's frame.

    Args:
        alpha: float (M, 1, S, S) in [0, 1].
        boxes: float (M, 4), xyxy relative to the image, with positive area.
        z_depth: float (M,), larger is nearer.
        image_index: int64 (M,), never decreasing.
        counts: objects of each of the B images.
        size: (H, W).

    Returns:
        float (M, 1, S, S) in (0, 1], 1 where no other object is; without gradient.
    """
    (H, W), S = size, alpha.shape[-1]
    weights = _depth_weights(z_depth, image_index, len(counts))[:, None, None, None]
    shown = crop_glimpses(paste_sum(alpha * weights, boxes, counts, size, antialias=True), boxes, image_index, S)
    # The object alone is pasted and cropped too, since both blur.
    extent = boxes[:, 2:] - boxes[:, :2]
    across = bin_weights(boxes[:, 0], boxes[:, 2], S, W) @ tent_weights(boxes[:, 0], extent[:, 0], W, S, True)
    down = bin_weights(boxes[:, 1], boxes[:, 3], S, H) @ tent_weights(boxes[:, 1], extent[:, 1], H, S, True)
    own = (down @ alpha[:, 0] @ across.transpose(1, 2))[:, None] * weights
    others = (shown - own).clamp(min=0)
    least = LEAST_OPACITY * weights
    return (own + least) / (own + least + others)


def _depth_weights(z_depth: Tensor, image_index: Tensor, batch_size: int) -> Tensor:
    """Computes depth weights (M,); a lower bound keeps far objects visible where no other object is."""
    return image_softmax(z_depth, image_index, batch_size).clamp(min=LEAST_DEPTH_WEIGHT)
