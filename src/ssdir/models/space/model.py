"""SPACE: Spatially Parallel Attention and Component Extraction (Lin et al. 2020), learned without boxes."""

from __future__ import annotations

from math import exp, log2
from typing import ClassVar, Literal, Self

import torch
from einops import rearrange
from pydantic import Field, model_validator
from torch import Tensor

from ssdir.config import Config
from ssdir.data.letterbox import Resize
from ssdir.models.base import GenerativeModel, check_batch, check_size, given_boxes
from ssdir.models.decoder import DecoderConfig, WhatDecoder
from ssdir.models.losses import gaussian_log_prob, mixture_log_likelihood, normal_kl
from ssdir.models.presence import Schedule, bernoulli_kl, sample_relaxed_bernoulli
from ssdir.models.scenes import composite_scene
from ssdir.models.sizes import MAX_DECODED_SIDE, MAX_SIDE, MAX_WIDTH, Widths, check_map
from ssdir.models.space.background import BackgroundDraw, SPACEBackgroundConfig, build_background
from ssdir.models.space.foreground import (
    GridEncoder,
    GridPosterior,
    SPACEGlimpseEncoder,
    boundary_ring,
    windows_from_where,
)
from ssdir.models.space.networks import SPACEDecoder
from ssdir.objects import Objects, Scene
from ssdir.ops.boxes import inside_windows, tight_boxes, to_cxcywh, to_xyxy, with_area
from ssdir.ops.compositing import composite_alpha
from ssdir.ops.distributed import image_mean, image_rows, normalizer
from ssdir.ops.glimpses import sample_glimpses
from ssdir.ops.pasting import paste_sum

# Below this opacity a pixel's foreground colour fades to black instead of being divided by next to nothing.
_MIN_COVERAGE = 1e-3

# Names of the authors' code in brackets.
FOREGROUND_SIGMA = 0.15
"""Standard deviation of pixels that show an object [fg_sigma]."""
PRESENCE_LOGIT_LIMIT = 8.8
"""Largest absolute value of the log odds of presence."""
SHIFT_PRIOR_SCALE = 1.0
"""Prior standard deviation of the raw shift within the cell, around 0."""
DEPTH_SHARPNESS = 10.0
"""Nearness is this times sigmoid(z_depth): how clearly the nearer object hides another."""
BOUNDARY_WIDTH = 6 / 32
"""Share of a window's side that its frame takes in the boundary loss."""
BOUNDARY_SIGMA = 0.7
"""Opacity on a frame adds 0.5 (opacity / this)² nats per pixel."""
FIXED_ALPHA = 0.1
"""Probability that a pixel shows the foreground, in the first `fix_alpha_steps` steps."""
OPAQUE_FROM = 0.5
"""Least opacity that counts as the object where `z_where` is its content."""


class SPACEConfig(Config):
    """A SPACE model. Names of the authors' code in brackets.

    Attributes:
        image_size: side of the square input, in pixels.
        grid: cells along each side [G]; image_size / grid is a power of two.
        encoder_channels: channels of the grid encoder's convolutions; the first ones halve the size, down to the
            grid.
        feature_dim: channels of a cell's features [img_enc_dim_fg].
        latent_dim: size D of `z_what` [z_what_dim].
        glimpse_size: side S of glimpses and decoded objects, a power of two.
        glimpse_channels: channels of the glimpse encoder's convolutions, each of which halves the size.
        glimpse_hidden: width of its layer after them.
        decoder_channels: channels of the glimpse decoder: its start at 1×1, then of each upsampling block, up to
            S.
        decoder_mixing: use 3×3 convolutions between the upsampling blocks, as the authors do; False uses
            `WhatDecoder`, which has none, at a fraction of the time.
        background_sigma: standard deviation of the background's pixels [bg_sigma]. Smaller than the foreground's,
            it leaves pixels that either could explain to the background, and opacity follows the object's shape.
        presence_prior: prior probability that a cell holds an object [z_pres_*].
        temperature: temperature of the relaxed presence [tau_*].
        size_prior: prior mean of the raw window side; sigmoid of it is relative to the image [z_scale_mean_*].
        size_prior_scale: prior standard deviation of the raw window side [z_scale_std_value].
        boundary: weight of the boundary loss, which keeps objects off their window's edge [boundary_loss,
            bl_off_step].
        fix_alpha_steps: first steps in which every pixel shows the foreground with probability `FIXED_ALPHA`, so
            that both fore- and background learn to reconstruct before either can explain all.
        background: networks of what is behind the objects.
        score_threshold: least presence probability of an object at the operating point.
        output_boxes: what `z_where` is: the `window` around an object's glimpse, as the authors evaluate, or the
            `tight` box around what is opaque in it. The size prior keeps all windows near one size, so `tight` is
            the default: the window of a 14×3 px digit is far larger than its box.
    """

    kind: Literal["SPACE"] = "SPACE"
    resize: ClassVar[Resize] = "stretch"
    image_size: int = Field(128, ge=8, le=MAX_SIDE)
    grid: int = Field(8, ge=1, le=128)
    encoder_channels: Widths = (16, 32, 64, 128, 256)
    feature_dim: int = Field(128, ge=1, le=MAX_WIDTH)
    latent_dim: int = Field(32, ge=1, le=MAX_WIDTH)
    glimpse_size: int = Field(32, ge=4, le=MAX_DECODED_SIDE)
    glimpse_channels: Widths = (16, 32, 64, 128)
    glimpse_hidden: int = Field(256, ge=1, le=MAX_WIDTH)
    decoder_channels: Widths = (256, 128, 128, 64, 32, 16)
    decoder_mixing: bool = True
    background_sigma: float = Field(0.15, gt=0)
    presence_prior: Schedule = Schedule(start=0.1, end=0.01, from_step=4000, to_step=10_000)
    temperature: Schedule = Schedule(start=2.5, end=0.5, from_step=0, to_step=20_000)
    size_prior: Schedule = Schedule(start=-1, end=-2, from_step=10_000, to_step=20_000)
    size_prior_scale: float = Field(0.1, gt=0)
    boundary: Schedule = Schedule(start=1, end=0, from_step=100_000, to_step=100_000)
    fix_alpha_steps: int = Field(0, ge=0)
    background: SPACEBackgroundConfig = SPACEBackgroundConfig()
    score_threshold: float = Field(0.5, ge=0, le=1)
    output_boxes: Literal["window", "tight"] = "tight"

    @property
    def num_downsamples(self) -> int:
        """The number of times that the grid encoder halves the image's size."""
        return round(log2(self.image_size / self.grid))

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        most = len(self.encoder_channels)
        if self.grid << self.num_downsamples != self.image_size or self.num_downsamples > most:
            raise ValueError(
                f"image_size / grid must be a power of two, at most 2^{most} (one stride of 2 "
                f"per entry of encoder_channels), got {self.image_size} / {self.grid}"
            )
        if self.glimpse_size != 1 << (len(self.decoder_channels) - 1):
            raise ValueError(
                f"decoder_channels must be a start and an upsampling block for each factor of 2 up to "
                f"glimpse_size, {self.glimpse_size}, got {len(self.decoder_channels)} entries"
            )
        if self.glimpse_size >> len(self.glimpse_channels) < 1:
            raise ValueError(
                f"glimpse_channels must halve glimpse_size, {self.glimpse_size}, to one pixel at least, got "
                f"{len(self.glimpse_channels)} entries"
            )
        for layer, channels in enumerate(self.encoder_channels, start=1):
            check_map(channels, self.image_size / 2 ** min(layer, self.num_downsamples), self.image_size)
        for layer, channels in enumerate(self.background.encoder_channels, start=1):
            check_map(
                channels * max(1, self.background.num_components), self.image_size / 2**layer, self.image_size
            )
        return self


class SPACE(GenerativeModel):
    """A model that detects, embeds and decodes objects, and learns to by reconstructing images, without boxes.

    Attributes:
        step: steps of training so far, int64 (); `loss` counts it in training mode, and everything annealed
            follows from it, so that a checkpoint resumes exactly.

    Args:
        config: the model's config.
        class_names: one name for all objects: the model is class-agnostic.
    """

    step: Tensor
    ring: Tensor

    def __init__(self, config: SPACEConfig, class_names: list[str] | None = None) -> None:
        super().__init__(config, class_names or ["object"])
        self.config: SPACEConfig = config
        self.grid_encoder = GridEncoder(
            config.encoder_channels,
            config.num_downsamples,
            config.feature_dim,
            config.size_prior.start,
            PRESENCE_LOGIT_LIMIT,
        )
        D, S = config.latent_dim, config.glimpse_size
        self.glimpse_encoder = SPACEGlimpseEncoder(config.glimpse_channels, S, config.glimpse_hidden, D)
        stem, *blocks = config.decoder_channels
        quadtree = DecoderConfig(stem=stem, channels=tuple(blocks), alpha=True, norm=True)
        self.glimpse_decoder = (
            SPACEDecoder(D, config.decoder_channels) if config.decoder_mixing else WhatDecoder(D, quadtree)
        )
        self.background = build_background(config.background, config.image_size)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        ring = boundary_ring(S, BOUNDARY_WIDTH)
        self.register_buffer("ring", ring, persistent=False)

    @torch.no_grad()
    def encode(self, images: Tensor, score_threshold: float | None = None) -> Objects:
        """Detects and embeds the objects of images in one pass.

        Args:
            images: float (B, 3, H, W) in [0, 1], of the model's image size.
            score_threshold: least presence probability; None takes the config's.

        Returns:
            Objects with scores (presence probabilities), labels (0), z_what (posterior means), z_what_scale,
            z_depth and anchor_index, the cell.
        """
        check_size(images, self.image_size)
        threshold = self.config.score_threshold if score_threshold is None else score_threshold
        objects = self._select(self.grid_encoder(images), threshold)
        windows = to_xyxy(objects.z_where)
        what_loc, what_scale = self.glimpse_encoder(self._glimpses(images, windows, objects.image_index))
        if self.config.output_boxes == "tight":
            parts = tight_boxes(self._decode_what(what_loc)[1], OPAQUE_FROM)
            objects = objects.replace(z_where=to_cxcywh(inside_windows(windows, parts)).clamp(0, 1))
        return objects.replace(z_what=what_loc, z_what_scale=what_scale)

    @torch.no_grad()
    def embed(self, images: Tensor, boxes: Objects) -> Objects:
        """Encodes the glimpses of given boxes; depth is that of the cell of each box's centre."""
        check_size(images, self.image_size)
        given = given_boxes(images, boxes)
        objects, windows = self._placed(self.grid_encoder(images), given), self._windows_around(given.z_where)
        what_loc, what_scale = self.glimpse_encoder(self._glimpses(images, windows, objects.image_index))
        return objects.replace(z_what=what_loc, z_what_scale=what_scale)

    def decode(self, objects: Objects, background: Tensor | None = None) -> Scene:
        """Decodes objects that have z_what and z_depth, and composites them into scenes.

        Args:
            objects: the objects.
            background: float (B, 3, H, W), the background of the scenes; None for black. `reconstruct` infers it.
        """
        if objects.z_what is None or objects.z_depth is None:
            raise ValueError("objects need z_what and z_depth to be decoded")
        appearances, alpha = self._decode_what(objects.z_what)
        if self.config.output_boxes == "tight":
            # z_where is the box around the opaque part of the window, so the window is computed from it.
            parts = tight_boxes(alpha, OPAQUE_FROM)
            own = torch.arange(len(objects), device=alpha.device)
            layers = torch.cat([appearances, alpha], dim=1)
            appearances, alpha = sample_glimpses(layers, parts, own, self.config.glimpse_size).split([3, 1], dim=1)
        boxes = with_area(to_xyxy(objects.z_where), self.image_size)
        nearness = DEPTH_SHARPNESS * objects.z_depth.sigmoid()
        place = (boxes, nearness, objects.image_index, objects.per_image, (self.image_size, self.image_size))
        return composite_scene(appearances, alpha, place, background)

    @torch.no_grad()
    def reconstruct(self, images: Tensor, objects: Objects) -> Scene:
        """Decodes objects over the background of images float (B, 3, H, W)."""
        check_batch(images, objects)
        behind = self.background(images, self.config.background_sigma, sample=False).pictures
        return self.decode(objects, behind)

    def loss(self, images: Tensor, targets: Objects | None = None) -> dict[str, Tensor]:
        """Computes the negative evidence lower bound and the boundary loss, which are unsupervised.

        Args:
            images: float (B, 3, H, W) in [0, 1].
            targets: not used; part of the interface of `GenerativeModel`.

        Returns:
            `nll`, `kl_present`, `kl_where`, `kl_depth`, `kl_what`, `kl_background` and `boundary`, in nats per
            image, averaged over the batch; `total`, their sum, and `mse` of the decoded sample.
        """
        check_size(images, self.image_size)
        step = int(self.step)
        if self.training:
            self.step += 1
        posterior = self.grid_encoder(images)
        with torch.autocast(images.device.type, enabled=False):
            windows, presence, nearness = self._sample_grid(posterior, step)
        image_index = posterior.image_index
        what_loc, what_scale = self.glimpse_encoder(self._glimpses(images, windows, image_index))
        every_cell = image_rows(len(images), images.device).times(self.config.grid**2)
        appearances, alpha = self._decode_what(what_loc + what_scale * every_cell.randn_like(what_scale))
        behind = self.background(images, self.config.background_sigma)
        with torch.autocast(images.device.type, enabled=False):
            gate = presence[:, None, None, None]
            counts = [self.config.grid**2] * len(images)  # Every cell is decoded.
            place = (windows, nearness, image_index, counts, (self.image_size, self.image_size))
            foreground, coverage = composite_alpha(appearances * gate, alpha * gate, *place)
            kl_what = normal_kl(what_loc, what_scale, 0.0, 1.0).sum(dim=1)
            terms = {
                "nll": self._nll(images, foreground, coverage, behind, step),
                **self._kl_terms(posterior, kl_what, step),
                "kl_background": image_mean(behind.kl),
                "boundary": self._boundary(windows, gate, coverage, step),
            }
        reconstructions = foreground + (1 - coverage) * behind.pictures
        mse = image_mean((reconstructions.detach() - images).square())
        return {**terms, "total": torch.stack(list(terms.values())).sum(), "mse": mse}

    def _nll(
        self, images: Tensor, foreground: Tensor, coverage: Tensor, behind: BackgroundDraw, step: int
    ) -> Tensor:
        """Computes the negative log-likelihood of the mixture of fore- and background, in nats per image.

        The foreground's mean is its colour, not yet multiplied by its opacity as in the authors' code, so that the
        mixture's mean is the reconstruction. In the first `fix_alpha_steps` steps it is the bound by Jensen's
        inequality in which every pixel belongs to the foreground with probability `FIXED_ALPHA`, however well
        either explains it. In the mixture itself, objects could take over the ground before the background has
        learned it: both start grey, and on black that error costs less under the foreground's larger sigma.
        """
        colours = foreground / coverage.clamp(min=_MIN_COVERAGE)
        log_foreground = gaussian_log_prob(images, colours, FOREGROUND_SIGMA)
        if step < self.config.fix_alpha_steps:
            expected = FIXED_ALPHA * log_foreground + (1 - FIXED_ALPHA) * behind.log_likelihood
            return -image_mean(expected.sum(dim=(1, 2, 3)))
        return -image_mean(mixture_log_likelihood(log_foreground, behind.log_likelihood, coverage))

    def _sample_grid(self, posterior: GridPosterior, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Samples every cell's window (M, 4), xyxy, presence (M,) and nearness (M,), M = B · N."""
        rows = image_rows(len(posterior.where_loc), posterior.where_loc.device)
        where = posterior.where_loc + posterior.where_scale * rows.randn_like(posterior.where_loc)
        depth = posterior.depth_loc + posterior.depth_scale * rows.randn_like(posterior.depth_loc)
        presence = sample_relaxed_bernoulli(posterior.present_logits, self.config.temperature.value(step))
        nearness = DEPTH_SHARPNESS * depth.sigmoid()
        return to_xyxy(self._windows(where)).flatten(0, 1), presence.flatten(), nearness.flatten()

    def _kl_terms(self, posterior: GridPosterior, kl_what: Tensor, step: int) -> dict[str, Tensor]:
        """Computes the KL terms of the foreground's latents, in nats per image; `kl_what` (M,) is every cell's KL.

        An object's KL is weighted by its presence: under the paper's prior an absent object has no latents, hence
        the expectation over presence. (The authors' code counts the KL of every cell in full.)
        """
        logits = posterior.present_logits
        config, B = self.config, normalizer(len(logits), logits.device)
        present = posterior.present_logits.sigmoid().flatten()
        of_cells = {
            "kl_where": posterior.kl_where(
                config.size_prior.value(step), config.size_prior_scale, SHIFT_PRIOR_SCALE
            ),
            "kl_depth": normal_kl(posterior.depth_loc, posterior.depth_scale, 0.0, 1.0),
            "kl_what": kl_what,
        }
        terms = {name: (present * kl.flatten()).sum() / B for name, kl in of_cells.items()}
        kl_present = bernoulli_kl(posterior.present_logits, config.presence_prior.value(step))
        return {"kl_present": kl_present.sum() / B, **terms}

    def _boundary(self, windows: Tensor, gate: Tensor, coverage: Tensor, step: int) -> Tensor:
        """Penalises opacity on the frames of windows with an object: 0.5 (frame · opacity / sigma)² per pixel."""
        weight = self.config.boundary.value(step)
        if not weight:
            return coverage.new_zeros(())
        counts = [self.config.grid**2] * len(coverage)
        frames = paste_sum(self.ring * gate, windows, counts, (self.image_size, self.image_size))
        penalty = 0.5 * (frames * coverage / BOUNDARY_SIGMA).square()
        return weight * penalty.sum() / normalizer(len(coverage), coverage.device)

    def _windows(self, where: Tensor) -> Tensor:
        return windows_from_where(where, self.config.grid, min_side=1 / self.image_size)

    def _glimpses(self, images: Tensor, windows: Tensor, image_index: Tensor) -> Tensor:
        return sample_glimpses(images, windows, image_index, self.config.glimpse_size, antialias=True)

    def _decode_what(self, z_what: Tensor) -> tuple[Tensor, Tensor]:
        """Decodes premultiplied appearances (M, 3, S, S) and alpha (M, 1, S, S), in single precision."""
        appearances, alpha = self.glimpse_decoder(z_what)
        return appearances.float(), alpha.float()

    def _select(self, posterior: GridPosterior, threshold: float) -> Objects:
        """Selects the cells that hold an object; `z_where` is their window."""
        scores = posterior.present_logits.sigmoid().flatten()
        kept = (scores >= threshold).nonzero()[:, 0]
        windows = rearrange(self._windows(posterior.where_loc), "b n d -> (b n) d")
        B, N = posterior.present_logits.shape
        return Objects(
            image_index=posterior.image_index[kept],
            batch_size=B,
            z_where=windows[kept].clamp(0, 1),
            scores=scores[kept],
            labels=torch.zeros_like(kept),
            z_depth=posterior.depth_loc.flatten()[kept],
            anchor_index=kept % N,
        )

    def _placed(self, posterior: GridPosterior, boxes: Objects) -> Objects:
        """Adds to given boxes the depth that the cell of their centre infers."""
        column, row = (boxes.z_where[:, :2] * self.config.grid).long().clamp(0, self.config.grid - 1).unbind(dim=1)
        cell = row * self.config.grid + column
        depth = posterior.depth_loc[boxes.image_index, cell]
        return boxes.replace(z_depth=depth, anchor_index=cell)

    def _windows_around(self, boxes_cxcywh: Tensor) -> Tensor:
        """Computes the windows (M, 4), xyxy, of given boxes.

        For tight boxes, a window has the prior's mean size, or a larger one for larger boxes.
        """
        if self.config.output_boxes == "tight":
            usual = 1 / (1 + exp(-self.config.size_prior.value(int(self.step))))
            sides = (boxes_cxcywh[:, 2:] / (1 - BOUNDARY_WIDTH)).clamp(min=usual)
            boxes_cxcywh = torch.cat([boxes_cxcywh[:, :2], sides], dim=1)
        return with_area(to_xyxy(boxes_cxcywh), self.image_size)
