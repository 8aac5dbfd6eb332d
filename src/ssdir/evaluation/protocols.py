"""Protocols of the models and data sets that can be evaluated; `SSDIR` and `ObjectDataset` implement them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ssdir.data.letterbox import Letterbox
from ssdir.objects import Objects, Scene


class Model(Protocol):
    """A model that detects objects in images."""

    @property
    def image_size(self) -> int:
        """Side of the square images, in pixels."""

    @property
    def score_threshold(self) -> float:
        """Least score of an object at the operating point, at which precision, recall and counts are measured."""

    def encode(self, images: Tensor, score_threshold: float | None = None) -> Objects:
        """Detects objects in images float (B, 3, H, W) in [0, 1]."""


@runtime_checkable
class EmbedsBoxes(Model, Protocol):
    """A model that also embeds given boxes; the embeddings of true boxes are a ceiling."""

    def embed(self, images: Tensor, boxes: Objects) -> Objects:
        """Returns the given boxes of images float (B, 3, H, W) with their z_what, row-aligned."""


@runtime_checkable
class DrawsScenes(Protocol):
    """A model that also decodes its objects, so that reconstruction and image can be compared."""

    def decode(self, objects: Objects) -> Scene:
        """Decodes the objects into a scene."""


@runtime_checkable
class SegmentsImages(Protocol):
    """A model whose masks may depend on what else is in the image, beside its objects."""

    @property
    def masks_need_images(self) -> bool:
        """Whether the scene of `reconstruct` has other masks than that of `decode`."""

    def reconstruct(self, images: Tensor, objects: Objects) -> Scene:
        """Decodes the objects of images float (B, 3, H, W) into a scene."""


@runtime_checkable
class PoolsFeatures(Protocol):
    """A model with a detector, whose pooled features are a floor for its embeddings."""

    def pooled_features(self, images: Tensor, objects: Objects) -> Tensor:
        """Returns the detector's features (M, F) inside each object's box."""


@runtime_checkable
class NamesClasses(Protocol):
    """A model whose objects have predicted classes."""

    @property
    def class_names(self) -> Sequence[str]:
        """The names of the labels; a single name for a class-agnostic model."""


class Dataset(Protocol):
    """Images with their true objects."""

    @property
    def category_names(self) -> Sequence[str]:
        """Names of the true categories, also where the detector's labels are class-agnostic."""

    def __len__(self) -> int:
        """Number of images."""

    def __getitem__(self, index: int, /) -> tuple[Tensor, Objects]:
        """Image uint8 (3, H, W), and its objects with batch size 1."""

    def categories(self, index: int, /) -> Tensor:
        """True category of each object of an image, int64 (n,)."""

    def attributes(self, index: int, /) -> Mapping[str, Tensor]:
        """Returns further properties of these objects, by name, int64 (n,) each; empty without any."""

    def ignored(self, index: int, /) -> Objects:
        """Returns regions of an image, with batch size 1, in which a detection is neither right nor wrong."""

    def mask(self, index: int, /) -> Tensor | None:
        """Returns the object of each pixel, int64 (H, W): i + 1 is object i, 0 the background; None if unknown."""


@runtime_checkable
class PadsImages(Protocol):
    """A data set whose images may be padded; boxes are measured relative to the part without padding."""

    def letterbox(self, indices: Sequence[int], /) -> Letterbox:
        """Returns the parts of the squares that the images with these numbers cover."""


@runtime_checkable
class Remembers(EmbedsBoxes, Protocol):
    """A model whose embeddings of a track depend on the earlier frames, if its memory has a size."""

    @property
    def memory_dim(self) -> int:
        """Size of a track's memory; 0 for a model that was built without one."""


@runtime_checkable
class NamesClusters(Protocol):
    """A model whose prior of `z_what` may be a mixture, whose components are classes."""

    @property
    def num_clusters(self) -> int:
        """Number K of components; 0 for a model without them."""

    def cluster_probs(self, z_what: Tensor) -> Tensor:
        """Computes the probability of each component, float (M, K), of embeddings float (M, D)."""


@runtime_checkable
class HasClips(Protocol):
    """A data set whose images may be the frames of clips, with tracks of their true objects."""

    @property
    def clip_ranges(self) -> Sequence[range]:
        """The images of each clip, its frames in order; empty where images are no clips."""

    @property
    def image_sizes(self) -> NDArray[np.int64]:
        """Height and width of each image in pixels, int64 (n, 2)."""


def device_of(model: object) -> torch.device:
    """Returns where a model's parameters are; the CPU for one without any."""
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device
