"""Objects with embeddings and labels, and the accuracy of predicted labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import recall_score
from sklearn.preprocessing import normalize

Array: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]

MISSED = -1
"""The predicted label of an object that was not detected."""


@dataclass(frozen=True)
class EmbeddedObjects:
    """Objects with an embedding, a label and an image each.

    Attributes:
        embeddings: float64 (M, D).
        labels: int64 (M,).
        image_index: int64 (M,); equal for objects of the same image.

    Raises:
        ValueError: if the lengths differ, or an embedding is NaN or infinite.
    """

    embeddings: Array
    labels: Integers
    image_index: Integers

    def __post_init__(self) -> None:
        M = len(self.embeddings)
        if self.embeddings.ndim != 2 or self.labels.shape != (M,) or self.image_index.shape != (M,):
            raise ValueError(
                f"embeddings must be (M, D), labels and image_index (M,), got {self.embeddings.shape}, "
                f"{self.labels.shape} and {self.image_index.shape}"
            )
        if broken := int((~np.isfinite(self.embeddings)).any(axis=1).sum()):
            raise ValueError(f"embeddings must be finite, got NaN or infinity in {broken} of {M} objects")

    def __len__(self) -> int:
        return len(self.embeddings)

    def __getitem__(self, rows: Integers | NDArray[np.bool_]) -> EmbeddedObjects:
        """Selects objects by their rows, or by a mask (M,)."""
        return EmbeddedObjects(self.embeddings[rows], self.labels[rows], self.image_index[rows])

    @property
    def directions(self) -> Array:
        """The embeddings at unit length (M, D), whose products are cosines."""
        unit: Array = normalize(self.embeddings)
        return unit

    @classmethod
    def concatenate(cls, parts: Sequence[EmbeddedObjects]) -> EmbeddedObjects:
        """Concatenates objects; `image_index` must number the images of all parts in common."""
        return cls(
            np.concatenate([part.embeddings for part in parts]),
            np.concatenate([part.labels for part in parts]),
            np.concatenate([part.image_index for part in parts]),
        )


def accuracies(labels: Integers, predicted: Integers) -> dict[str, float]:
    """Computes the `accuracy` and the `balanced` accuracy: the mean of the recalls of the classes in `labels`.

    Args:
        labels: int64 (M,), the true classes, M > 0.
        predicted: int64 (M,); `MISSED` is wrong for every class.
    """
    classes = np.unique(labels)
    recall = recall_score(labels, predicted, labels=classes, average="macro", zero_division=0)
    return {"accuracy": float((labels == predicted).mean()), "balanced": float(recall)}
