"""The grid of SPAIR, which infers the latents of every cell, each conditioned on earlier cells."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import torch
from einops import rearrange, repeat
from pydantic import Field, model_validator
from torch import Tensor, nn

from ssdir.config import Config
from ssdir.models.presence import sample_relaxed_bernoulli
from ssdir.models.sizes import MAX_WIDTH, HiddenWidths
from ssdir.models.spair.parts import LOGIT_LIMIT, SPAIRGlimpseConfig, SPAIRGlimpseEncoder, mlp, squash
from ssdir.ops.boxes import to_xyxy
from ssdir.ops.distributed import image_rows
from ssdir.ops.glimpses import sample_glimpses

OFFSET_RANGE = (-0.5, 1.5)
"""Range of an object's centre, in cells from the cell's upper left corner [min_yx, max_yx]."""
SIZE_RANGE = (0.0, 1.0)
"""Least and largest side of an object, in anchors [min_hw, max_hw]."""


class SPAIRCellsConfig(Config):
    """Options of the cells.

    Attributes:
        lookback: distance, in rows and columns, of the earlier cells whose samples a cell reads; 0 for none.
        lateral: widths of the hidden layers of each of the three lateral nets (where, depth, present).
        passed: number of features that each lateral net passes to the next.
        anchor: side of the square that sizes are relative to, in pixels.
        size_init: side of every object before training, in anchors.
        where_scale_init: standard deviation of box logits before training.
    """

    lookback: int = Field(1, ge=0, le=8)
    lateral: HiddenWidths = (100, 100)
    passed: int = Field(100, ge=0, le=MAX_WIDTH)
    anchor: float = Field(24.0, gt=0)
    size_init: float = Field(0.5, gt=0, lt=1)
    where_scale_init: float = Field(0.1, gt=0, lt=2)

    @model_validator(mode="after")
    def _ranges_rise(self) -> Self:
        if not SIZE_RANGE[0] < self.size_init < SIZE_RANGE[1]:
            raise ValueError(f"size_init must be within {SIZE_RANGE}, got {self.size_init}")
        return self


@dataclass(frozen=True)
class Cells:
    """The latents of all cells of a batch, in raster order.

    Attributes:
        where_loc: float (B, N, 4), mean of the logits of (x, y, width, height).
        where_scale: float (B, N, 4), their standard deviation.
        where: float (B, N, 4), sampled logits.
        boxes_cxcywh: float (B, N, 4), the sampled boxes, relative to the image.
        what_loc: float (B, N, D).
        what_scale: float (B, N, D).
        what: float (B, N, D), sampled.
        depth_loc: float (B, N), mean of the depth's logit.
        depth_scale: float (B, N).
        depth: float (B, N), sampled logit.
        present_logits: float (B, N), log odds of presence.
        present: float (B, N), sampled, in [0, 1].
        seen: float (B, N, ·), the inputs of each cell's depth net except its own box and `z_what`; of width 0
            where latents were sampled, since only `embed` needs them.
    """

    where_loc: Tensor
    where_scale: Tensor
    where: Tensor
    boxes_cxcywh: Tensor
    what_loc: Tensor
    what_scale: Tensor
    what: Tensor
    depth_loc: Tensor
    depth_scale: Tensor
    depth: Tensor
    present_logits: Tensor
    present: Tensor
    seen: Tensor


class SequentialCells(nn.Module):
    """Infers cells in raster order, each conditioned on the samples of its earlier neighbours.

    Cells that do not depend on each other are computed together: the result is the same as one by one, in fewer
    steps (16 instead of 36 for 6 × 6 cells).

    Args:
        config: sizes and options.
        glimpses: size of the glimpses, and their encoder.
        features: size F of a cell's features.
        side: cells along each side of the grid.
        pixels_per_cell: side of a cell.
        image_size: side of the images.
    """

    corners: Tensor

    def __init__(
        self,
        config: SPAIRCellsConfig,
        glimpses: SPAIRGlimpseConfig,
        features: int,
        side: int,
        pixels_per_cell: int,
        image_size: int,
    ) -> None:
        super().__init__()
        self.config, self.side = config, side
        self.cell, self.anchor = pixels_per_cell / image_size, config.anchor / image_size
        self.glimpse_size = glimpses.size
        D, passed = glimpses.latent_dim, config.passed
        self.neighbours = earlier_neighbours(side, config.lookback)
        self.waves = wavefront(side, config.lookback)
        sample = 4 + D + 2
        seen = features + len(self.neighbours[0]) * sample
        self.where_net = mlp(seen, config.lateral, 8 + passed)
        self.encoder = SPAIRGlimpseEncoder(glimpses)
        self.depth_net = mlp(seen + passed + 4 + D, config.lateral, 2 + passed)
        self.present_net = mlp(seen + passed + 4 + D + 1, config.lateral, 1)
        # Cells at the border see this learned sample beyond it, as in SPAIR.
        self.edge = nn.Parameter(torch.zeros(sample))
        corners = torch.cartesian_prod(torch.arange(side), torch.arange(side)).flip(1) * self.cell
        self.register_buffer("corners", corners, persistent=False)
        self._init_where()

    @torch.no_grad()
    def _init_where(self) -> None:
        """Boxes start at the middle of their cells, all of one size, with little noise."""
        head = self.where_net[-1]
        assert isinstance(head, nn.Linear)
        low, high = SIZE_RANGE
        size = (self.config.size_init - low) / (high - low)
        start = torch.tensor([0.5, 0.5, size, size])
        head.weight[:8] *= 0.1
        head.bias[:4] = torch.logit(start)
        head.bias[4:8] = torch.logit(torch.tensor(self.config.where_scale_init / 2))

    def forward(self, images: Tensor, features: Tensor, temperature: float | None, wheels: bool = False) -> Cells:
        """Infers the latents of all cells.

        Args:
            images: float (B, 3, H, W) in [0, 1].
            features: float (B, N, F).
            temperature: temperature of the relaxed presence; None takes means and decisions instead of samples.
            wheels: give no gradient to the nets that predict boxes, depths and presence.

        Returns:
            Every cell's latents.
        """
        edge = repeat(self.edge, "p -> b p", b=len(images))
        samples = {-1: torch.cat([edge[:, :4].sigmoid(), edge[:, 4:-2], edge[:, -2:].sigmoid()], dim=1)}
        waves: list[Cells] = []
        for wave in self.waves:
            inputs = features[:, wave]
            if self.config.lookback:
                context = torch.stack([samples[k] for cell in wave for k in self.neighbours[cell]], dim=1)
                context = rearrange(context, "b (n k) p -> b n (k p)", n=len(wave))
                inputs = torch.cat([inputs, context], dim=2)
            cells = self._read(images, inputs, wave, temperature, wheels)
            shown = self._shown(cells)
            samples |= {cell: shown[:, n] for n, cell in enumerate(wave)}
            waves.append(cells)
        order = torch.tensor([cell for wave in self.waves for cell in wave], device=images.device).argsort()
        return Cells(
            **{f.name: torch.cat([getattr(w, f.name) for w in waves], dim=1)[:, order] for f in fields(Cells)}
        )

    def _read(
        self, images: Tensor, inputs: Tensor, wave: list[int], temperature: float | None, wheels: bool
    ) -> Cells:
        """Computes the latents of the n cells of a wave from their inputs (B, n, ·)."""
        sample = temperature is not None
        where_loc, where_raw, passed = self.where_net(inputs).split([4, 4, self.config.passed], dim=2)
        where_loc, where_scale = _held(where_loc, wheels), _scale(_held(where_raw, wheels))
        where = _sample(where_loc, where_scale, sample)
        boxes = self.to_boxes(where, self.corners[wave])
        what_loc, what_scale = self.encode_glimpses(images, boxes)
        what = _sample(what_loc, what_scale, sample)
        seen = torch.cat([inputs, passed], dim=2)
        depth_loc, depth_scale, passed = self.depth_of(seen, where, what)
        depth_loc, depth_scale = _held(depth_loc, wheels), _held(depth_scale, wheels)
        depth = _sample(depth_loc, depth_scale, sample)
        inputs = torch.cat([inputs, passed, squash(where), what, squash(depth)[..., None]], dim=2)
        logits = _held(self.present_net(inputs)[..., 0], wheels).clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
        present = (logits > 0).to(logits) if temperature is None else sample_relaxed_bernoulli(logits, temperature)
        return Cells(
            where_loc=where_loc,
            where_scale=where_scale,
            where=where,
            boxes_cxcywh=boxes,
            what_loc=what_loc,
            what_scale=what_scale,
            what=what,
            depth_loc=depth_loc,
            depth_scale=depth_scale,
            depth=depth,
            present_logits=logits,
            present=present,
            seen=seen[..., :0] if sample else seen,
        )

    def encode_glimpses(self, images: Tensor, boxes_cxcywh: Tensor) -> tuple[Tensor, Tensor]:
        """Computes mean and standard deviation of `z_what`, (B, n, D) each, of n boxes per image (B, n, 4)."""
        B, n, _ = boxes_cxcywh.shape
        image_index = torch.arange(B, device=images.device).repeat_interleave(n)
        boxes = rearrange(to_xyxy(boxes_cxcywh), "b n c -> (b n) c")
        loc, scale = self.encode_packed(images, boxes, image_index)
        # einops can't infer n where B is 0.
        return loc.view(B, n, loc.shape[1]), scale.view(B, n, scale.shape[1])

    def encode_packed(self, images: Tensor, boxes: Tensor, image_index: Tensor) -> tuple[Tensor, Tensor]:
        """Computes mean and standard deviation of `z_what`, (M, D) each, of packed boxes (M, 4), xyxy."""
        glimpses = sample_glimpses(images, boxes, image_index, self.glimpse_size)
        loc, raw = self.encoder(glimpses).chunk(2, dim=1)
        return loc, _scale(raw)

    def depth_of(self, seen: Tensor, where: Tensor, what: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Computes mean and standard deviation (...) of depth's logit, and features (..., passed) for presence."""
        outputs = self.depth_net(torch.cat([seen, squash(where), what], dim=-1))
        return outputs[..., 0], _scale(outputs[..., 1]), outputs[..., 2:]

    @staticmethod
    def _shown(cells: Cells) -> Tensor:
        """Returns the inputs that later cells read of these cells: float (B, n, 4 + D + 2)."""
        scalars = torch.stack([squash(cells.depth), cells.present], dim=2)
        return torch.cat([squash(cells.where), cells.what, scalars], dim=2)

    def to_boxes(self, where: Tensor, corners: Tensor) -> Tensor:
        """Converts logits (..., 4) to boxes (..., 4), cxcywh relative to the image.

        A centre lies in its cell or up to `offset_range` beyond; a size is relative to the anchor. So the logits
        do not depend on the cell's position or the image's size.

        Args:
            where: logits of (x, y, width, height).
            corners: float (..., 2), the upper left corners (x, y) of their cells.
        """
        share = squash(where)
        offset, size = (
            _stretch(share[..., :2], OFFSET_RANGE),
            _stretch(share[..., 2:], SIZE_RANGE),
        )
        return torch.cat([(corners + self.cell * offset).clamp(0, 1), self.anchor * size], dim=-1)

    def to_logits(self, boxes_cxcywh: Tensor, corners: Tensor) -> Tensor:
        """Converts boxes to logits, the inverse of `to_boxes`; boxes out of a cell's range are clipped to it."""
        offset = (boxes_cxcywh[..., :2] - corners) / self.cell
        size = boxes_cxcywh[..., 2:] / self.anchor
        shares = [_shrink(offset, OFFSET_RANGE), _shrink(size, SIZE_RANGE)]
        return torch.logit(torch.cat(shares, dim=-1)).clamp(-LOGIT_LIMIT, LOGIT_LIMIT)

    def cell_of(self, boxes_cxcywh: Tensor) -> Tensor:
        """Returns the raster index (M,) of the cell that contains the centre of each box (M, 4)."""
        column, row = (boxes_cxcywh[:, :2] / self.cell).long().clamp(0, self.side - 1).unbind(dim=1)
        return row * self.side + column


def earlier_neighbours(side: int, lookback: int) -> list[list[int]]:
    """Lists each cell's earlier neighbours, within `lookback` rows and columns, by raster index; -1 is outside."""
    reach = range(-lookback, lookback + 1)
    offsets = [(dy, dx) for dy in reach for dx in reach if (dy, dx) < (0, 0)]
    return [
        [(y + dy) * side + x + dx if y + dy >= 0 and 0 <= x + dx < side else -1 for dy, dx in offsets]
        for y in range(side)
        for x in range(side)
    ]


def wavefront(side: int, lookback: int) -> list[list[int]]:
    """Groups cells, along slanted lines, so that no cell depends on another of its group or of a later one."""
    cells = [(y, x) for y in range(side) for x in range(side)]
    if not lookback:
        return [[y * side + x for y, x in cells]]
    waves: dict[int, list[int]] = {}
    for y, x in cells:
        waves.setdefault((lookback + 1) * y + x, []).append(y * side + x)
    return [waves[time] for time in sorted(waves)]


def _scale(raw: Tensor) -> Tensor:
    """Maps raw outputs to standard deviations in (0, 2), as in SPAIR."""
    return 2 * squash(raw)


def _held(parameters: Tensor, wheels: bool) -> Tensor:
    return parameters.detach() if wheels else parameters


def _sample(loc: Tensor, scale: Tensor, sample: bool) -> Tensor:
    return loc + scale * image_rows(len(loc), loc.device).randn_like(loc) if sample else loc


def _stretch(share: Tensor, span: tuple[float, float]) -> Tensor:
    return span[0] + (span[1] - span[0]) * share


def _shrink(value: Tensor, span: tuple[float, float]) -> Tensor:
    return ((value - span[0]) / (span[1] - span[0])).clamp(0, 1)
