"""SPAIR: Spatially Invariant Attend, Infer, Repeat (Crawford & Pineau 2019), a baseline of SSDIR's paper (§4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ssdir.config import Config
from ssdir.data.letterbox import Resize
from ssdir.models.base import GenerativeModel, check_size, given_boxes
from ssdir.models.losses import bernoulli_nll, normal_kl
from ssdir.models.presence import Schedule
from ssdir.models.sizes import MAX_SIDE, check_map
from ssdir.models.spair.cells import SIZE_RANGE, Cells, SequentialCells, SPAIRCellsConfig
from ssdir.models.spair.count_prior import count_prior_kl
from ssdir.models.spair.parts import (
    GridBackbone,
    SPAIRDecoder,
    SPAIRDecoderConfig,
    SPAIRGlimpseConfig,
    SPAIRGridConfig,
    squash,
)
from ssdir.objects import Objects, Scene
from ssdir.ops.boxes import around_parts, inside_windows, tight_boxes, to_cxcywh, to_xyxy, with_area
from ssdir.ops.distributed import image_mean, normalizer
from ssdir.ops.glimpses import sample_glimpses
from ssdir.ops.pasting import paste_sum

# A pixel where objects weigh less than this together fades to black: there is no mean of what isn't there.
IMPORTANCE_FLOOR = 0.01
# Cells with less presence than this are not decoded in training: they are invisible, and most cells are like that.
DRAWN_FROM = 0.01

# The authors' values, see `paper-spair`.
OFFSET_PRIOR = (0.0, 1.0)
"""Prior mean and standard deviation of the logits of a centre's offset in its cell [yx_prior_mean, _std]."""
DEPTH_PRIOR = (0.0, 1.0)
"""Prior mean and standard deviation of depth's logit [z_prior_mean, z_prior_std]."""
DEPTH_RANGE = 4.0
"""Depths lie in 0 ... this; an object's weight in the picture is proportional to it."""
TEMPERATURE = 1.0
"""Temperature of the relaxed presence [obj_concrete_temp]."""
BRIGHT_FROM = 0.3
"""Least brightness that counts as the object where `z_where` is its content."""
WINDOW_MARGIN = 0.15
"""Share of a window's side that lies around an object, to choose the window for a given box."""

MAX_GRID = 64
"""Most cells along each side."""


class SPAIRPriorConfig(Config):
    """Priors of the latents.

    Attributes:
        size_loc: mean of the logits of width and height over the anchor's.
        size_scale: standard deviation of these logits.
        count_log_odds: log odds of one more object, annealed from "any number" to "few": the truncated geometric
            prior of the number of objects (see `count_prior`). SPAIR's odds decay from 10⁶ to 0.0125 by a factor
            of ten in 1000 steps, so their logarithm falls in a line.
    """

    size_loc: float = -2.2
    size_scale: float = Field(0.5, gt=0)
    count_log_odds: Schedule = Schedule(start=13.8, end=-4.4, to_step=7900)


class SPAIRConfig(Config):
    """A SPAIR model. `grid` and `cells` default to sizes for CPUs, most other values to the authors'.

    All of theirs, and their names, are in the preset `paper-spair`.

    Attributes:
        kind: the model's class, which distinguishes models in recipes.
        image_size: side of the square images, in pixels.
        grid: convolutions over the image.
        cells: nets that infer the latents of each cell.
        glimpses: glimpses of objects, and their encoder.
        decoder: decoder of objects.
        prior: priors of the latents.
        wheels_steps: number of first steps that train only the appearance, not boxes and presence.
        score_threshold: least probability of presence of an object.
        output_boxes: what `z_where` is: the `window` around an object's glimpse, as the authors have it, or the
            `tight` box around what is bright in it. Nothing but the size prior pulls windows to objects, which
            still need some room, and true boxes are tight: so that is the default.
    """

    kind: Literal["SPAIR"] = "SPAIR"
    resize: ClassVar[Resize] = "stretch"
    image_size: int = Field(64, ge=8, le=MAX_SIDE)
    grid: SPAIRGridConfig = SPAIRGridConfig()
    cells: SPAIRCellsConfig = SPAIRCellsConfig()
    glimpses: SPAIRGlimpseConfig = SPAIRGlimpseConfig()
    decoder: SPAIRDecoderConfig = SPAIRDecoderConfig()
    prior: SPAIRPriorConfig = SPAIRPriorConfig()
    wheels_steps: int = Field(1000, ge=0)
    score_threshold: float = Field(0.5, gt=0, lt=1)
    output_boxes: Literal["window", "tight"] = "tight"

    @model_validator(mode="after")
    def _grid_is_bounded(self) -> Self:
        cells = -(-self.image_size // self.grid.pixels_per_cell)
        if cells > MAX_GRID:
            raise ValueError(
                f"images of {self.image_size} pixels would have {cells} cells along each side, at most {MAX_GRID} "
                "can be read one after another: raise grid.strides"
            )
        pixels = 1
        for channels, stride in zip(self.grid.channels, self.grid.strides, strict=True):
            pixels *= stride
            check_map(channels, self.image_size / pixels, self.image_size)
        return self

    @property
    def latent_dim(self) -> int:
        """Size D of `z_what`."""
        return self.glimpses.latent_dim


class SPAIR(GenerativeModel):
    """A model that detects, embeds and decodes objects, and learns to without boxes.

    Args:
        config: the model's config.
        class_names: one name for all objects: the model is class-agnostic.
    """

    config: SPAIRConfig
    step: Tensor

    def __init__(self, config: SPAIRConfig, class_names: Sequence[str] = ("object",)) -> None:
        super().__init__(config, list(class_names))
        self.backbone = GridBackbone(config.grid, config.image_size)
        self.cells = SequentialCells(
            config.cells,
            config.glimpses,
            config.grid.channels[-1],
            self.backbone.cells,
            config.grid.pixels_per_cell,
            config.image_size,
        )
        self.decoder = SPAIRDecoder(config.glimpses.latent_dim, config.glimpses.size, config.decoder)
        # The step of annealing is part of the state, so that a resumed training continues from it.
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def encode(self, images: Tensor, score_threshold: float | None = None) -> Objects:
        """Detects and embeds objects by the posterior's means, without sampling.

        Args:
            images: float (B, 3, H, W) in [0, 1], of the model's image size.
            score_threshold: least probability of presence; None takes the config's.

        Returns:
            Objects with scores (probability of presence), labels (0), z_what, z_what_scale, z_depth (a logit) and
            anchor_index (the cell).
        """
        cells = self._read(images)
        scores = cells.present_logits.sigmoid()
        threshold = self.config.score_threshold if score_threshold is None else score_threshold
        image_index, cell = (scores >= threshold).nonzero(as_tuple=True)
        chosen = (image_index, cell)
        objects = Objects(
            image_index=image_index,
            batch_size=len(images),
            z_where=cells.boxes_cxcywh[chosen],
            scores=scores[chosen],
            labels=torch.zeros_like(image_index),
            z_what=cells.what_loc[chosen],
            z_what_scale=cells.what_scale[chosen],
            z_depth=cells.depth_loc[chosen],
            anchor_index=cell,
        )
        if self.config.output_boxes == "window" or not len(objects):
            return objects
        parts = self._tight_parts(self.decoder(cells.what_loc[chosen])[0])
        tight = inside_windows(to_xyxy(objects.z_where), parts)
        return objects.replace(z_where=to_cxcywh(tight).clamp(0, 1))

    def _tight_parts(self, appearances: Tensor) -> Tensor:
        """Computes boxes (M, 4), xyxy relative to windows, of the bright parts of appearances (M, 3, S, S)."""
        return tight_boxes(appearances.amax(dim=1, keepdim=True), BRIGHT_FROM)

    def _read(self, images: Tensor) -> Cells:
        check_size(images, self.image_size)
        cells: Cells = self.cells(images, self.backbone(images), temperature=None)
        return cells

    @torch.no_grad()
    def embed(self, images: Tensor, boxes: Objects) -> Objects:
        """Encodes the glimpses of given boxes; depth is inferred by the cell that holds each box's centre."""
        given, cells = given_boxes(images, boxes), self._read(images)
        cell = self.cells.cell_of(given.z_where)
        windows = self._windows_around(given.z_where)
        corners = with_area(to_xyxy(windows), self.image_size)
        what_loc, what_scale = self.cells.encode_packed(images, corners, given.image_index)
        where = self.cells.to_logits(windows, self.cells.corners[cell])
        depth_loc, _, _ = self.cells.depth_of(cells.seen[given.image_index, cell], where, what_loc)
        return given.replace(z_what=what_loc, z_what_scale=what_scale, z_depth=depth_loc, anchor_index=cell)

    def _windows_around(self, boxes_cxcywh: Tensor) -> Tensor:
        """The windows (M, 4), cxcywh, through which to look at given boxes.

        Where boxes are tight: what the size prior pulls windows to, and larger for larger boxes.
        """
        if self.config.output_boxes == "window":
            return boxes_cxcywh
        low, high = SIZE_RANGE
        size_prior = torch.tensor(self.config.prior.size_loc).sigmoid().item()
        usual = (low + (high - low) * size_prior) * self.config.cells.anchor / self.image_size
        size = (boxes_cxcywh[:, 2:] / (1 - WINDOW_MARGIN)).clamp(min=usual)
        return torch.cat([boxes_cxcywh[:, :2], size], dim=1)

    def decode(self, objects: Objects) -> Scene:
        """Decodes objects that have z_what and z_depth, and composites them into scenes."""
        if objects.z_what is None or objects.z_depth is None:
            raise ValueError("objects need z_what and z_depth to be decoded")
        appearances, alpha = self.decoder(objects.z_what)
        present, windows = torch.ones_like(objects.z_depth), with_area(to_xyxy(objects.z_where), self.image_size)
        pictures = torch.cat([appearances, alpha], dim=1)
        if self.config.output_boxes == "tight" and len(objects):
            # The whole window is composited; the object's appearance is the part of it inside the box.
            parts, own = self._tight_parts(appearances), torch.arange(len(objects), device=alpha.device)
            windows = around_parts(windows, parts)
            pictures = sample_glimpses(pictures, parts, own, self.config.glimpses.size)
        reconstructions = self._render(appearances, alpha, present, objects.z_depth, windows, objects.per_image)
        return Scene(reconstructions, pictures[:, :3], pictures[:, 3:])

    def _render(
        self, appearances: Tensor, alpha: Tensor, present: Tensor, depth: Tensor, boxes: Tensor, counts: list[int]
    ) -> Tensor:
        """Composites objects over black: each pixel is their mean, weighted by presence, opacity and depth.

        Args:
            appearances: float (M, 3, S, S), premultiplied by alpha.
            alpha: float (M, 1, S, S).
            present: float (M,) in [0, 1].
            depth: float (M,), logits.
            boxes: float (M, 4), xyxy with positive area.
            counts: objects of each image.
        """
        nearness = DEPTH_RANGE * squash(depth)
        present, nearness = present[:, None, None, None], nearness[:, None, None, None]
        importance = alpha * present * nearness
        layers = torch.cat([importance * present * appearances, importance], dim=1)
        size = (self.image_size, self.image_size)
        weighted, total = paste_sum(layers, boxes, counts, size).split([3, 1], dim=1)
        mean: Tensor = weighted / total.clamp(min=IMPORTANCE_FLOOR)
        return mean.clamp(0, 1)

    def loss(self, images: Tensor, targets: Objects | None = None) -> dict[str, Tensor]:
        """Computes the negative evidence lower bound of a sample, in nats per image, averaged over the batch.

        In training mode, each call is a step of the schedules.

        Args:
            images: float (B, 3, H, W) in [0, 1].
            targets: not used; part of the interface of `GenerativeModel`.

        Returns:
            `nll_image`, `kl_where`, `kl_what`, `kl_depth` (these three count where an object is present),
            `kl_present`, `total`, their weighted sum, and `mse`.
        """
        check_size(images, self.image_size)
        step = int(self.step)
        if self.training:
            self.step += 1
        with torch.autocast(images.device.type, enabled=False):  # Boxes need single precision.
            cells: Cells = self.cells(
                images,
                self.backbone(images),
                temperature=TEMPERATURE,
                wheels=self.training and step < self.config.wheels_steps,
            )
            reconstructions = self._decode_cells(cells)
            nll = bernoulli_nll(reconstructions, images).sum() / normalizer(len(images), images.device)
            divergences = self._kl(cells, step)
        total = nll + torch.stack(list(divergences.values())).sum()
        mse = image_mean((reconstructions.detach() - images).square())
        return {"nll_image": nll, **divergences, "total": total, "mse": mse}

    def _decode_cells(self, cells: Cells) -> Tensor:
        """Decodes the cells that are present, weighted by their presence, and composites them."""
        decoded = cells.present >= DRAWN_FROM
        appearances, alpha = self.decoder(cells.what[decoded])
        boxes = with_area(to_xyxy(cells.boxes_cxcywh[decoded]), self.image_size)
        counts = decoded.sum(dim=1).tolist()
        return self._render(appearances, alpha, cells.present[decoded], cells.depth[decoded], boxes, counts)

    def _kl(self, cells: Cells, step: int) -> dict[str, Tensor]:
        prior, B = self.config.prior, normalizer(len(cells.present), cells.present.device)
        loc = cells.where_loc.new_tensor([OFFSET_PRIOR[0]] * 2 + [prior.size_loc] * 2)
        scale = cells.where_loc.new_tensor([OFFSET_PRIOR[1]] * 2 + [prior.size_scale] * 2)
        where = normal_kl(cells.where_loc, cells.where_scale, loc, scale).sum(dim=2)
        what = normal_kl(cells.what_loc, cells.what_scale, 0.0, 1.0).sum(dim=2)
        depth = normal_kl(cells.depth_loc, cells.depth_scale, *DEPTH_PRIOR)
        present = count_prior_kl(cells.present_logits, cells.present, prior.count_log_odds.value(step))
        return {
            "kl_where": (cells.present * where).sum() / B,
            "kl_what": (cells.present * what).sum() / B,
            "kl_depth": (cells.present * depth).sum() / B,
            "kl_present": present.sum() / B,
        }
