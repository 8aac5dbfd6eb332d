"""The what decoder: from `z_what` to a small picture of the object (paper §3.1)."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, Self

import torch
from einops import rearrange
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from ssdir.config import Config
from ssdir.models.backbones.base import init_xavier
from ssdir.models.sizes import MAX_DECODED_SIDE, MAX_WIDTH, HiddenWidths
from ssdir.ops.precision import at_least_single


class DecoderConfig(Config):
    """1×1 to `stem`, then one 2×2 stride-2 transposed convolution with ReLU per entry of `channels`, then 1×1.

    Attributes:
        stem: channels of the 1×1 start; the paper's are 1024.
        grid: cells along each side that the start makes, each with weights of its own. The paper's is 1: then
            where in the picture a pixel is must pass through the doublings, whose weights know no place, and
            shapes take many more steps to learn.
        channels: output channels of each doubling; six of them end at 64×64, from a grid of 1.
        alpha: also decode the object's opacity; without it the paper's three channels.
        norm: layer normalisation before each ReLU of the doublings; the paper has none.
        icnr: ICNR initialisation (Aitken et al. 2017): the four pixels that an upsampling block makes of one start
            equal, and differ only by what is learned. Without it, checkerboard patterns stay where images are few.
    """

    stem: int = Field(1024, ge=1, le=MAX_WIDTH)
    grid: Literal[1, 2, 4, 8] = 1
    channels: HiddenWidths = (512, 256, 128, 64, 32, 16)
    alpha: bool = False
    norm: bool = False
    icnr: bool = False

    @model_validator(mode="after")
    def _size_is_bounded(self) -> Self:
        if self.size > MAX_DECODED_SIDE:
            raise ValueError(f"objects of {self.size} pixels would be decoded, at most {MAX_DECODED_SIDE} can be")
        return self

    @property
    def size(self) -> int:
        """Side S of a decoded object."""
        return self.grid << len(self.channels)


class WhatDecoder(nn.Module):
    """`z_what` (M, D) to appearances (M, 3, S, S) and alpha (M, 1, S, S) or None, in [0, 1].

    A 2×2 stride-2 transposed convolution never mixes neighbours: each pixel becomes four, as in a quadtree. So
    every layer is one matrix product over all pixels in the order of the tree, with the parameters of the
    convolution that it is, and pixels are put in raster order once, at the end.
    """

    def __init__(self, latent_dim: int, config: DecoderConfig) -> None:
        super().__init__()
        self.alpha, self.depth, self.cells = config.alpha, config.size.bit_length() - 1, config.grid**2
        self.stem = nn.Conv2d(latent_dim, config.stem * self.cells, 1)
        widths = [config.stem, *config.channels]
        self.doublings = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 2, stride=2) for before, after in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in config.channels if config.norm)
        self.head = nn.Conv2d(widths[-1], 4 if config.alpha else 3, 1)
        self.apply(init_xavier)
        if config.icnr:
            with torch.no_grad():
                for doubling in self.doublings:
                    assert isinstance(doubling, nn.ConvTranspose2d)
                    doubling.weight.copy_(doubling.weight[..., :1, :1].expand_as(doubling.weight).clone())

    def forward(self, z_what: Tensor) -> tuple[Tensor, Tensor | None]:
        """Appearances are premultiplied by alpha where there is one."""
        pixels = F.linear(z_what, self.stem.weight.flatten(1), self.stem.bias).relu()
        pixels = rearrange(pixels, "m (cells c) -> (m cells) c", cells=self.cells)
        for level, doubling in enumerate(self.doublings):
            assert isinstance(doubling, nn.ConvTranspose2d)
            assert doubling.bias is not None
            weight = rearrange(doubling.weight, "before after y x -> (y x after) before")
            pixels = F.linear(pixels, weight, doubling.bias.repeat(4))
            pixels = rearrange(pixels, "p (four after) -> (p four) after", four=4)
            pixels = (self.norms[level](pixels) if self.norms else pixels).relu()
        decoded = at_least_single(F.linear(pixels, self.head.weight.flatten(1), self.head.bias)).sigmoid()
        M = z_what.shape[0]  # `len` would make it a constant of exported graphs.
        decoded = _raster(decoded, M, self.depth)
        if not self.alpha:
            return decoded, None
        colour, alpha = decoded.split([3, 1], dim=1)
        return colour * alpha, alpha


def _raster(pixels: Tensor, num_objects: int, depth: int) -> Tensor:
    """Pixels (M·4^depth, C) in quadtree order to pictures (M, C, S, S)."""
    tree = pixels.reshape(num_objects, *[2] * (2 * depth), pixels.shape[1])
    rows, columns = range(1, 2 * depth, 2), range(2, 2 * depth + 1, 2)
    side = 1 << depth
    return tree.permute(0, 2 * depth + 1, *rows, *columns).reshape(num_objects, pixels.shape[1], side, side)
