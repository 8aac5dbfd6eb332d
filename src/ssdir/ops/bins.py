"""RoIAlign (He et al. 2017) on CPUs: each bin of a box is a weighted sum of a few pixels.

A bin is the mean of as many bilinear samples, evenly spread, as it has pixels, rounded up. That is separable: the
weight of a pixel is the product of a weight along each axis. Of all pixels of an image a bin has few, so the bins
are the rows of a sparse matrix; its product with the pixels is torch's sum of embeddings in bags, and the gradient
is the product of the transposed matrix, computed in the same way. torchvision's backward pass takes 20 to 40 times
as long, and products of dense matrices 10 to 30 times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from scipy.sparse import csr_array  # type: ignore[import-untyped]
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class AxisBins(NamedTuple):
    """The pixels along an axis that each bin of each box is a weighted sum of.

    Attributes:
        first: int32 (M, S), the first pixel.
        length: int32 (M, S), the number of pixels, at least 1.
        weights: float (M, S, T), of the pixels from the first on; those after the last are 0.
    """

    first: Tensor
    length: Tensor
    weights: Tensor


def axis_bins(low: Tensor, high: Tensor, size: int, num_pixels: int) -> AxisBins:
    """Computes the bins along an axis of P pixels.

    Args:
        low: float (M,), start of the boxes, relative to the image.
        high: float (M,), their end, likewise.
        size: bins S of each box.
        num_pixels: P.
    """
    start, extent = low * num_pixels - 0.5, (high - low) * num_pixels / size
    num_samples = extent.ceil().clamp(min=1)
    most = max(1, int(num_samples.max())) if len(low) else 1
    bins, samples = (torch.arange(n, dtype=low.dtype, device=low.device) for n in (size, most))
    within = (samples + 0.5) / num_samples[:, None]
    position = start[:, None, None] + (bins[:, None] + within[:, None, :]) * extent[:, None, None]
    counted = (samples < num_samples[:, None])[:, None, :] & (position >= -1) & (position <= num_pixels)
    position = position.clamp(0, num_pixels - 1)
    before = position.floor()
    after, first = position - before, before[..., :1]
    share = counted / num_samples[:, None, None]
    # Samples are at most a pixel apart, so `most` of them lie between the first and `most` pixels more.
    place = (before - first).clamp(max=most - 1).long()
    weights = position.new_zeros(*position.shape[:2], most + 1)
    weights.scatter_add_(2, place, share * (1 - after)).scatter_add_(2, place + 1, share * after)
    end = before.gather(2, (num_samples.long() - 1)[:, None, None].expand(-1, size, 1))
    count = (end + 1).clamp(max=num_pixels - 1) - first + 1
    return AxisBins(first[..., 0].int(), count[..., 0].int(), weights)


def bin_weights(low: Tensor, high: Tensor, size: int, num_pixels: int) -> Tensor:
    """Computes the weight (M, S, P) of each pixel of an axis in each bin; for the arguments see `axis_bins`."""
    first, _, weights = axis_bins(low, high, size, num_pixels)
    most = weights.shape[2]
    dense = weights.new_zeros(*first.shape, num_pixels + most)
    dense.scatter_(2, first[..., None] + torch.arange(most, device=low.device), weights)
    return dense[..., :num_pixels]


class SparseBins(NamedTuple):
    """A sparse matrix (N, P) of weights, row by row: of all pixels P of a batch in each bin N of its boxes.

    Attributes:
        pixels: int32 (T,), the columns of the entries.
        weights: float (T,), the entries.
        starts: int32 (N + 1,), the first entry of each row, and T.
        num_pixels: P.
    """

    pixels: Tensor
    weights: Tensor
    starts: Tensor
    num_pixels: int

    def __matmul__(self, pixels: Tensor) -> Tensor:
        """Computes the bins float (N, C) of pixels float (P, C)."""
        weights = self.weights.to(pixels.dtype)
        sums: Tensor = F.embedding_bag(
            self.pixels, pixels, self.starts, mode="sum", per_sample_weights=weights, include_last_offset=True
        )
        return sums

    def transpose(self) -> SparseBins:
        """Computes the matrix (P, N)."""
        num_bins = len(self.starts) - 1
        entries = (self.weights.numpy(), self.pixels.numpy(), self.starts.numpy())
        by_pixel = csr_array(entries, shape=(num_bins, self.num_pixels)).tocsc()
        bins, weights, starts = map(torch.from_numpy, (by_pixel.indices, by_pixel.data, by_pixel.indptr))
        return SparseBins(bins, weights, starts, num_bins)


def sparse_bins(
    boxes: Tensor, image_index: Tensor, size: int, batch_size: int, image_size: tuple[int, int]
) -> SparseBins:
    """Builds the matrix that crops boxes to `size` × `size` bins.

    Args:
        boxes: float (M, 4), xyxy relative to the image.
        image_index: int64 (M,).
        size: bins S along each side.
        batch_size: B.
        image_size: (H, W) of the images.

    Returns:
        M·S² rows, ordered by box, row and column, and B·H·W columns, ordered by image, row and column.
    """
    H, W = image_size
    left, top, right, bottom = boxes.unbind(1)
    across, down = axis_bins(left, right, size, W), axis_bins(top, bottom, size, H)
    wide = (len(boxes), size, size)
    corners = (image_index.int()[:, None] * H + down.first)[:, :, None] * W + across.first[:, None, :]
    # Of each bin, the rows of pixels, and of each row, the pixels. Indexing by `[]` takes ten times as long.
    heights = down.length[:, :, None].expand(wide).flatten()
    bin_of_row = torch.repeat_interleave(heights)
    row = _places(heights, bin_of_row)
    widths = across.length[:, None, :].expand(wide).flatten().index_select(0, bin_of_row)
    row_of_pixel = torch.repeat_interleave(widths)
    column = _places(widths, row_of_pixel)

    first_pixels = corners.flatten().index_select(0, bin_of_row) + row * W
    pixels = first_pixels.index_select(0, row_of_pixel) + column
    vertical = _starts(down.weights)[:, :, None].expand(wide).flatten().index_select(0, bin_of_row) + row
    of_rows = down.weights.flatten().index_select(0, vertical).index_select(0, row_of_pixel)
    horizontal = _starts(across.weights)[:, None, :].expand(wide).flatten().index_select(0, bin_of_row)
    of_columns = across.weights.flatten().index_select(0, horizontal.index_select(0, row_of_pixel) + column)
    areas = (down.length[:, :, None] * across.length[:, None, :]).flatten()
    starts = F.pad(areas.cumsum(0, dtype=torch.int32), (1, 0))
    return SparseBins(pixels, of_rows * of_columns, starts, batch_size * H * W)


def _places(counts: Tensor, group: Tensor) -> Tensor:
    """Computes the position of each member within its group, from the groups' sizes and each member's group."""
    before = counts.cumsum(0, dtype=torch.int32) - counts
    return torch.arange(len(group), dtype=torch.int32) - before.index_select(0, group)


def _starts(weights: Tensor) -> Tensor:
    """Computes the index of each bin's first weight among all weights (M, S, T), flattened: int32 (M, S)."""
    M, S, T = weights.shape
    return torch.arange(0, M * S * T, T, dtype=torch.int32).view(M, S)


class _SumOfBins(torch.autograd.Function):
    """Adds the bins (N, C) of several feature maps, each (B, C, h, w)."""

    @staticmethod
    def forward(ctx: Any, matrices: Sequence[SparseBins], *levels: Tensor) -> Tensor:
        ctx.matrices, ctx.shapes = matrices, [level.shape for level in levels]
        # Detached, because torch's own backward pass takes several times as long.
        sums, *others = (
            matrix @ level.detach().permute(0, 2, 3, 1).flatten(0, 2)
            for matrix, level in zip(matrices, levels, strict=True)
        )
        for other in others:
            sums += other
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad = grad.contiguous()
        of_levels = [
            (matrix.transpose() @ grad).view(B, h, w, C).permute(0, 3, 1, 2) if needed else None
            for matrix, (B, C, h, w), needed in zip(
                ctx.matrices, ctx.shapes, ctx.needs_input_grad[1:], strict=True
            )
        ]
        return None, *of_levels


def sum_of_bins(levels: Sequence[Tensor], boxes: Tensor, image_index: Tensor, size: int) -> Tensor:
    """Computes RoIAlign of feature maps, summed over these; for the arguments see `crop_levels`.

    Returns:
        float (M, C, S, S), channels last in memory; differentiable in the maps.
    """
    boxes, C = boxes.detach(), levels[0].shape[1]
    matrices = [
        sparse_bins(boxes, image_index, size, len(level), (level.shape[-2], level.shape[-1])) for level in levels
    ]
    sums: Tensor = _SumOfBins.apply(matrices, *levels)
    return sums.view(len(boxes), size, size, C).permute(0, 3, 1, 2)
