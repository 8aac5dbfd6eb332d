"""The base class of models that embed the objects of a frozen detector, with or without a decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from ssdir.config import Config
from ssdir.data.letterbox import Resize
from ssdir.models.base import EmbeddingModel, ObjectModel, given_boxes
from ssdir.models.detector.ssd import SSD, SSDConfig
from ssdir.objects import Objects
from ssdir.ops.glimpses import crop_glimpses


class DetectedConfig(Config):
    """The config of a model that embeds the objects of a frozen detector.

    Attributes:
        ssd: the detector, which provides `z_where` and `z_present`, trained first, then frozen.
    """

    ssd: SSDConfig = SSDConfig()

    @property
    def image_size(self) -> int:
        """Side of the square input, in pixels."""
        return self.ssd.image_size

    @property
    def resize(self) -> Resize:
        """How images become square."""
        return self.ssd.resize

    @property
    def score_threshold(self) -> float:
        """Least score of an object."""
        return self.ssd.score_threshold


class DetectedModel(EmbeddingModel):
    """A frozen detector, and an embedding of each object that it detects, which subclasses compute in `infer`.

    Args:
        config: the model's config; its `kind` names the subclass.
        class_names: the detector's K foreground classes.
        detector: a trained detector to build on; None makes a new one.
    """

    supports_bfloat16 = True
    config: DetectedConfig  # type: ignore[assignment]  # the subclasses' configs have `kind` and `latent_dim`

    def __init__(self, config: DetectedConfig, class_names: list[str], detector: SSD | None = None) -> None:
        super().__init__(config, class_names)  # type: ignore[arg-type]
        self.detector = SSD(config.ssd, class_names) if detector is None else detector
        self.class_names = self.detector.class_names
        self.detector.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Sets the mode; the detector is frozen, batch statistics included, and stays in evaluation mode."""
        super().train(mode)
        self.detector.eval()
        return self

    def encode(self, images: Tensor, score_threshold: float | None = None) -> Objects:
        """Detects and embeds objects in one pass; see `ObjectModel.encode` and `infer`."""
        with self.encoding():
            objects, features = self.detector.detect(images, score_threshold)
            return self.infer(objects, images, features)

    def embed(self, images: Tensor, boxes: Objects) -> Objects:
        """Embeds given boxes; each gets the best-fitting anchor, which determines its cell and level."""
        with self.encoding():
            given, features = given_boxes(images, boxes), self.detector.read(images)
            return self.infer(given.replace(anchor_index=self.detector.assign(given.z_where)), images, features)

    def infer(self, objects: Objects, images: Tensor, features: list[Tensor]) -> Objects:
        """Adds z_what and, for generative models, z_what_scale and z_depth.

        Args:
            objects: M objects with anchor_index.
            images: float (B, 3, H, W) in [0, 1].
            features: the detector's feature maps, see `SSD.read`.
        """
        raise NotImplementedError

    @torch.no_grad()
    def pooled_features(self, images: Tensor, objects: Objects, size: int = 3) -> Tensor:
        """Pools the frozen pyramid by RoIAlign in each object's box: a baseline for `z_what`.

        Returns:
            float (M, F), see `pool_pyramid`.
        """
        return pool_pyramid(self.detector.pyramid(self.detector.read(images)), objects, size)


def detector_of(model: ObjectModel) -> SSD | None:
    """Returns the detector of a model, or the model itself if it is one; None for models without a detector."""
    if isinstance(model, DetectedModel):
        return model.detector
    return model if isinstance(model, SSD) else None


def pool_pyramid(features: Sequence[Tensor], objects: Objects, size: int) -> Tensor:
    """Computes RoIAlign (He et al. 2017) of every level of a pyramid in each object's box.

    Args:
        features: the levels, each (B, C, h, w).
        objects: M objects of their B images.
        size: samples along each side of a box.

    Returns:
        float (M, F): the `size` × `size` samples of all levels, concatenated; F is size² times the sum of
        channels.
    """
    pooled = [crop_glimpses(level, objects.boxes, objects.image_index, size).flatten(1) for level in features]
    return torch.cat(pooled, dim=1)
