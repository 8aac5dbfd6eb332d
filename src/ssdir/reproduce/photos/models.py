"""Trained models as rows of the comparison: their embeddings, and the pooled features of their detectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ssdir.data.images import Image8
from ssdir.errors import InputError
from ssdir.inference.predictor import Predictor, load
from ssdir.models.base import EmbeddingModel
from ssdir.models.detected.model import DetectedConfig, DetectedModel, detector_of, pool_pyramid
from ssdir.models.io import find_model, weights_fingerprint
from ssdir.objects import Objects
from ssdir.reproduce.photos.embedders import COMPONENTS, Embedder, ProjectedEmbedder
from ssdir.training.run_folder import read_training

POOLED = "pooled"
"""The prefix of a model whose pooled features are a row, as in `features=pooled:runs/photos`."""
_POOL_SIZE = 3


class OnePassEmbedder(Embedder):
    """A model that detects and embeds objects in one pass over each photograph.

    Attributes:
        predictor: the model, whose `z_what` are the features.
        weights: fingerprint of the trained weights.
    """

    detects = True
    predictor: Predictor
    weights: str

    @property
    def settings(self) -> dict[str, object]:
        """The description of the embedder, with the fingerprint of the model's weights."""
        return {"about": self.about, "weights": self.weights}

    def detect(self, images: Sequence[Image8]) -> Objects:
        """Detects objects with their features, as `ssdir encode` does."""
        return self.predictor.encode(list(images))

    def features(self, images: Sequence[Image8], boxes: Objects) -> NDArray[np.float32]:
        """Computes features, see `Embedder.features`."""
        features = self.predictor.encode(list(images), boxes=boxes).z_what
        assert features is not None
        return features.numpy()


class ModelEmbedder(OnePassEmbedder):
    """Embeddings `z_what` of a trained model, from one pass over each photograph.

    Args:
        name: name of the row.
        model: a model's folder or name, see `ssdir.load`.
        device: device to run on, see `choose_device`.

    Raises:
        InputError: if there is no such model, or it has no embeddings.
    """

    def __init__(self, name: str, model: str, device: str | None = None) -> None:
        self.name, self.predictor, self.seed = name, load(model, device), training_seed(model)
        if not isinstance(self.predictor.model, EmbeddingModel):
            raise InputError(
                f"row {name}: '{model}' is a detector, which has no embeddings: take its features, "
                f"{name}={POOLED}:{model}"
            )
        kind = self.predictor.model.config.kind
        self.about = f"z_what of {kind}, {self.predictor.image_size} px, as ssdir encode writes it"
        self.weights = weights_fingerprint(self.predictor.model)


class PooledEmbedder(OnePassEmbedder, ProjectedEmbedder):
    """Embeds boxes by the pooled features of a trained model's detector, without further training.

    The arguments and errors are those of `ModelEmbedder`, except that the model needs a detector, not embeddings.
    """

    standardise = True

    def __init__(self, name: str, model: str, device: str | None = None) -> None:
        self.name, loaded, self.seed = name, load(model, device).model, training_seed(model)
        detector = detector_of(loaded)
        if detector is None:
            raise InputError(f"row {name}: '{model}' has no detector whose features could be pooled")
        self.predictor = Predictor(
            _PooledPyramid(DetectedConfig(ssd=detector.config), loaded.class_names, detector).to(loaded.device)
        )
        self.about = (
            f"{_POOL_SIZE}×{_POOL_SIZE} samples of each box in the detector's pyramid, PCA to {COMPONENTS}"
        )
        self.weights = weights_fingerprint(loaded)


def training_seed(model: str) -> int:
    """Returns the seed of a model's training; 0 where its folder does not name it."""
    training = read_training(find_model(model))
    return int(training["recipe"]["seed"]) if training else 0


class _PooledPyramid(DetectedModel):
    """A detector whose objects have the pooled features of its pyramid as embeddings."""

    def infer(self, objects: Objects, images: Tensor, features: list[Tensor]) -> Objects:
        """Adds the pooled features (M, F), see `pool_pyramid`."""
        return objects.replace(z_what=pool_pyramid(self.detector.pyramid(features), objects, _POOL_SIZE))
