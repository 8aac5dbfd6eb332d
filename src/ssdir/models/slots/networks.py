"""The networks around slot attention (Locatello et al. 2020, appendix): image encoder and broadcast decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn


class PositionEmbedding(nn.Module):
    """Adds a linear map of each position to a feature map: (y, x, 1 - y, 1 - x), from 0 at one edge to 1.

    Args:
        channels: channels C of the feature map.
        side: its height and width.
    """

    grid: Tensor

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        place = torch.linspace(0, 1, side)
        near = torch.stack(torch.meshgrid(place, place, indexing="ij"), dim=-1)
        self.register_buffer("grid", torch.cat([near, 1 - near], dim=-1), persistent=False)
        self.linear = nn.Linear(4, channels)

    def forward(self, features: Tensor) -> Tensor:
        """Returns features (B, C, side, side) with their positions added."""
        return features + cast(Tensor, self.linear(self.grid)).permute(2, 0, 1)


class FeatureEncoder(nn.Module):
    """Encodes images as a set of features: convolutions, positions, then an MLP at each position.

    Args:
        channels: channels of the convolutions.
        kernels: the side of each convolution's kernel.
        strides: the stride of each.
        latent_dim: size D of the features.
        side: height and width of the last feature map.
    """

    def __init__(
        self, channels: int, kernels: Sequence[int], strides: Sequence[int], latent_dim: int, side: int
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number, (kernel, stride) in enumerate(zip(kernels, strides, strict=True)):
            before = channels if number else 3
            layers += [nn.Conv2d(before, channels, kernel, stride, kernel // 2), nn.ReLU(inplace=True)]
        self.convolutions = nn.Sequential(*layers)
        self.positions = PositionEmbedding(channels, side)
        self.mlp = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, latent_dim),
            nn.ReLU(inplace=True),
            nn.Linear(latent_dim, latent_dim),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Encodes images float (B, 3, H, W) in [0, 1] as features (B, N, D), N positions."""
        features = self.positions(self.convolutions(2 * images - 1))
        encoded: Tensor = self.mlp(rearrange(features, "b c h w -> b (h w) c"))
        return encoded


class BroadcastDecoder(nn.Module):
    """Decodes each slot alone to an image and the logits of its mask (Watters et al. 2019).

    A slot is repeated at each position of a small grid, positions are added, and transposed convolutions enlarge
    the grid to the image.

    Args:
        latent_dim: size D of the slots.
        channels: channels of the layers but the last.
        start: height and width of the grid.
        kernels: the side of each layer's kernel.
        strides: the factor by which each layer enlarges.
    """

    def __init__(
        self, latent_dim: int, channels: int, start: int, kernels: Sequence[int], strides: Sequence[int]
    ) -> None:
        super().__init__()
        self.start = start
        self.positions = PositionEmbedding(latent_dim, start)
        layers: list[nn.Module] = []
        before, last = latent_dim, len(kernels) - 1
        for number, (kernel, stride) in enumerate(zip(kernels, strides, strict=True)):
            padding = (kernel - stride + 1) // 2
            rest = 2 * padding - (kernel - stride)
            after = 4 if number == last else channels
            layers += [
                nn.ConvTranspose2d(before, after, kernel, stride, padding, rest),
                nn.ReLU(inplace=True),
            ]
            before = channels
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Decodes slots (M, D) to images (M, 3, H, W), about in [0, 1], and logits of masks (M, 1, H, W)."""
        repeated = slots[:, :, None, None].expand(-1, -1, self.start, self.start)
        pictures, logits = self.layers(self.positions(repeated)).split([3, 1], dim=1)
        return (pictures + 1) / 2, logits
