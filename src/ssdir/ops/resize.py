"""Resizing of images of any size inside an exported graph, in the geometry of `data.images.resize`."""

from __future__ import annotations

import torch
from torch import Tensor


def resize_weights(old: int, new: int, device: torch.device | None = None) -> Tensor:
    """Computes the weight of each of `old` pixels of an axis in each of `new` ones.

    A shrinking axis is averaged over the pixels that a new one covers (OpenCV's `INTER_AREA`), a growing axis is
    interpolated linearly (`INTER_LINEAR`), and one of the same size stays exactly as it is: positions are
    integers, in units of 1 / (2 · new) of an old pixel.

    Args:
        old: pixels of the axis; may be symbolic, so that a traced graph takes any size.
        new: pixels of the resized axis.
        device: of the result.

    Returns:
        float (new, old); rows add up to 1.
    """
    pixel = torch.arange(old, device=device) * (2 * new)
    start = (torch.arange(new, device=device) * (2 * old))[:, None]
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
    down, across = resize_weights(H, size, images.device), resize_weights(W, size, images.device)
    return (down @ images @ across.T * 255).round() / 255
