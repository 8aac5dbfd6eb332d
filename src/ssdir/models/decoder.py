"""The what decoder: from `z_what` to a small picture of the object (paper §3.1)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from ssdir.config import Config
from ssdir.models.backbone import init_xavier


class DecoderConfig(Config):
    """1×1 to `stem`, then one 2×2 stride-2 transposed convolution with ReLU per entry of `channels`, then 1×1.

    Attributes:
        stem: channels of the 1×1 start; the paper's are 1024.
        channels: output channels of each doubling; six of them end at 64×64.
        alpha: also decode the object's opacity; without it the paper's three channels.
        norm: group normalisation before each ReLU of the doublings; the paper has none.
    """

    stem: int = Field(1024, ge=1)
    channels: tuple[int, ...] = (512, 256, 128, 64, 32, 16)
    alpha: bool = False
    norm: bool = False

    @property
    def size(self) -> int:
        """Side S of a decoded object."""
        return 1 << len(self.channels)


class WhatDecoder(nn.Module):
    """`z_what` (M, D) to appearances (M, 3, S, S) and alpha (M, 1, S, S) or None, in [0, 1]."""

    def __init__(self, latent_dim: int, config: DecoderConfig) -> None:
        super().__init__()
        self.alpha = config.alpha
        layers: list[nn.Module] = [nn.Conv2d(latent_dim, config.stem, 1), nn.ReLU(inplace=True)]
        previous = config.stem
        for width in config.channels:
            layers.append(nn.ConvTranspose2d(previous, width, 2, stride=2))
            if config.norm:
                layers.append(nn.GroupNorm(max(1, width // 16), width))
            layers.append(nn.ReLU(inplace=True))
            previous = width
        layers.append(nn.Conv2d(previous, 4 if config.alpha else 3, 1))
        self.net = nn.Sequential(*layers)
        self.net.apply(init_xavier)

    def forward(self, z_what: Tensor) -> tuple[Tensor, Tensor | None]:
        """Appearances are premultiplied by alpha where there is one."""
        decoded = self.net(z_what[:, :, None, None]).sigmoid()
        if not self.alpha:
            return decoded, None
        colour, alpha = decoded.split([3, 1], dim=1)
        return colour * alpha, alpha
