"""Appearance of tracks: a gallery of views each, and how well embeddings tell the objects of a clip apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ssdir.tracking.motion import Floats

MAX_VIEWS, VIEW_STEP = 8, 2
"""Number of views that a track keeps, and minimum number of frames between them."""

MEAN_MEMORY = 20.0
"""Weight of views after which the mean of a track forgets the older ones."""

MAX_EVIDENCE = 8.0
"""Largest log-likelihood ratio of appearance, in nats."""

MIN_PAIRS = 10.0
"""Number of pairs of either kind at which their statistics count half."""

FEW_PAIRS, SPREAD = 50.0, 0.3
"""Standard deviation of the similarities of different objects before any is known, and the number of pairs that it
counts as: a few people in a few frames say little of what the next one will look like."""

PAIR_MEMORY = 2000.0
"""Number of pairs after which the statistics forget the older ones."""


@dataclass
class Gallery:
    """The appearance of one track: clear views of it over time, and a mean of all.

    Attributes:
        mean: float (D,), mean of the embeddings, weighted by how clear each view was.
        weight: sum of these weights, at most `MEAN_MEMORY`.
        views: float (D,) each, at most `MAX_VIEWS`.
        clearness: how clear each view was, in [0, 1].
        frames: the frame of each.
    """

    mean: Floats
    weight: float = 0.0
    views: list[Floats] = field(default_factory=list)
    clearness: list[float] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)

    def add(self, embedding: Floats, clearness: float, frame: int) -> None:
        """Adds a view (D,): of successive frames the clearest is kept, and of too many views the clearest."""
        self.weight += clearness
        if self.weight > 0:
            self.mean = self.mean + clearness / self.weight * (embedding - self.mean)
        self.weight = min(self.weight, MEAN_MEMORY)
        if self.frames and frame - self.frames[-1] < VIEW_STEP:
            if clearness <= self.clearness[-1]:
                return
            self._drop(-1)
        elif len(self.views) == MAX_VIEWS:
            self._drop(int(np.argmin(self.clearness)))
        self.views.append(embedding)
        self.clearness.append(clearness)
        self.frames.append(frame)

    def _drop(self, view: int) -> None:
        del self.views[view], self.clearness[view], self.frames[view]

    def join(self, later: Gallery) -> None:
        """Adds the views of another gallery, of the same object in later frames."""
        for embedding, clearness, frame in zip(later.views, later.clearness, later.frames, strict=True):
            self.add(embedding, clearness, frame)

    def views_until(self, frame: int) -> list[Floats]:
        """Returns the views of a frame and those before it."""
        return [view for view, at in zip(self.views, self.frames, strict=True) if at <= frame]


def similarities(galleries: Sequence[Gallery], embeddings: Floats, center: Floats) -> Floats:
    """Computes how similar detections are to tracks: the mean of the cosines with their means and best views.

    Args:
        galleries: of T tracks.
        embeddings: float (N, D).
        center: float (D,), subtracted from all embeddings.

    Returns:
        float (T, N), in [-1, 1].
    """
    means = [[gallery.mean] for gallery in galleries]
    views = [gallery.views for gallery in galleries]
    both = [best_cosines(each, embeddings, center) for each in (means, views)]
    similarity: Floats = (both[0] + both[1]) / 2
    return similarity


def best_cosines(views: Sequence[Sequence[Floats]], embeddings: Floats, center: Floats) -> Floats:
    """Computes the cosines of detections with the most similar view of each track.

    Args:
        views: of T tracks, one or more (D,) each.
        embeddings: float (N, D).
        center: float (D,), subtracted from all embeddings.

    Returns:
        float (T, N), in [-1, 1].
    """
    if not views or not len(embeddings):
        return np.zeros((len(views), len(embeddings)))
    cosines = _unit(np.stack([view for each in views for view in each]) - center) @ _unit(embeddings - center).T
    starts = np.cumsum([0, *(len(each) for each in views[:-1])])
    best: Floats = np.maximum.reduceat(cosines, starts)
    return best


def _unit(vectors: Floats) -> Floats:
    """Scales vectors (n, D) to length 1; those of length 0 stay."""
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    scaled: Floats = vectors / lengths.clip(min=1e-12)[:, None]
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
        own = float(values.var())
        self.variance = (1 - share) * self.variance + share * own + share * (1 - share) * shift**2
        self.mean += share * shift
        self.count = min(total, PAIR_MEMORY)


@dataclass
class Reliability:
    """How well the embeddings tell the objects of this clip apart, learned while tracking.

    Objects of one frame are different, and what motion leaves no doubt about is the same. Both kinds of pairs give
    the distribution of their similarities.

    Attributes:
        same: similarities of detections with their own track.
        different: similarities of detections with the tracks of the other objects in the frame.
    """

    same: RunningNormal = field(default_factory=RunningNormal)
    different: RunningNormal = field(default_factory=RunningNormal)

    def add(self, similarity: Floats) -> None:
        """Adds the similarities (n, n) of the tracks and detections of n objects in a frame."""
        own = np.eye(len(similarity), dtype=bool)
        self.same.add(similarity[own])
        self.different.add(similarity[~own])

    def chance(self, deviations: float) -> float:
        """Returns the similarity that is so many standard deviations above the mean of different objects."""
        known = self.different
        variance = (known.count * known.variance + FEW_PAIRS * SPREAD**2) / (known.count + FEW_PAIRS)
        return float(known.mean + deviations * variance**0.5)

    def evidence(self, similarity: Floats, unlike: Floats | float = 0.0) -> Floats:
        """Computes the log-likelihood ratio of similarities, the same object against another one, in nats.

        Both are normal with the same variance, so the ratio is linear in the similarity: its slope is the
        difference of the means over the variance, and about 0 where embeddings don't tell objects apart.

        Args:
            similarity: any shape.
            unlike: share of an object's views that are as other objects' are, so that such a view is no more
                evidence against the object than its logarithm.
        """
        pairs = min(self.same.count, self.different.count)
        gain = self.same.mean - self.different.mean
        if pairs < 2 or gain <= 0:
            return np.zeros_like(similarity)
        variance = (self.same.variance + self.different.variance) / 2 + 1e-4
        middle = (self.same.mean + self.different.mean) / 2
        ratio = pairs / (pairs + MIN_PAIRS) * gain / variance * (similarity - middle)
        with np.errstate(divide="ignore"):
            least = np.log(unlike)
        bounded: Floats = np.logaddexp(np.log1p(-np.asarray(unlike)) + ratio.clip(max=MAX_EVIDENCE), least)
        return bounded
