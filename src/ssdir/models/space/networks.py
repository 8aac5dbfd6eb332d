"""The networks of SPACE (Lin et al. 2020, appendix): convolutions with group norm, and subpixel decoders.

SiLU replaces the authors' CELU, which takes 9 times as long on CPUs, because torch does not vectorise it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import gcd

from torch import Tensor, nn
from torch.nn import functional as F

# Keeps standard deviations away from zero.
MIN_SCALE = 1e-4


def positive(raw: Tensor) -> Tensor:
    """Maps raw outputs to positive standard deviations."""
    return F.softplus(raw) + MIN_SCALE


def conv(before: int, after: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Builds a convolution that keeps the size, or halves it (4×4, stride 2), with SiLU and group norm."""
    layer = nn.Conv2d(before, after, kernel, stride, padding=(kernel - 1) // 2)
    return nn.Sequential(layer, nn.SiLU(inplace=True), nn.GroupNorm(gcd(after, 8), after))


def strided(channels: Sequence[int], num_downsamples: int) -> nn.Sequential:
    """Builds convolutions of these channels, of which the first `num_downsamples` halve the size."""
    return nn.Sequential(
        *(
            conv(before, after, 4, stride=2) if index < num_downsamples else conv(before, after)
            for index, (before, after) in enumerate(pairwise(channels))
        )
    )


class SubpixelDecoder(nn.Module):
    """Decodes latents (M, D) to images (M, out, S, S): a 1×1 start, then blocks of a pixel shuffle and a 3×3.

    Args:
        latent_dim: size D of the latents.
        channels: width of the 1×1 start, then of each upsampling block; S = 2^(entries - 1).
        out_channels: channels of the last 3×3 convolution, which has no activation.
    """

    def __init__(self, latent_dim: int, channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv(latent_dim, channels[0], 1)]
        for before, after in pairwise(channels):
            layers += [nn.Conv2d(before, 4 * after, 1), nn.SiLU(inplace=True), nn.PixelShuffle(2)]
            layers += [nn.GroupNorm(gcd(after, 8), after), conv(after, after)]
        self.net = nn.Sequential(*layers, nn.Conv2d(channels[-1], out_channels, 3, padding=1))

    def forward(self, latents: Tensor) -> Tensor:
        """Decodes latents float (M, D) to logits float (M, out, S, S)."""
        logits: Tensor = self.net(latents[:, :, None, None])
        return logits


class SPACEDecoder(SubpixelDecoder):
    """Decodes `z_what` (M, D) to premultiplied appearances (M, 3, S, S) and alpha (M, 1, S, S), in [0, 1]."""

    def __init__(self, latent_dim: int, channels: Sequence[int]) -> None:
        super().__init__(latent_dim, channels, out_channels=4)

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Decodes embeddings as `WhatDecoder` does."""
        colour, alpha = super().forward(latents).sigmoid().split([3, 1], dim=1)
        return colour * alpha, alpha
