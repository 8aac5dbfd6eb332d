"""SPACE's foreground: a grid of cells that each may hold an object, and its geometry (Lin et al. 2020, §2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from ssdir.models.losses import normal_kl
from ssdir.models.space.networks import conv, positive, strided

# Untrained windows jitter little: their size starts at the prior's mean, their spread at softplus(-2) = 0.13.
_INITIAL_RAW_SCALE = -2.0


@dataclass(frozen=True)
class GridPosterior:
    """Dense parameters of the latents of all cells, in raster order.

    Attributes:
        present_logits: float (B, N), log odds of presence.
        where_loc: float (B, N, 4), mean of (width, height, x, y) before squashing, see `windows_from_where`.
        where_scale: float (B, N, 4), its standard deviation.
        depth_loc: float (B, N), mean of `z_depth`.
        depth_scale: float (B, N), its standard deviation.
    """

    present_logits: Tensor
    where_loc: Tensor
    where_scale: Tensor
    depth_loc: Tensor
    depth_scale: Tensor

    @property
    def image_index(self) -> Tensor:
        """The image of each cell, int64 (B · N,)."""
        B, N = self.present_logits.shape
        return torch.arange(B, device=self.present_logits.device).repeat_interleave(N)

    def kl_where(self, size_loc: float, size_scale: float, shift_scale: float) -> Tensor:
        """Computes the KL of each cell's where latents, float (B, N), in nats.

        Args:
            size_loc: prior mean of the raw width and height.
            size_scale: its standard deviation.
            shift_scale: prior standard deviation of the raw shifts, around 0.
        """
        sizes, shifts = self.where_loc.split(2, dim=2)
        size_spread, shift_spread = self.where_scale.split(2, dim=2)
        kl = normal_kl(sizes, size_spread, size_loc, size_scale)
        return (kl + normal_kl(shifts, shift_spread, 0.0, shift_scale)).sum(dim=2)


class GridEncoder(nn.Module):
    """Infers presence, position and depth of all cells in one convolutional pass over the image.

    Args:
        channels: channels of its convolutions.
        num_downsamples: how many of them halve the size: image size / grid = 2^num_downsamples.
        feature_dim: channels of a cell's features.
        initial_size: initial mean of the raw width and height.
        logit_limit: bound of the log odds of presence (by a tanh), so that no cell stays absent for good.
    """

    def __init__(
        self,
        channels: Sequence[int],
        num_downsamples: int,
        feature_dim: int,
        initial_size: float,
        logit_limit: float,
    ) -> None:
        super().__init__()
        E = feature_dim
        self.logit_limit = logit_limit
        self.net = nn.Sequential(strided((3, *channels), num_downsamples), conv(channels[-1], E, 1))
        self.lateral = nn.Sequential(conv(E, E), conv(E, E))
        self.joined = conv(2 * E, E)
        self.head = nn.Conv2d(E, 1 + 8 + 2, 1)
        with torch.no_grad():
            assert self.head.bias is not None
            self.head.bias.zero_()
            self.head.bias[1:3] = initial_size
            self.head.bias[5:9] = _INITIAL_RAW_SCALE

    def forward(self, images: Tensor) -> GridPosterior:
        """Computes the parameters of N = grid² cells from images float (B, 3, H, W), in single precision."""
        features = self.net(images)
        features = self.joined(torch.cat([features, self.lateral(features)], dim=1))
        parameters = rearrange(self.head(features), "b d h w -> b (h w) d").float()
        presence, where_loc, where_raw, depth = parameters.split([1, 4, 4, 2], dim=2)
        return GridPosterior(
            present_logits=self.logit_limit * presence[..., 0].tanh(),
            where_loc=where_loc,
            where_scale=positive(where_raw),
            depth_loc=depth[..., 0],
            depth_scale=positive(depth[..., 1]),
        )


class SPACEGlimpseEncoder(nn.Module):
    """Encodes glimpses (M, 3, S, S) to mean and standard deviation of `z_what`, each (M, D).

    Args:
        channels: channels of its convolutions, each of which halves the size.
        size: side S of the glimpses.
        hidden_dim: width of the layer between them and the outputs.
        latent_dim: size D of `z_what`.
    """

    def __init__(self, channels: Sequence[int], size: int, hidden_dim: int, latent_dim: int) -> None:
        super().__init__()
        flat = channels[-1] * (size >> len(channels)) ** 2
        self.net = nn.Sequential(
            strided((3, *channels), len(channels)),
            nn.Flatten(),
            nn.Linear(flat, hidden_dim),
            nn.SiLU(inplace=True),
            nn.Linear(hidden_dim, 2 * latent_dim),
        )

    def forward(self, glimpses: Tensor) -> tuple[Tensor, Tensor]:
        """Returns location and scale in single precision, also under autocast."""
        loc, raw = self.net(glimpses).float().chunk(2, dim=1)
        return loc, positive(raw)


def windows_from_where(where: Tensor, grid: int, min_side: float) -> Tensor:
    """Converts SPACE's where latents to windows.

    A window's side is sigmoid(size) of the image's; its centre lies tanh(shift) cells from its cell's centre, so
    that it may reach the neighbours'. (The authors write the centre in -1 ... 1.)

    Args:
        where: float (..., N, 4), raw (width, height, x, y) of N = grid² cells, row by row.
        grid: cells along each side.
        min_side: least side of a window, relative to the image.

    Returns:
        float (..., N, 4), cxcywh relative to the image; may reach beyond it.
    """
    cells = torch.arange(grid, dtype=where.dtype, device=where.device) + 0.5
    centers = torch.cartesian_prod(cells, cells).flip(-1)
    sides = where[..., :2].sigmoid().clamp(min=min_side)
    return torch.cat([(centers + where[..., 2:].tanh()) / grid, sides], dim=-1)


def boundary_ring(size: int, share: float) -> Tensor:
    """Returns a frame of ones (1, 1, size, size), `share` of the side wide, around zeros."""
    width = max(1, round(share * size))
    ring = torch.ones(1, 1, size, size)
    ring[..., width : size - width, width : size - width] = 0
    return ring
