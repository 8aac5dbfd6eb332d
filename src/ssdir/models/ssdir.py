"""SSDIR: Single-Shot Detect, Infer, Repeat (the paper's model, and its better defaults)."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator
from torch import Tensor

from ssdir.models.backbone import Backbone
from ssdir.models.detected.encoders import AlignedEncoder, EncoderConfig, PyramidEncoder
from ssdir.models.detected.vae import DetectedVAE, DetectedVAEConfig
from ssdir.objects import Objects


class SSDIRConfig(DetectedVAEConfig):
    """An SSDIR model.

    Attributes:
        clone_backbone: train a copy of the detector's backbone for what and depth; for an aligned encoder, a copy
            that ends one level finer, since it need not see the whole object in one cell.
        encoder: what and depth encoders.
    """

    kind: Literal["SSDIR"] = "SSDIR"
    clone_backbone: bool = False
    encoder: EncoderConfig = EncoderConfig()

    @model_validator(mode="after")
    def _second_look_needs_a_refiner(self) -> Self:
        if self.encoder.second_look and self.detector.refiner is None:
            raise ValueError("encoder.second_look needs detector.refiner: nothing else looks a second time")
        return self


class SSDIR(DetectedVAE):
    """What and depth are read from feature maps: the detector's, or a copy's that is trained."""

    config: SSDIRConfig

    def build_encoder(self) -> None:
        """Encoders over all cells, or in the frame of each box; see `EncoderConfig.align`."""
        config = self.config
        aligned = bool(config.encoder.align)
        self.backbone: Backbone | None = None
        if config.clone_backbone:
            self.backbone = self.detector.backbone.clone(aligned, every_stage=config.encoder.levels == "all")
        channels = (self.backbone or self.detector.backbone).channels
        self.encoder: PyramidEncoder | AlignedEncoder
        if aligned:
            cells = [side**2 for side in self.detector.feature_sizes]
            anchors_per_cell = config.detector.anchors.num_per_cell
            refiner = config.detector.refiner if config.encoder.second_look else None
            told = refiner.hidden if refiner is not None else 0
            self.encoder = AlignedEncoder(channels, config.encoder, cells, anchors_per_cell, told)
        else:
            self.encoder = PyramidEncoder(channels, config.encoder)

    @property
    def reads_detector(self) -> bool:
        """Unless it trains a copy of the backbone, and reads nothing beside it."""
        return self.backbone is None or self.config.encoder.second_look

    def posterior(self, objects: Objects, images: Tensor, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Means of `z_what` (M, D) and `z_depth` (M,)."""
        assert objects.anchor_index is not None
        pyramid = self.detector.pyramid(features) if self.backbone is None else self.backbone(images)
        if isinstance(self.encoder, AlignedEncoder):
            told = None
            if self.config.encoder.second_look:
                assert self.detector.refiner is not None
                told = self.detector.refiner.hidden_features(features, objects.z_where, objects.image_index)
            what_loc, depth_loc = self.encoder(
                pyramid, objects.image_index, objects.anchor_index, objects.boxes, told
            )
            return what_loc, depth_loc
        dense = self.encoder(pyramid)
        cell = objects.anchor_index // self.config.detector.anchors.num_per_cell
        return dense.what_loc[objects.image_index, cell], dense.depth_loc[objects.image_index, cell]
