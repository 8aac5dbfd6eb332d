"""The face that every model has, so that evaluation, pictures and tools work for each of them unchanged."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ssdir.objects import Objects, Scene


class ModelConfig(Protocol):
    """What every model's config says."""

    @property
    def kind(self) -> str:
        """The model's class."""

    @property
    def image_size(self) -> int:
        """Side of the square input, in pixels."""

    @property
    def latent_dim(self) -> int:
        """Size D of `z_what`."""

    @property
    def score_threshold(self) -> float:
        """Least score of an object."""

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """Its values, as JSON has them."""


class ObjectModel(nn.Module):
    """Images to objects with an appearance code; a `GenerativeModel` also draws them.

    Args:
        config: the model's.
        class_names: what `labels` index; `["object"]` for models that know no classes.
    """

    config: ModelConfig
    class_names: list[str]

    def __init__(self, config: ModelConfig, class_names: list[str]) -> None:
        super().__init__()
        self.config, self.class_names = config, list(class_names)

    @property
    def image_size(self) -> int:
        """Side of the square input, in pixels."""
        return self.config.image_size

    @property
    def latent_dim(self) -> int:
        """Size D of `z_what`."""
        return self.config.latent_dim

    @property
    def score_threshold(self) -> float:
        """Least score of an object where the caller names none."""
        return self.config.score_threshold

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def encode(
        self, images: Tensor, score_threshold: float | None = None, boxes: Objects | None = None
    ) -> Objects:
        """Finds the objects of images and what they look like, in one pass, without gradients.

        Args:
            images: float (B, 3, H, W) in [0, 1], of the model's image size.
            score_threshold: least score; None takes the model's.
            boxes: objects whose `z_where` to encode instead of finding any. The result is row-aligned with them.

        Returns:
            Objects with scores and labels (those of `boxes`, where given), z_what and anchor_index; of generative
            models z_what are posterior means, and there are z_what_scale and z_depth.

        Raises:
            ValueError: if the images are not of the model's size.
        """
        raise NotImplementedError

    def describe(self, images: Tensor, boxes: Objects) -> Objects:
        """The latents of given boxes: `encode` without finding any, row by row."""
        return self.encode(images, boxes=boxes)


def check_size(images: Tensor, side: int) -> None:
    """Raises ValueError for images other than (B, 3, side, side): a grid made for others would misplace boxes."""
    if tuple(images.shape[1:]) != (3, side, side):
        raise ValueError(f"images must be (B, 3, {side}, {side}), got {tuple(images.shape)}")


class GenerativeModel(ObjectModel):
    """Images to objects and back: what it encodes it draws again, and by the difference it learns."""

    def decode(self, objects: Objects) -> Scene:
        """Draws objects that have z_what and z_depth."""
        raise NotImplementedError

    def redraw(self, images: Tensor, objects: Objects) -> Scene:
        """Draws objects of images float (B, 3, H, W); over what is behind them, of models that look for it."""
        return self.decode(objects)

    def forward(self, images: Tensor) -> Scene:
        """Encodes and draws again: images float (B, 3, H, W) to what the model makes of them."""
        return self.redraw(images, self.encode(images))

    def loss(self, images: Tensor, targets: Objects | None = None) -> dict[str, Tensor]:
        """Named terms of the training loss, in nats per image, and `total`.

        Args:
            images: float (B, 3, H, W) in [0, 1].
            targets: true objects, for models that learn from them; the others ignore them.
        """
        raise NotImplementedError
