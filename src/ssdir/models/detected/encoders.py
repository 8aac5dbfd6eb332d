"""The what and depth encoders: from the pyramid's cells to the parameters of the posterior (eq. 5, 6)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple, Self

import torch
from einops import rearrange
from pydantic import Field, model_validator
from torch import Tensor, nn

from ssdir.config import Config
from ssdir.models.backbone import init_xavier
from ssdir.models.sizes import MAX_STAGES, MAX_WIDTH
from ssdir.ops.glimpses import crop_glimpses, crop_levels


class Posterior(NamedTuple):
    """Dense parameters for every cell of the pyramid; it never leaves models and losses.

    Attributes:
        what_loc: float (B, cells, D), the mean of `z_what`.
        depth_loc: float (B, cells), the mean of `z_depth`.
    """

    what_loc: Tensor
    depth_loc: Tensor


class LatentConfig(Config):
    """The posterior of what and depth.

    Attributes:
        latent_dim: size D of `z_what`.
        what_scale: standard deviation of `z_what`, a hyperparameter (eq. 5).
        depth_scale: standard deviation of `z_depth`.
    """

    latent_dim: int = Field(64, ge=1, le=MAX_WIDTH)
    what_scale: float = Field(0.1, gt=0)
    depth_scale: float = Field(0.1, gt=0)


class EncoderConfig(LatentConfig):
    """The what and depth encoders.

    Attributes:
        align: 0 for the paper's encoder (1×1, then `num_hidden` 3×3 + ReLU, then 1×1, for every cell of each
            level, one latent per cell); k for an `AlignedEncoder` on k×k samples per box (one latent per object).
        levels: which feature maps an aligned encoder samples for an object: `own`, that of the level which found
            it, or `all` of them, added; with a copy of the backbone all the copy's stages, the finest too.
        halvings: 3×3 convolutions of stride 2 in an aligned encoder; each after the first doubles the channels.
        second_look: an aligned encoder also reads what the frozen detector's refiner saw of each object, which
            knows what the detector was taught, such as classes.
        num_hidden: 3×3 convolutions of the paper's encoder.
        hidden_channels: channels after the 1×1, and of the 3×3 convolutions; but see `halvings`.
        mlp_channels: width of an aligned encoder's hidden layer.
    """

    align: int = Field(0, ge=0, le=64)
    levels: Literal["own", "all"] = "own"
    halvings: int = Field(1, ge=1, le=6)
    second_look: bool = False
    num_hidden: int = Field(3, ge=0, le=MAX_STAGES)
    hidden_channels: int = Field(128, ge=1, le=MAX_WIDTH)
    mlp_channels: int = Field(256, ge=1, le=MAX_WIDTH)

    @model_validator(mode="after")
    def _needs_boxes(self) -> Self:
        if self.levels == "all" and not self.align:
            raise ValueError("encoder.levels=all needs encoder.align: only in boxes can levels be added")
        if self.second_look and not self.align:
            raise ValueError("encoder.second_look needs encoder.align: it is a look at boxes, not at cells")
        return self


class PyramidEncoder(nn.Module):
    """The paper's what and depth encoders, over all cells of all levels.

    Args:
        channels: channels of each level.
        config: sizes.
    """

    def __init__(self, channels: Sequence[int], config: EncoderConfig) -> None:
        super().__init__()
        self.what = nn.ModuleList(_what_convolutions(c, config) for c in channels)
        self.depth = nn.ModuleList(nn.Conv2d(c, 1, 3, padding=1) for c in channels)
        self.apply(init_xavier)

    def forward(self, features: Sequence[Tensor]) -> Posterior:
        """The pyramid, each level (B, C, h, w), to the parameters of all cells."""
        what, depth = [], []
        for level, feature in enumerate(features):
            what.append(rearrange(self.what[level](feature), "b d h w -> b (h w) d"))
            depth.append(rearrange(self.depth[level](feature), "b 1 h w -> b (h w)"))
        return Posterior(torch.cat(what, dim=1), torch.cat(depth, dim=1))


def _what_convolutions(in_channels: int, config: EncoderConfig) -> nn.Sequential:
    hidden = config.hidden_channels
    convs: list[nn.Module] = [nn.Conv2d(in_channels, hidden, 1)]
    for _ in range(config.num_hidden):
        convs += [nn.Conv2d(hidden, hidden, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*convs, nn.Conv2d(hidden, config.latent_dim, 1))


class AlignedEncoder(nn.Module):
    """What and depth of given objects, read from the shared feature maps in the frame of each box.

    A departure from the paper, whose encoder reads the code off one cell, for all cells. The decoder draws in the
    box's frame, so a cell's code first has to undo where in the cell, and how large, the object is; sampling the
    features in the box's frame (RoIAlign) makes that unnecessary, and position and scale are gone from the input.
    It is still one pass over the image: no glimpse of pixels is cut out or encoded, and an object costs
    `align`² samples of the features and a small network over these.

    Args:
        channels: channels of each level of the feature maps.
        config: sizes and options.
        level_cells: cells of each level of the detector's pyramid, to tell an anchor's level.
        anchors_per_cell: A.
        num_told: size F of what the frozen detector tells of an object; 0 for nothing.
    """

    level_starts: Tensor

    def __init__(
        self,
        channels: Sequence[int],
        config: EncoderConfig,
        level_cells: Sequence[int],
        anchors_per_cell: int,
        num_told: int = 0,
    ) -> None:
        super().__init__()
        self.size, self.levels = config.align, config.levels
        width, hidden = config.hidden_channels, config.mlp_channels
        ends = torch.tensor(list(level_cells)).cumsum(0) * anchors_per_cell
        self.register_buffer("level_starts", ends[:-1], persistent=False)
        self.inputs = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        layers: list[nn.Module] = [nn.ReLU(inplace=True)]
        side, widths = self.size, [width << max(0, halving - 1) for halving in range(config.halvings + 1)]
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU(inplace=True)]
            side = (side + 1) // 2
        layers += [nn.Flatten(), nn.Linear(widths[-1] * side**2, hidden)]
        self.num_reading = len(layers)  # The layers of `net` before what is told joins.
        self.told = nn.Linear(num_told, hidden, bias=False) if num_told else None
        self.net = nn.Sequential(
            *layers,
            nn.LayerNorm(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, config.latent_dim + 1),
        )
        self.apply(init_xavier)

    def forward(
        self,
        features: Sequence[Tensor],
        image_index: Tensor,
        anchor_index: Tensor,
        boxes: Tensor,
        told: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Means of `z_what` (M, D) and `z_depth` (M,) of M objects.

        Args:
            features: feature maps, each (B, C, h, w); to read one's own, one per level of the detector's pyramid.
            image_index: int64 (M,).
            anchor_index: int64 (M,), in the order of `SSD.anchors`; decides which level is one's own.
            boxes: float (M, 4), xyxy relative to the image.
            told: float (M, F), what the frozen detector tells of each; see `EncoderConfig.second_look`.
        """
        inputs = [project(feature) for project, feature in zip(self.inputs, features, strict=True)]
        if self.levels == "all":
            return self._means(crop_levels(inputs, boxes, image_index, self.size), told)
        object_level = torch.bucketize(anchor_index, self.level_starts, right=True)
        members = [(object_level == level).nonzero()[:, 0] for level in range(len(inputs))]
        read = [
            crop_glimpses(level, boxes[member], image_index[member], self.size)
            for level, member in zip(inputs, members, strict=True)
        ]
        by_level = torch.cat(members)
        what_loc, depth_loc = self._means(torch.cat(read), None if told is None else told[by_level])
        # Codes are put in order, not what they are read from, which is far more to move.
        order = by_level.argsort()
        return what_loc[order], depth_loc[order]

    def _means(self, samples: Tensor, told: Tensor | None) -> tuple[Tensor, Tensor]:
        """Means of `z_what` and `z_depth` of what was sampled, (M, C, k, k), and told."""
        hidden: Tensor = self.net[: self.num_reading](samples)
        if self.told is not None:
            assert told is not None
            hidden = hidden + self.told(told)
        outputs: Tensor = self.net[self.num_reading :](hidden)
        return outputs[:, :-1], outputs[:, -1]
