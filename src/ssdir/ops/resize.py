"""Resizing of images of any size inside an exported graph, with the same result as `data.images.resize`."""

from __future__ import annotations

import torch
from torch import Tensor


def resize_weights(
    old: int, new: int | Tensor, device: torch.device | None = None, rows: int | None = None
) -> Tensor:
    """Computes the weight of each of `old` pixels of an axis in each of `new` ones.

    A shrinking axis is averaged over the pixels that a new one covers (OpenCV's `INTER_AREA`), a growing axis is
    interpolated linearly (`INTER_LINEAR`), and one of the same size stays exactly as it is: positions are
    integers, in units of 1 / (2 · new) of an old pixel.

    Args:
        old: pixels of the axis; may be symbolic, so that a traced graph takes any size.
        new: pixels of the resized axis; an int64 tensor (1,) where they depend on a symbolic size.
        device: device of the result.
        rows: rows of the result, at least `new`, which is the default; rows beyond `new` are undefined.

    Returns:
        float (rows, old); the first `new` rows add up to 1.
    """
    pixel = torch.arange(old, device=device) * (2 * new)
    count = int(new) if rows is None else rows
    start = (torch.arange(count, device=device) * (2 * old))[:, None]
    covered = (torch.minimum(pixel + 2 * new, start + 2 * old) - torch.maximum(pixel, start)).clamp(min=0)
    last = pixel[-1:]
    nearest = (start + old - new).clamp(min=0).minimum(last)
    tent = (2 * new - (nearest - pixel).abs()).clamp(min=0)
    # Both are computed: while a graph is traced, which of the sizes is larger isn't known yet.
    return torch.where(last >= 2 * new * (new - 1), covered / (2.0 * old), tent / (2.0 * new))


def resize_area(images: Tensor, size: int) -> Tensor:
    """Resizes images float (B, C, H, W) in [0, 1] to a square, (B, C, size, size), as the image reader does.

    It takes two matrix products, in which H and W may be symbolic. Values are rounded to multiples of 1/255: the
    model was trained on 8-bit pixels.
    """
    H, W = images.shape[-2:]
    down, across = (resize_weights(length, size, images.device) for length in (H, W))
    return (down @ images @ across.T * 255).round() / 255


def letterbox_area(images: Tensor, size: int, padding: float) -> tuple[Tensor, Tensor]:
    """Resizes images as `resize_area`, but keeps their proportions, at the top left of a padded square.

    Args:
        images: float (B, C, H, W) in [0, 1]; H and W may be symbolic.
        size: side of the square, in pixels.
        padding: intensity of the padding, in [0, 1].

    Returns:
        The squares (B, C, size, size), and the shares of their width and height that images cover, float (2,).
    """
    H, W = images.shape[-2:]
    # As tensors: while a graph is traced, which side is longer isn't known yet.
    height, width = (torch.arange(length, device=images.device)[-1:] + 1 for length in (H, W))
    longer = torch.maximum(height, width)
    rows, columns = (((2 * side * size + longer) // (2 * longer)).clamp(min=1) for side in (height, width))
    down = resize_weights(H, rows, images.device, size)
    across = resize_weights(W, columns, images.device, size)
    resized = (down @ images @ across.T * 255).round() / 255
    pixel = torch.arange(size, device=images.device)
    covered = (pixel[:, None] < rows) & (pixel < columns)
    return torch.where(covered, resized, padding), torch.cat([columns, rows]) / size
