"""Models that describe what a frozen detector finds: what they share, whether they draw it or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from ssdir.config import Config
from ssdir.data.letterbox import Resize
from ssdir.models.base import EmbeddingModel, ObjectModel
from ssdir.models.detector.ssd import SSD, SSDConfig
from ssdir.objects import Objects
from ssdir.ops.glimpses import crop_glimpses


class DetectedConfig(Config):
    """A model that describes what a frozen detector finds.

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
    """A frozen detector, and a description of each object that it finds; subclasses bring the latter.

    Args:
        config: its parts; its `kind` names the subclass.
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
        """Embeds given boxes; each takes the anchor, and so the cell and level, that fits it best."""
        with self.encoding():
            features = self.detector.read(images)
            names = boxes.class_names
            given = Objects(
                boxes.image_index, boxes.batch_size, boxes.z_where, boxes.scores, boxes.labels, class_names=names
            )
            return self.infer(given.replace(anchor_index=self.detector.assign(boxes.z_where)), images, features)

    def infer(self, objects: Objects, images: Tensor, features: list[Tensor]) -> Objects:
        """Adds z_what, and whatever else the model tells of an object.

        Args:
            objects: with anchor_index.
            images: float (B, 3, H, W) in [0, 1].
            features: what the detector read, see `SSD.read`.
        """
        raise NotImplementedError

    @torch.no_grad()
    def pooled_features(self, images: Tensor, objects: Objects, size: int = 3) -> Tensor:
        """Pools the frozen pyramid by RoIAlign, as users of a detector do: a control for `z_what`.

        Returns:
            float (M, F), see `pool_pyramid`.
        """
        return pool_pyramid(self.detector.pyramid(self.detector.read(images)), objects, size)


def detector_of(model: ObjectModel) -> SSD | None:
    """The detector that a model is, or has; None for models without one."""
    if isinstance(model, DetectedModel):
        return model.detector
    return model if isinstance(model, SSD) else None


def pool_pyramid(features: Sequence[Tensor], objects: Objects, size: int) -> Tensor:
    """RoIAlign (He et al. 2017) of every level of a pyramid in each object's box.

    Args:
        features: the levels, each (B, C, h, w).
        objects: M objects of their B images.
        size: samples along each side of a box.

    Returns:
        float (M, F): every level's `size` × `size` samples, side by side; F is size² times all levels' channels.
    """
    pooled = [crop_glimpses(level, objects.boxes, objects.image_index, size).flatten(1) for level in features]
    return torch.cat(pooled, dim=1)
