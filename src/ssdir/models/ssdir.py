"""SSDIR: Single-Shot Detect, Infer, Repeat: the paper's model, and the variant that the default presets use."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator
from torch import Tensor

from ssdir.models.backbones.base import Backbone
from ssdir.models.backbones.timm_net import TimmConfig, frozen_stages
from ssdir.models.base import Clues, TemporalModel
from ssdir.models.detected.encoders import (
    AlignedEncoder,
    AlignedEncoderConfig,
    EncoderConfig,
    PooledStages,
    PyramidEncoder,
    PyramidEncoderConfig,
)
from ssdir.models.detected.memory import MemoryConfig, TrackMemory
from ssdir.models.detected.vae import DetectedVAE, DetectedVAEConfig
from ssdir.models.detector.ssd import SSD
from ssdir.objects import Objects


class SSDIRConfig(DetectedVAEConfig):
    """An SSDIR model.

    Attributes:
        clone_backbone: train a copy of the detector's backbone for the what and depth encoders; for an aligned
            encoder, the copy ends one level finer, since no single cell need cover the whole object.
        encoder: what and depth encoders.
        memory: what embeddings know of an object's earlier frames, trained on clips after all else; with null,
            each frame is encoded alone, as in the paper.
    """

    kind: Literal["SSDIR"] = "SSDIR"
    clone_backbone: bool = False
    encoder: EncoderConfig = PyramidEncoderConfig()
    memory: MemoryConfig | None = None

    @model_validator(mode="after")
    def _refiner_features_need_a_refiner(self) -> Self:
        if _reads_refiner(self.encoder) and self.ssd.refiner is None:
            raise ValueError("encoder.refiner_features needs ssd.refiner")
        if _reads_pretrained(self.encoder):
            if self.clone_backbone:
                raise ValueError("encoder.features=pretrained reads a copy of its own: leave out clone_backbone")
            if not isinstance(self.ssd.backbone, TimmConfig):
                raise ValueError("encoder.features=pretrained needs ssd.backbone.kind=timm: it names weights")
        return self


def _reads_refiner(encoder: PyramidEncoderConfig | AlignedEncoderConfig) -> bool:
    return isinstance(encoder, AlignedEncoderConfig) and encoder.refiner_features


def _reads_pretrained(encoder: PyramidEncoderConfig | AlignedEncoderConfig) -> bool:
    return isinstance(encoder, AlignedEncoderConfig) and encoder.features == "pretrained"


class SSDIR(DetectedVAE, TemporalModel):
    """A VAE that infers `z_what` and `z_depth` from feature maps of the detector or of a copy of its backbone.

    Args:
        config: the model's config.
        class_names: the detector's K foreground classes.
        detector: a trained detector to build on; None makes a new one.
    """

    config: SSDIRConfig

    def __init__(self, config: SSDIRConfig, class_names: list[str], detector: SSD | None = None) -> None:
        super().__init__(config, class_names, detector)
        # Last: initial weights of all else are the same with and without a memory.
        self.memory = None if config.memory is None else TrackMemory(self.latent_dim, config.memory)

    def build_encoder(self) -> None:
        """Builds the encoder: of all cells, or of features aligned with each box; see `EncoderConfig`."""
        config, encoder = self.config, self.config.encoder
        aligned = isinstance(encoder, AlignedEncoderConfig)
        every_stage = isinstance(encoder, AlignedEncoderConfig) and encoder.levels == "all"
        self.backbone: Backbone | None = None
        if config.clone_backbone:
            self.backbone = self.detector.backbone.clone(aligned, every_stage)
        if _reads_pretrained(encoder):
            assert isinstance(config.ssd.backbone, TimmConfig)
            self.backbone = frozen_stages(config.ssd.backbone, config.image_size)
        channels = (self.backbone or self.detector.backbone).channels
        self.encoder: PyramidEncoder | AlignedEncoder
        if isinstance(encoder, AlignedEncoderConfig):
            cells = [side**2 for side in self.detector.feature_sizes]
            refiner = config.ssd.refiner if encoder.refiner_features else None
            self.encoder = AlignedEncoder(
                channels, encoder, cells, config.ssd.anchors.num_per_cell, refiner.hidden if refiner else 0
            )
        else:
            self.encoder = PyramidEncoder(channels, encoder)

    @property
    def memory_dim(self) -> int:
        """Size of a track's memory; 0 without `memory` in the config."""
        return 0 if self.memory is None else self.latent_dim + 1

    def remember(self, memory: Tensor, z_what: Tensor, clues: Clues) -> Tensor:
        """Updates memories of tracks; see `TemporalModel.remember` and `TrackMemory`."""
        if self.memory is None:
            raise ValueError("this model has no memory: train one with model.memory, see the preset tiny-video")
        updated: Tensor = self.memory(memory, z_what, clues)
        return updated

    def freeze_all_but_memory(self) -> None:
        """Excludes all weights but the memory's from training."""
        assert self.memory is not None
        self.requires_grad_(False)
        self.memory.requires_grad_(True)

    @property
    def pooled_stages(self) -> PooledStages | None:
        """The layer that computes `z_what` from pretrained features; None if the encoder doesn't read these."""
        return self.encoder.pooled if isinstance(self.encoder, AlignedEncoder) else None

    @property
    def reads_detector(self) -> bool:
        """True unless the encoder reads a copy of the backbone alone."""
        return self.backbone is None or _reads_refiner(self.config.encoder)

    def posterior(self, objects: Objects, images: Tensor, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Computes the means of `z_what` (M, D) and `z_depth` (M,)."""
        assert objects.anchor_index is not None
        pyramid = self.detector.pyramid(features) if self.backbone is None else self.backbone(images)
        if isinstance(self.encoder, AlignedEncoder):
            refiner_features = None
            if _reads_refiner(self.config.encoder):
                assert self.detector.refiner is not None
                refiner_features = self.detector.refiner.hidden_features(
                    features, objects.z_where, objects.image_index
                )
            what_loc, depth_loc = self.encoder(
                pyramid, objects.image_index, objects.anchor_index, objects.boxes, refiner_features
            )
            return what_loc, depth_loc
        dense = self.encoder(pyramid)
        cell = objects.anchor_index // self.config.ssd.anchors.num_per_cell
        return dense.what_loc[objects.image_index, cell], dense.depth_loc[objects.image_index, cell]
