"""The what and depth encoders: from the pyramid's cells to the parameters of the posterior (eq. 5, 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn

from ssdir.config import Config
from ssdir.models.backbone import init_xavier


@dataclass(frozen=True)
class Posterior:
    """Dense parameters for every cell of the pyramid; it never leaves models and losses.

    Attributes:
        what: float (B, cells, D'), the what encoder's outputs.
        depth_loc: float (B, cells), the mean of `z_depth`.
    """

    what: Tensor
    depth_loc: Tensor


class EncoderConfig(Config):
    """The what encoder: 1×1, then `num_hidden` 3×3 + ReLU, then 1×1, on each level.

    Attributes:
        latent_dim: size D of `z_what`.
        num_hidden: 3×3 convolutions.
        hidden_channels: their width.
        shared: use the same 3×3 and last convolutions on each level, after a 1×1 of its own.
        box_conditioned: one latent per object's box instead of one per cell: a small network refines the
            cell's code, given the box relative to the anchor and which of the cell's anchors it is.
        what_scale: standard deviation of `z_what`, a hyperparameter (eq. 5); null learns it per object.
        depth_scale: standard deviation of `z_depth`.
    """

    latent_dim: int = Field(64, ge=1)
    num_hidden: int = Field(3, ge=0)
    hidden_channels: int = Field(128, ge=1)
    shared: bool = False
    box_conditioned: bool = False
    what_scale: float = Field(0.1, gt=0)
    depth_scale: float = Field(0.1, gt=0)


class PyramidEncoder(nn.Module):
    """What and depth encoders over all levels.

    Args:
        channels: channels of each level.
        config: sizes and options.
        out_channels: numbers per cell of the what encoder.
    """

    def __init__(self, channels: Sequence[int], config: EncoderConfig, out_channels: int) -> None:
        super().__init__()
        hidden = config.hidden_channels
        self.inputs = nn.ModuleList(nn.Conv2d(c, hidden, 1) for c in channels)

        def trunk() -> nn.Sequential:
            convs: list[nn.Module] = []
            for _ in range(config.num_hidden):
                convs += [nn.Conv2d(hidden, hidden, 3, padding=1), nn.ReLU(inplace=True)]
            return nn.Sequential(*convs, nn.Conv2d(hidden, out_channels, 1))

        if config.shared:
            shared = trunk()
            self.trunks = nn.ModuleList([shared])
        else:
            self.trunks = nn.ModuleList(trunk() for _ in channels)
        self.depth = nn.ModuleList(nn.Conv2d(c, 1, 3, padding=1) for c in channels)
        self.apply(init_xavier)

    def forward(self, features: Sequence[Tensor]) -> Posterior:
        """The pyramid, each level (B, C, h, w), to the parameters of all cells."""
        what, depth = [], []
        for level, feature in enumerate(features):
            trunk = self.trunks[min(level, len(self.trunks) - 1)]
            what.append(rearrange(trunk(self.inputs[level](feature)), "b d h w -> b (h w) d"))
            depth.append(rearrange(self.depth[level](feature), "b 1 h w -> b (h w)"))
        return Posterior(torch.cat(what, dim=1), torch.cat(depth, dim=1))


class BoxConditioning(nn.Module):
    """Refines a cell's code for one box: what the cell saw, expressed in the frame of the box.

    The decoder draws in the box's frame, but a cell's features are in the cell's; the box (relative to its
    anchor) is what tells the two apart. A departure from the paper, whose encoder has to guess it.
    """

    def __init__(self, in_channels: int, anchors_per_cell: int, latent_dim: int) -> None:
        super().__init__()
        self.anchors_per_cell = anchors_per_cell
        hidden = 2 * in_channels
        self.net = nn.Sequential(
            nn.Linear(in_channels + 4 + anchors_per_cell, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, latent_dim),
        )
        self.net.apply(init_xavier)

    def forward(self, codes: Tensor, box_deltas: Tensor, anchor_index: Tensor) -> Tensor:
        """Codes (M, D'), deltas (M, 4) and anchor index (M,) to the means of `z_what` (M, D)."""
        which = nn.functional.one_hot(anchor_index % self.anchors_per_cell, self.anchors_per_cell)
        return torch.as_tensor(self.net(torch.cat([codes, box_deltas, which.to(codes.dtype)], dim=1)))
