"""Ways to embed boxes of photographs, each a row of the comparison.

A new one is a subclass of `Embedder` with a line in `embedders`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from ssdir.data.crops import crop_boxes
from ssdir.data.images import Image8, resize, to_tensor
from ssdir.device import seeded
from ssdir.evaluation.embedded import Array
from ssdir.models.backbones.build import build_backbone
from ssdir.models.backbones.crops import CropNetwork
from ssdir.models.backbones.timm_net import TimmConfig
from ssdir.models.detected.model import pool_pyramid
from ssdir.models.inference_form import inference_form
from ssdir.objects import Objects

NETWORK = "tf_efficientnet_lite0"
COMPONENTS = 128
_CROPS_AT_ONCE = 8
"""The fastest number on a CPU."""


class Embedder(ABC):
    """Embeds given boxes of photographs.

    Fitted parts, such as principal components, are fitted on the features of the training split.

    Attributes:
        name: name of the row.
        about: a sentence about its embeddings.
        seed: seed of its random weights or training; rows of one name with different seeds are one row of tables.
        detects: whether it has a detector, so that it is measured at its own boxes.
    """

    name: str
    about: str
    seed: int = 0
    detects = False

    @property
    def settings(self) -> dict[str, object]:
        """The settings that determine the embeddings, for JSON; a row is measured again when they change."""
        return {"about": self.about}

    @abstractmethod
    def features(self, images: Sequence[Image8], boxes: Objects) -> NDArray[np.float32]:
        """Computes features.

        Args:
            images: B photographs, each uint8 (H, W, 3), RGB, of any size.
            boxes: M objects of these B images, of which only `z_where` is used.

        Returns:
            float32 (M, F), row-aligned with the boxes.
        """

    def detect(self, images: Sequence[Image8]) -> Objects:
        """Detects objects, with their features (M, F) as `z_what`, if it has a detector."""
        raise NotImplementedError

    def fit(self, features: NDArray[np.float32], seed: int) -> None:  # noqa: B027  # many need not
        """Learns from the features (M, F) of the training split; by default nothing."""

    def transform(self, features: NDArray[np.float32]) -> Array:
        """Computes embeddings float64 (M, D) from features (M, F); by default they are the features."""
        return features.astype(np.float64)

    def embed(self, images: Sequence[Image8], boxes: Objects) -> Array:
        """Embeds boxes of photographs, float64 (M, D); for the arguments see `features`."""
        return self.transform(self.features(images, boxes))


class ProjectedEmbedder(Embedder):
    """An embedder whose embeddings are principal components of its features, and so are centred.

    Attributes:
        standardise: whether each feature is scaled to unit variance first.
    """

    standardise = False
    _projection: Pipeline

    def fit(self, features: NDArray[np.float32], seed: int) -> None:
        """Fits `COMPONENTS` principal components, or as many as there are objects or features."""
        first = [StandardScaler()] if self.standardise else []
        projection = make_pipeline(*first, PCA(min(COMPONENTS, *features.shape), random_state=seed))
        self._projection = projection.fit(features.astype(np.float64))

    def transform(self, features: NDArray[np.float32]) -> Array:
        """Projects features (M, F) to float64 (M, D)."""
        if not len(features):
            return np.zeros((0, self._projection[-1].n_components_))
        projected: Array = self._projection.transform(features.astype(np.float64))
        return projected


class RoIAlignEmbedder(ProjectedEmbedder):
    """One pass of a network over each photograph, stretched to a square; RoIAlign at strides 16 and 32.

    Args:
        name: name of the row.
        side: side of the square, in pixels.
        size: samples along each side of a box, at both strides.
        weights: see `TimmConfig`; None for random weights.
        seed: seed of random weights.
    """

    def __init__(
        self, name: str, side: int, size: int = 1, weights: str | None = "package", seed: int = 0
    ) -> None:
        self.name, self.side, self.size, self.weights, self.seed = name, side, size, weights, seed
        what = "pretrained" if weights else "untrained"
        grid = "the mean over each box" if size == 1 else f"{size}×{size} samples of each box"
        self.about = (
            f"{grid} in the maps of {what} {NETWORK}, strides 16 and 32, at {side} px, PCA to {COMPONENTS}"
        )

    @cached_property
    def _backbone(self) -> torch.nn.Module:
        with seeded(self.seed):
            return inference_form(build_backbone(_config(self.weights)).eval())

    @torch.no_grad()
    def features(self, images: Sequence[Image8], boxes: Objects) -> NDArray[np.float32]:
        """Computes features, see `Embedder.features`."""
        squares = torch.stack([to_tensor(resize(image, self.side, self.side)) for image in images])
        return pool_pyramid(self._backbone(squares), boxes, self.size).numpy()


class CropEmbedder(ProjectedEmbedder):
    """Crops of the boxes, stretched to squares, each through a pretrained network.

    Args:
        name: name of the row.
        side: side of the squares, in pixels.
    """

    def __init__(self, name: str, side: int) -> None:
        self.name, self.side = name, side
        self.about = f"last pooled features of pretrained {NETWORK}, of crops at {side} px, PCA to {COMPONENTS}"

    @cached_property
    def _network(self) -> CropNetwork:
        return inference_form(CropNetwork(_config("package")))

    @property
    def num_features(self) -> int:
        """Number of features F of a crop, before projection."""
        return self._network.num_features

    @torch.no_grad()
    def features(self, images: Sequence[Image8], boxes: Objects) -> NDArray[np.float32]:
        """Computes features, see `Embedder.features`."""
        crops = crop_boxes(images, boxes, self.side)
        parts = [self._network(part) for part in crops.split(_CROPS_AT_ONCE)]
        return torch.cat(parts).numpy() if parts else np.zeros((0, self.num_features), np.float32)


class PixelEmbedder(ProjectedEmbedder):
    """The pixels of crops.

    Args:
        name: name of the row.
        side: side of the squares that crops are stretched to, in pixels.
    """

    def __init__(self, name: str, side: int) -> None:
        self.name, self.side = name, side
        self.about = f"pixels of crops at {side} px, PCA to {COMPONENTS}"

    def features(self, images: Sequence[Image8], boxes: Objects) -> NDArray[np.float32]:
        """Computes features, see `Embedder.features`."""
        return crop_boxes(images, boxes, self.side).flatten(1).numpy()


def _config(weights: str | None) -> TimmConfig:
    """Builds the network with its feature maps of strides 16 and 32."""
    return TimmConfig(name=NETWORK, weights=weights, num_levels=2, top_down=0)


def embedders() -> list[Embedder]:
    """Returns the rows that need no trained model, in the order of the table; weights are read at first use."""
    return [
        CropEmbedder("crops-224", side=224),
        CropEmbedder("crops-128", side=128),
        *(RoIAlignEmbedder(f"roi-align-{side}-3x3", side, size=3) for side in (384, 256)),
        *(RoIAlignEmbedder(f"roi-align-{side}", side) for side in (384, 320, 256)),
        PixelEmbedder("pixels", side=16),
        *(RoIAlignEmbedder("untrained", side=256, weights=None, seed=seed) for seed in range(3)),
    ]
