"""The interface of every model, so that evaluation, plots and tools work with each of them unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ssdir.data.letterbox import Resize
from ssdir.objects import Objects, Scene


class ModelConfig(Protocol):
    """The properties of every model's config."""

    @property
    def kind(self) -> str:
        """The model's class."""

    @property
    def image_size(self) -> int:
        """Side of the square input, in pixels."""

    @property
    def resize(self) -> Resize:
        """How images become square."""

    @property
    def latent_dim(self) -> int:
        """Size D of `z_what`; 0 for a detector, whose objects have none."""

    @property
    def score_threshold(self) -> float:
        """Minimum score of an object."""

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """Returns the values as plain values for JSON."""


class ObjectModel(nn.Module):
    """Images to objects: a detector alone, an `EmbeddingModel`, or a `GenerativeModel`.

    Args:
        config: the model's.
        class_names: the classes that `labels` index; `["object"]` for models without classes.

    Attributes:
        supports_bfloat16: whether `encode` may multiply in bfloat16. Models without a detector may not: bfloat16
            would misplace their narrow windows.
        familiar_error: mean squared error of the decoded objects of an image that 99 % of the validation images
            stay below, see `ssdir.inference.domain`; None where it was not measured.
        in_bfloat16: whether `encode` multiplies in bfloat16, with sums and coordinates in single precision.
            On GPUs and on CPUs with bfloat16 instructions, convolutions then take about half the time.
    """

    config: ModelConfig
    class_names: list[str]
    familiar_error: float | None = None
    supports_bfloat16 = False
    in_bfloat16 = False

    def __init__(self, config: ModelConfig, class_names: list[str]) -> None:
        super().__init__()
        self.config, self.class_names = config, list(class_names)

    @property
    def image_size(self) -> int:
        """Side of the square input, in pixels."""
        return self.config.image_size

    @property
    def resize(self) -> Resize:
        """How images become square; objects of `encode` are relative to the square, padding included."""
        return self.config.resize

    @property
    def latent_dim(self) -> int:
        """Size D of `z_what`; 0 for a detector, whose objects have none."""
        return self.config.latent_dim

    @property
    def score_threshold(self) -> float:
        """Minimum score of an object where none is given."""
        return self.config.score_threshold

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.parameters()).device

    @contextmanager
    def encoding(self) -> Iterator[None]:
        """Computes without gradients, and in the precision of `in_bfloat16`."""
        with torch.no_grad():
            if self.in_bfloat16:
                with torch.autocast(self.device.type, torch.bfloat16):
                    yield
            else:
                yield

    def encode(self, images: Tensor, score_threshold: float | None = None) -> Objects:
        """Detects the objects of images and, unless the model is a detector, embeds them, without gradients.

        Args:
            images: float (B, 3, H, W) in [0, 1], of the model's image size.
            score_threshold: minimum score; None takes the model's.

        Returns:
            Objects with scores, labels and anchor_index; an `EmbeddingModel` adds z_what; a `GenerativeModel` adds
            z_what (posterior means), z_what_scale and z_depth.

        Raises:
            ValueError: if the images are not of the model's size.
        """
        raise NotImplementedError


def check_size(images: Tensor, side: int) -> None:
    """Raises ValueError for images other than (B, 3, side, side): a grid made for others would misplace boxes."""
    if tuple(images.shape[1:]) != (3, side, side):
        raise ValueError(f"images must be (B, 3, {side}, {side}), got {tuple(images.shape)}")


def check_batch(images: Tensor, objects: Objects) -> None:
    """Raises ValueError if objects are of another number of images: some would be read outside of them."""
    if len(images) != objects.batch_size:
        raise ValueError(f"objects must be of the {len(images)} images given, got objects of {objects.batch_size}")


def given_boxes(images: Tensor, boxes: Objects) -> Objects:
    """Returns boxes to embed, in single precision, with their scores and labels and nothing else.

    Raises:
        ValueError: if they are of another number of images.
    """
    check_batch(images, boxes)
    kept = (boxes.image_index, boxes.batch_size, boxes.z_where, boxes.scores, boxes.labels)
    return Objects(*kept, class_names=boxes.class_names).to(torch.float32)


class EmbeddingModel(ObjectModel):
    """Images to objects with an embedding `z_what` each."""

    def embed(self, images: Tensor, boxes: Objects) -> Objects:
        """Embeds given boxes instead of detecting any, without gradients.

        Args:
            images: float (B, 3, H, W) in [0, 1], of the model's image size.
            boxes: objects with `z_where`, the boxes to embed.

        Returns:
            Objects like those of `encode`, row-aligned with `boxes`, with the scores and labels of `boxes`.

        Raises:
            ValueError: if the images are not of the model's size, or the boxes of another number of images.
        """
        raise NotImplementedError


class GenerativeModel(EmbeddingModel):
    """A model that embeds objects, decodes embeddings, and learns from the reconstruction.

    Attributes:
        masks_need_images: whether the masks of objects depend on what else is in the image, so that `reconstruct`
            knows them better than `decode`.
    """

    masks_need_images = False

    def decode(self, objects: Objects) -> Scene:
        """Decodes objects that have z_what and z_depth."""
        raise NotImplementedError

    def opacity(self, objects: Objects) -> Tensor | None:
        """Decodes the alpha of objects, float (M, 1, S, S) in [0, 1], without their scene; None without alpha."""
        return self.decode(objects).alpha

    def reconstruct(self, images: Tensor, objects: Objects) -> Scene:
        """Decodes objects of images float (B, 3, H, W), over the background for models that infer one."""
        return self.decode(objects)

    def forward(self, images: Tensor) -> Scene:
        """Encodes images float (B, 3, H, W) and reconstructs them."""
        return self.reconstruct(images, self.encode(images))

    def loss(self, images: Tensor, targets: Objects | None = None) -> dict[str, Tensor]:
        """Computes the terms of the training loss by name, in nats per image, and their weighted sum `total`.

        Args:
            images: float (B, 3, H, W) in [0, 1].
            targets: true objects, for models that learn from them; the others ignore them.
        """
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Clues:
    """What else is known of N views of tracks, beside their embeddings: how far each view can be trusted.

    Attributes:
        scores: float (N,), the detections' confidence in [0, 1].
        visible: float (N,), the share of the object that nothing hides, in [0, 1].
        gap: float (N,), frames since the track's last view, at least 1; 1 for a track without one.
    """

    scores: Tensor
    visible: Tensor
    gap: Tensor


class TemporalModel(EmbeddingModel):
    """A model whose embeddings can see the past: each track carries a memory from frame to frame.

    The model itself has no state. A memory is a vector (S,) of its track: the remembered `z_what`, then how much
    evidence it rests on. A track without a view has a memory of zeros:

        memory = torch.zeros(N, model.memory_dim)
        memory = model.remember(memory, objects.z_what, clues)  # in each frame
        z_what = memory[:, : model.latent_dim]
    """

    @property
    def memory_dim(self) -> int:
        """Size S of a track's memory; 0 if the model was built without one, and can't remember."""
        raise NotImplementedError

    def remember(self, memory: Tensor, z_what: Tensor, clues: Clues) -> Tensor:
        """Updates the memories of N tracks with a view of each.

        Args:
            memory: float (N, S).
            z_what: float (N, D), the embeddings of the views.
            clues: see `Clues`.

        Returns:
            float (N, S), whose first D columns are the tracks' `z_what` now.

        Raises:
            ValueError: if the model has no memory.
        """
        raise NotImplementedError
