"""The what and depth encoders: from the pyramid's cells to the parameters of the posterior (eq. 5, 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from pydantic import Field, field_validator
from torch import Tensor, nn

from ssdir.config import Config
from ssdir.models.backbone import init_xavier


@dataclass(frozen=True)
class Posterior:
    """Dense parameters for every cell of the pyramid; it never leaves models and losses.

    Attributes:
        what_loc: float (B, cells, D), the mean of `z_what`.
        depth_loc: float (B, cells), the mean of `z_depth`.
    """

    what_loc: Tensor
    depth_loc: Tensor


class EncoderConfig(Config):
    """The what and depth encoders.

    Attributes:
        latent_dim: size D of `z_what`.
        neighbourhood: 0 for the paper's encoder (1×1, then `num_hidden` 3×3 + ReLU, then 1×1, for every cell
            of each level, one latent per cell); an odd k for a `NeighbourhoodEncoder` (one latent per object).
        num_hidden: hidden layers: 3×3 convolutions, or fully connected ones of a neighbourhood encoder.
        hidden_channels: channels after the 1×1, and of the 3×3 convolutions.
        mlp_channels: width of a neighbourhood encoder's hidden layers.
        what_scale: standard deviation of `z_what`, a hyperparameter (eq. 5).
        depth_scale: standard deviation of `z_depth`.
    """

    latent_dim: int = Field(64, ge=1)
    neighbourhood: int = Field(0, ge=0)
    num_hidden: int = Field(3, ge=0)
    hidden_channels: int = Field(128, ge=1)
    mlp_channels: int = Field(384, ge=1)
    what_scale: float = Field(0.1, gt=0)
    depth_scale: float = Field(0.1, gt=0)

    @field_validator("neighbourhood")
    @classmethod
    def _odd_or_zero(cls, value: int) -> int:
        if value and value % 2 == 0:
            raise ValueError("must be 0 or odd")
        return value


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


class NeighbourhoodEncoder(nn.Module):
    """What and depth of given objects, from the cells around each one's own: a departure from the paper.

    A k×k convolution over each level, evaluated only where there is an object, followed by a small network.
    The paper's encoder reads the code off one cell, for all cells. Here the input is what the pyramid holds of
    the whole object, and where in it the object's box is (relative to the anchor): the decoder draws in the
    box's frame, and a cell alone cannot know that frame.

    Args:
        channels: channels of each level.
        config: sizes and options.
        feature_sizes: cells along each side of each level.
        anchors_per_cell: A.
    """

    def __init__(
        self,
        channels: Sequence[int],
        config: EncoderConfig,
        feature_sizes: Sequence[int],
        anchors_per_cell: int,
    ) -> None:
        super().__init__()
        self.feature_sizes, self.anchors_per_cell = list(feature_sizes), anchors_per_cell
        self.size = config.neighbourhood
        width, hidden = config.hidden_channels, config.mlp_channels
        self.inputs = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        layers: list[nn.Module] = []
        previous = self.size**2 * width + 4 + anchors_per_cell
        for _ in range(config.num_hidden):
            layers += [nn.Linear(previous, hidden), nn.LayerNorm(hidden), nn.ReLU(inplace=True)]
            previous = hidden
        self.net = nn.Sequential(*layers, nn.Linear(previous, config.latent_dim + 1))
        self.apply(init_xavier)

    def forward(
        self, features: Sequence[Tensor], image_index: Tensor, anchor_index: Tensor, box_deltas: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Means of `z_what` (M, D) and `z_depth` (M,) of M objects.

        Args:
            features: the pyramid, each level (B, C, h, w).
            image_index: int64 (M,).
            anchor_index: int64 (M,), in the order of `SSD.anchors`.
            box_deltas: float (M, 4), each object's box relative to its anchor.
        """
        which = nn.functional.one_hot(anchor_index % self.anchors_per_cell, self.anchors_per_cell)
        around = self.gather(features, image_index, anchor_index // self.anchors_per_cell)
        inputs = torch.cat([around, box_deltas, which.to(around.dtype)], dim=1)
        outputs: Tensor = self.net(inputs)
        return outputs[:, :-1], outputs[:, -1]

    def gather(self, features: Sequence[Tensor], image_index: Tensor, cell_index: Tensor) -> Tensor:
        """The projected k×k cells around each object's cell, (M, k·k·width); zero beyond the border."""
        reach = self.size // 2
        steps = torch.arange(self.size, device=cell_index.device)
        rows, order, first = [], [], 0
        for level, cells in enumerate(self.feature_sizes):
            member = ((cell_index >= first) & (cell_index < first + cells**2)).nonzero()[:, 0]
            padded = nn.functional.pad(self.inputs[level](features[level]), (reach,) * 4)
            padded = rearrange(padded, "b c h w -> b h w c")
            cell = cell_index[member] - first
            y, x = cell // cells, cell % cells
            patch = padded[
                image_index[member, None, None],
                y[:, None, None] + steps[None, :, None],
                x[:, None, None] + steps[None, None, :],
            ]
            rows.append(rearrange(patch, "m k l c -> m (k l c)"))
            order.append(member)
            first += cells**2
        return torch.cat(rows)[torch.cat(order).argsort()]
