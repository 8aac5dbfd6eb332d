"""The what decoders: they decode `z_what` to a small image of the object (paper §3.1)."""

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
    """The what decoder: a linear layer to a grid, upsampling blocks that double its side, and a layer to colours.

    Attributes:
        upsampling: `transposed`, the paper's 2×2 transposed convolutions of stride 2, which never mix neighbouring
            pixels, so that decoded images may show a grid; or `bilinear`: 3×3 convolution, then bilinear
            interpolation, which mixes neighbours and takes about the same time.
        stem: channels of the grid; the paper's are 1024.
        grid: cells along each side of the grid, each with weights of its own. The paper's is 1: then `z_what` must
            encode positions within the object for blocks that treat all positions alike, and shapes take many
            more steps to learn.
        channels: output channels of each upsampling block; six blocks lead from a grid of 1 to 64×64 pixels.
        alpha: also decode the object's opacity; without it the paper's three channels.
        norm: normalise before each block's ReLU: with `transposed` over the channels of each pixel, with
            `bilinear` over channels and pixels of each object; the paper has none.
        icnr: ICNR initialisation (Aitken et al. 2017) of `transposed`: at first, the four pixels that an
            upsampling block computes from one pixel are equal. Without it, checkerboard patterns remain after
            training on few images. `bilinear` doesn't need it.
    """

    upsampling: Literal["transposed", "bilinear"] = "transposed"
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
        if self.icnr and self.upsampling != "transposed":
            raise ValueError(
                "icnr initialises transposed convolutions only: set icnr to false, or upsampling to transposed"
            )
        return self

    @property
    def size(self) -> int:
        """Side S of a decoded object."""
        return self.grid << len(self.channels)


class WhatDecoder(nn.Module):
    """Decodes `z_what` (M, D) to appearances (M, 3, S, S) and alpha (M, 1, S, S) or None, in [0, 1].

    A 2×2 stride-2 transposed convolution never mixes neighbours: each pixel becomes four, as in a quadtree. So
    every layer is computed as one matrix product over all pixels in the order of the tree, with the parameters of
    the convolution, and pixels are sorted into raster order once, at the end.
    """

    def __init__(self, latent_dim: int, config: DecoderConfig) -> None:
        super().__init__()
        self.alpha, self.depth, self.cells = config.alpha, config.size.bit_length() - 1, config.grid**2
        self.stem = nn.Conv2d(latent_dim, config.stem * self.cells, 1)
        widths = [config.stem, *config.channels]
        self.blocks = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 2, stride=2) for before, after in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in config.channels if config.norm)
        self.head = nn.Conv2d(widths[-1], 4 if config.alpha else 3, 1)
        self.apply(init_xavier)
        if config.icnr:
            with torch.no_grad():
                for block in self.blocks:
                    assert isinstance(block, nn.ConvTranspose2d)
                    block.weight.copy_(block.weight[..., :1, :1].expand_as(block.weight).clone())

    def forward(self, z_what: Tensor) -> tuple[Tensor, Tensor | None]:
        """Appearances are premultiplied by alpha where there is one."""
        pixels = F.linear(z_what, self.stem.weight.flatten(1), self.stem.bias).relu()
        pixels = rearrange(pixels, "m (cells c) -> (m cells) c", cells=self.cells)
        for level, block in enumerate(self.blocks):
            assert isinstance(block, nn.ConvTranspose2d)
            assert block.bias is not None
            weight = rearrange(block.weight, "before after y x -> (y x after) before")
            pixels = F.linear(pixels, weight, block.bias.repeat(4))
            pixels = rearrange(pixels, "p (four after) -> (p four) after", four=4)
            pixels = (self.norms[level](pixels) if self.norms else pixels).relu()
        decoded = at_least_single(F.linear(pixels, self.head.weight.flatten(1), self.head.bias)).sigmoid()
        M = z_what.shape[0]  # `len` would make it a constant of exported graphs.
        return _colour_and_alpha(_raster(decoded, M, self.depth), self.alpha)


class BilinearDecoder(nn.Module):
    """Decodes `z_what` (M, D) to appearances (M, 3, S, S) and alpha (M, 1, S, S) or None, in [0, 1].

    A 3×3 convolution before each bilinear interpolation mixes neighbours while the map is still small, where it
    takes a quarter of the time of a convolution after it (resize-convolution, Odena et al. 2016). The two 3×3
    convolutions of the head add detail at the full size.
    """

    def __init__(self, latent_dim: int, config: DecoderConfig) -> None:
        super().__init__()
        self.alpha, self.grid = config.alpha, config.grid
        self.stem = nn.Linear(latent_dim, config.stem * config.grid**2)
        widths = [config.stem, *config.channels]
        self.blocks = nn.ModuleList(_block(before, after, config.norm) for before, after in pairwise(widths))
        last = widths[-1]
        self.head = nn.Sequential(
            nn.Conv2d(last, last, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(last, 4 if config.alpha else 3, 3, padding=1),
        )
        self.apply(init_xavier)

    def forward(self, z_what: Tensor) -> tuple[Tensor, Tensor | None]:
        """Appearances are premultiplied by alpha where there is one."""
        maps = rearrange(self.stem(z_what).relu(), "m (c y x) -> m c y x", y=self.grid, x=self.grid)
        maps = maps.contiguous(memory_format=torch.channels_last)  # Narrow convolutions take half the time so.
        for block in self.blocks:
            maps = F.interpolate(block(maps), scale_factor=2, mode="bilinear", align_corners=False)
        return _colour_and_alpha(at_least_single(self.head(maps)).sigmoid(), self.alpha)


def build_decoder(latent_dim: int, config: DecoderConfig) -> WhatDecoder | BilinearDecoder:
    """Builds the decoder with the `upsampling` of the config."""
    return (BilinearDecoder if config.upsampling == "bilinear" else WhatDecoder)(latent_dim, config)


def _block(before: int, after: int, norm: bool) -> nn.Sequential:
    """Builds a 3×3 convolution and ReLU, with normalisation between them if `norm` is set."""
    norms = [nn.GroupNorm(1, after)] if norm else []
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), *norms, nn.ReLU(inplace=True))


def _colour_and_alpha(decoded: Tensor, has_alpha: bool) -> tuple[Tensor, Tensor | None]:
    """Splits decoded images (M, 4, S, S) into premultiplied colours and alpha; 3 channels have no alpha."""
    if not has_alpha:
        return decoded, None
    colour, alpha = decoded.split([3, 1], dim=1)
    return colour * alpha, alpha


def _raster(pixels: Tensor, num_objects: int, depth: int) -> Tensor:
    """Sorts pixels (M·4^depth, C) in quadtree order into images (M, C, S, S)."""
    tree = pixels.reshape(num_objects, *[2] * (2 * depth), pixels.shape[1])
    rows, columns = range(1, 2 * depth, 2), range(2, 2 * depth + 1, 2)
    side = 1 << depth
    return tree.permute(0, 2 * depth + 1, *rows, *columns).reshape(num_objects, pixels.shape[1], side, side)
