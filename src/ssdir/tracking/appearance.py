"""Appearance of tracks: a gallery of views each, and how well embeddings tell the objects of a clip apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MAX_VIEWS = 5
"""Number of views that a track keeps."""

MEAN_MEMORY = 20.0
"""Weight of views after which the mean of a track forgets the older ones."""

MAX_EVIDENCE = 8.0
"""Largest log-likelihood ratio of appearance, in nats."""

MIN_PAIRS = 10.0
"""Number of pairs of either kind at which their statistics count half."""

PAIR_MEMORY = 2000.0
"""Number of pairs after which the statistics forget the older ones."""


@dataclass
class Gallery:
    """The appearance of one track: its clearest views, and a mean of all.

    Attributes:
        mean: float (D,), mean of the embeddings, weighted by how clear each view was.
        weight: sum of these weights, at most `MEAN_MEMORY`.
        views: float (D,) each, the embeddings of the clearest views.
        clearness: how clear each view was, in [0, 1].
    """

    mean: Floats
    weight: float
    views: list[Floats]
    clearness: list[float]

    @classmethod
    def of(cls, embedding: Floats, clearness: float) -> Gallery:
        """Starts a gallery with a view (D,)."""
        return cls(embedding, clearness, [embedding], [clearness])

    def add(self, embedding: Floats, clearness: float) -> None:
        """Adds a view (D,), which replaces the least clear one if that is not clearer."""
        total = self.weight + clearness
        if total > 0:
            self.mean = self.mean + clearness / total * (embedding - self.mean)
        self.weight = min(total, MEAN_MEMORY)
        if len(self.views) >= MAX_VIEWS:
            least = int(np.argmin(self.clearness))
            if self.clearness[least] > clearness:
                return
            del self.views[least], self.clearness[least]
        self.views.append(embedding)
        self.clearness.append(clearness)


def similarities(galleries: Sequence[Gallery], embeddings: Floats, center: Floats) -> Floats:
    """Computes how similar detections look to tracks: the mean of the cosines with the track's mean and best view.

    Args:
        galleries: of T tracks.
        embeddings: float (N, D).
        center: float (D,), subtracted from all embeddings.

    Returns:
        float (T, N), in [-1, 1].
    """
    if not galleries or not len(embeddings):
        return np.zeros((len(galleries), len(embeddings)))
    found = unit(embeddings - center).T
    means = unit(np.stack([gallery.mean for gallery in galleries]) - center) @ found
    views = unit(np.stack([view for gallery in galleries for view in gallery.views]) - center) @ found
    starts = np.cumsum([0, *(len(gallery.views) for gallery in galleries[:-1])])
    result: Floats = (means + np.maximum.reduceat(views, starts)) / 2
    return result


def unit(vectors: Floats) -> Floats:
    """Scales vectors (..., D) to length 1; those of length 0 stay."""
    scaled: Floats = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(min=1e-12)
    return scaled


@dataclass
class RunningNormal:
    """Mean and variance of a stream of numbers that forgets the oldest.

    Attributes:
        count: how many numbers the statistics stand for, at most `PAIR_MEMORY`.
        mean: their mean.
        variance: their variance.
    """

    count: float = 0.0
    mean: float = 0.0
    variance: float = 0.0

    def add(self, values: Floats) -> None:
        """Adds numbers (n,)."""
        if not len(values):
            return
        total = self.count + len(values)
        share = len(values) / total
        shift = float(values.mean()) - self.mean
        self.variance = (1 - share) * self.variance + share * float(values.var()) + share * (1 - share) * shift**2
        self.mean += share * shift
        self.count = min(total, PAIR_MEMORY)


@dataclass
class Reliability:
    """How well the embeddings tell the objects of this clip apart, learned while tracking.

    Attributes:
        same: similarities of detections with their own track, where motion left no doubt.
        different: similarities of detections with the tracks of other objects in the same frame.
    """

    same: RunningNormal = field(default_factory=RunningNormal)
    different: RunningNormal = field(default_factory=RunningNormal)

    def evidence(self, similarity: Floats) -> Floats:
        """Computes the log-likelihood ratio of similarities, the same object against another one, in nats.

        Both are taken as normal with the same variance, so the ratio is linear in the similarity: its slope is the
        difference of the means over the variance, and 0 where embeddings don't tell objects apart.
        """
        pairs = min(self.same.count, self.different.count)
        gain = self.same.mean - self.different.mean
        if pairs < 2 or gain <= 0:
            return np.zeros_like(similarity)
        variance = (self.same.variance + self.different.variance) / 2 + 1e-4
        middle = (self.same.mean + self.different.mean) / 2
        ratio = pairs / (pairs + MIN_PAIRS) * gain / variance * (similarity - middle)
        clipped: Floats = ratio.clip(-MAX_EVIDENCE, MAX_EVIDENCE)
        return clipped
