"""The what and depth encoders, which compute the posterior's parameters from feature maps (eq. 5, 6)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal, NamedTuple

import torch
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ssdir.config import Config
from ssdir.models.backbones.base import init_xavier
from ssdir.models.sizes import MAX_STAGES, MAX_WIDTH
from ssdir.ops.glimpses import crop_glimpses, crop_levels
from ssdir.ops.precision import at_least_single

POOLED_SIDE = 3
"""Samples along each side of a box in pretrained features."""


class Posterior(NamedTuple):
    """Dense parameters for every cell of the pyramid.

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


class PyramidEncoderConfig(LatentConfig):
    """The paper's encoder: 1×1, then `num_hidden` times 3×3 and ReLU, then 1×1, for every cell of each level.

    Attributes:
        num_hidden: number of 3×3 convolutions.
        hidden_channels: channels after the first 1×1, and of the 3×3 convolutions.
    """

    kind: Literal["pyramid"] = "pyramid"
    num_hidden: int = Field(3, ge=0, le=MAX_STAGES)
    hidden_channels: int = Field(128, ge=1, le=MAX_WIDTH)


class AlignedEncoderConfig(LatentConfig):
    """An encoder of feature maps sampled inside each box (RoIAlign); one latent per object.

    Attributes:
        samples: samples along each side of a box.
        levels: the feature maps that are sampled for an object: `own`, the level that detected it, or `all`, the
            sum over all levels; with a copy of the backbone, the sum over all stages of the copy.
        num_downsamples: 3×3 convolutions of stride 2; each after the first doubles the channels.
        refiner_features: also read the hidden layer of the frozen detector's refiner, which has learned what the
            detector was supervised with, such as classes.
        features: the feature maps to sample: `pyramid`, those of the detector or of a trained copy of its
            backbone; or `pretrained`, the stages of a frozen copy with the backbone's initial weights. With
            `pretrained`, `PooledStages` computes `z_what`, and the encoder's network only `z_depth`.
        hidden_channels: channels after the 1×1 convolution; `num_downsamples` may double them.
        mlp_channels: width of the hidden layer.
    """

    kind: Literal["aligned"] = "aligned"
    samples: int = Field(8, ge=1, le=64)
    levels: Literal["own", "all"] = "own"
    num_downsamples: int = Field(1, ge=1, le=6)
    refiner_features: bool = False
    features: Literal["pyramid", "pretrained"] = "pyramid"
    hidden_channels: int = Field(128, ge=1, le=MAX_WIDTH)
    mlp_channels: int = Field(256, ge=1, le=MAX_WIDTH)


EncoderConfig = Annotated[PyramidEncoderConfig | AlignedEncoderConfig, Field(discriminator="kind")]


class PyramidEncoder(nn.Module):
    """The paper's what and depth encoders, over all cells of all levels.

    Args:
        channels: channels of each level.
        config: sizes.
    """

    def __init__(self, channels: Sequence[int], config: PyramidEncoderConfig) -> None:
        super().__init__()
        self.what = nn.ModuleList(_what_convolutions(c, config) for c in channels)
        self.depth = nn.ModuleList(nn.Conv2d(c, 1, 3, padding=1) for c in channels)
        self.apply(init_xavier)

    def forward(self, features: Sequence[Tensor]) -> Posterior:
        """Computes the parameters of all cells from the pyramid, each level (B, C, h, w)."""
        what, depth = [], []
        for level, feature in enumerate(features):
            what.append(rearrange(self.what[level](feature), "b d h w -> b (h w) d"))
            depth.append(rearrange(self.depth[level](feature), "b 1 h w -> b (h w)"))
        return Posterior(torch.cat(what, dim=1), torch.cat(depth, dim=1))


def _what_convolutions(in_channels: int, config: PyramidEncoderConfig) -> nn.Sequential:
    hidden = config.hidden_channels
    convs: list[nn.Module] = [nn.Conv2d(in_channels, hidden, 1)]
    for _ in range(config.num_hidden):
        convs += [nn.Conv2d(hidden, hidden, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*convs, nn.Conv2d(hidden, config.latent_dim, 1))


class PooledStages(nn.Module):
    """Computes `z_what` as principal components of pretrained features in each box.

    The features are RoIAlign of the two coarsest feature maps of a frozen pretrained network.
    Each map's samples are scaled to unit length. The components are fitted once and not trained, because a few
    hundred photographs don't improve the features of a pretrained network.

    Args:
        channels: channels of the two maps.
        latent_dim: size D of `z_what`.
    """

    def __init__(self, channels: Sequence[int], latent_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(sum(channels) * POOLED_SIDE**2, latent_dim).requires_grad_(False)

    def forward(self, features: Sequence[Tensor], image_index: Tensor, boxes: Tensor) -> Tensor:
        """Computes `z_what` (M, D).

        Args:
            features: feature maps, fine to coarse, each (B, C, h, w).
            image_index: int64 (M,).
            boxes: float (M, 4), xyxy relative to the image.
        """
        mapped: Tensor = self.linear(self.pool(features, image_index, boxes))
        return mapped

    def pool(self, features: Sequence[Tensor], image_index: Tensor, boxes: Tensor) -> Tensor:
        """Computes RoIAlign of both maps, each scaled to unit length: (M, F); for the arguments see `forward`."""
        pooled = [crop_glimpses(level, boxes, image_index, POOLED_SIDE).flatten(1) for level in features]
        return torch.cat([F.normalize(at_least_single(part), dim=1) for part in pooled], dim=1)

    @torch.no_grad()
    def fit(self, pooled: Tensor, seed: int) -> None:
        """Fits the principal components of features float (N, F), see `pool`; their mean square is then 1."""
        from sklearn.decomposition import PCA

        count = min(self.linear.out_features, *pooled.shape)
        components = PCA(count, random_state=seed).fit(pooled.cpu().numpy())
        weight = torch.from_numpy(components.components_).float()
        mean = torch.from_numpy(components.mean_).float()
        scale = (self.linear.out_features / max(float(components.explained_variance_.sum()), 1e-12)) ** 0.5
        self.linear.weight.zero_()
        self.linear.bias.zero_()
        self.linear.weight[:count] = scale * weight.to(self.linear.weight)
        self.linear.bias[:count] = -scale * (weight @ mean).to(self.linear.bias)


class AlignedEncoder(nn.Module):
    """An encoder that infers `z_what` and `z_depth` from feature maps sampled in each object's box (RoIAlign).

    This departs from the paper, whose encoder computes an embedding from each cell. The decoder reconstructs an
    object in the frame of its box, so a cell's embedding must also represent the object's position in the cell and
    its size; features sampled in the frame of the box contain neither. It is still one pass over the image: no
    crop of the image is encoded.

    Args:
        channels: channels of each level of the feature maps.
        config: sizes and options.
        level_cells: number of cells of each level of the detector's pyramid, from which an anchor's level follows.
        anchors_per_cell: A.
        num_refiner_features: size F of the refiner's hidden layer; 0 reads none of it.
    """

    level_starts: Tensor

    def __init__(
        self,
        channels: Sequence[int],
        config: AlignedEncoderConfig,
        level_cells: Sequence[int],
        anchors_per_cell: int,
        num_refiner_features: int = 0,
    ) -> None:
        super().__init__()
        pretrained = config.features == "pretrained"
        self.size, self.levels = config.samples, "all" if pretrained else config.levels
        width, hidden = config.hidden_channels, config.mlp_channels
        ends = torch.tensor(list(level_cells)).cumsum(0) * anchors_per_cell
        self.register_buffer("level_starts", ends[:-1], persistent=False)
        self.inputs = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        layers: list[nn.Module] = [nn.ReLU(inplace=True)]
        side, widths = self.size, [width << max(0, level - 1) for level in range(config.num_downsamples + 1)]
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU(inplace=True)]
            side = (side + 1) // 2
        layers += [nn.Flatten(), nn.Linear(widths[-1] * side**2, hidden)]
        self.num_reading = len(layers)  # The layers of `net` before the refiner's features are added.
        self.refiner_projection = (
            nn.Linear(num_refiner_features, hidden, bias=False) if num_refiner_features else None
        )
        self.net = nn.Sequential(
            *layers,
            nn.LayerNorm(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, 1 if pretrained else config.latent_dim + 1),
        )
        self.pooled = PooledStages(channels[-2:], config.latent_dim) if pretrained else None
        self.apply(init_xavier)

    def forward(
        self,
        features: Sequence[Tensor],
        image_index: Tensor,
        anchor_index: Tensor,
        boxes: Tensor,
        refiner_features: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Computes the means of `z_what` (M, D) and `z_depth` (M,) of M objects.

        Args:
            features: feature maps, each (B, C, h, w); with `levels="own"`, one per level of the detector's
                pyramid.
            image_index: int64 (M,).
            anchor_index: int64 (M,), in the order of `SSD.anchors`; it determines an object's own level.
            boxes: float (M, 4), xyxy relative to the image.
            refiner_features: float (M, F), the refiner's hidden layer for each object, if the encoder reads it.
        """
        inputs = [project(feature) for project, feature in zip(self.inputs, features, strict=True)]
        if self.levels == "all":
            what_loc, depth_loc = self._means(crop_levels(inputs, boxes, image_index, self.size), refiner_features)
            if self.pooled is not None:
                what_loc = self.pooled(features[-2:], image_index, boxes)
            return what_loc, depth_loc
        object_level = torch.bucketize(anchor_index, self.level_starts, right=True)
        members = [(object_level == level).nonzero()[:, 0] for level in range(len(inputs))]
        read = [
            crop_glimpses(level, boxes[member], image_index[member], self.size)
            for level, member in zip(inputs, members, strict=True)
        ]
        by_level = torch.cat(members)
        what_loc, depth_loc = self._means(
            torch.cat(read), None if refiner_features is None else refiner_features[by_level]
        )
        # The embeddings are sorted, not the samples that they are computed from, which are far larger.
        order = by_level.argsort()
        return what_loc[order], depth_loc[order]

    def _means(self, samples: Tensor, refiner_features: Tensor | None) -> tuple[Tensor, Tensor]:
        """Computes the means of `z_what` and `z_depth` from samples (M, C, k, k) and refiner features (M, F)."""
        hidden: Tensor = self.net[: self.num_reading](samples)
        if self.refiner_projection is not None:
            assert refiner_features is not None
            hidden = hidden + self.refiner_projection(refiner_features)
        outputs: Tensor = self.net[self.num_reading :](hidden)
        return outputs[:, :-1], outputs[:, -1]
