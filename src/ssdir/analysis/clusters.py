"""Groups of objects that look alike, by k-means on the directions of their codes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score
from sklearn.preprocessing import normalize

TRIED = range(2, 17)
SAMPLE = 2000
"""Objects by which a number of groups is judged: the silhouette compares each with each."""


@dataclass(frozen=True)
class Groups:
    """Groups, the largest first.

    Attributes:
        group: of each object, int64 (M,), from 0.
        distance: of each object to its group's centre, float64 (M,), 0 … 2.
        silhouette: how well separate they are, -1 … 1, by number of groups that was tried.
    """

    group: NDArray[np.int64]
    distance: NDArray[np.float64]
    silhouette: dict[int, float]

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self.group.max()) + 1


def group(
    codes: NDArray[np.floating[Any]],
    count: int | None = None,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Groups:
    """Groups codes (M, D).

    Args:
        codes: of two objects at least.
        count: how many groups; None takes the number, up to 16, of the largest silhouette.
        seed: of k-means.
        on_progress: called with (clusterings done, all clusterings).
    """
    directions = normalize(np.asarray(codes, dtype=np.float64))
    sample = directions[np.random.default_rng(seed).permutation(len(codes))[:SAMPLE]]
    tried = [count] if count is not None else [each for each in TRIED if each < len(sample)] or [1]
    scores = {}
    for done, each in enumerate(tried):
        on_progress(done, len(tried) + 1)
        scores[each] = _silhouette(sample, each, seed)
    on_progress(len(tried), len(tried) + 1)
    best = max(scores, key=lambda each: scores[each])
    kmeans = KMeans(best, n_init=10, random_state=seed).fit(directions)
    on_progress(len(tried) + 1, len(tried) + 1)
    order = np.argsort(-np.bincount(kmeans.labels_, minlength=best), kind="stable")
    distance = np.linalg.norm(directions - kmeans.cluster_centers_[kmeans.labels_], axis=1)
    return Groups(np.argsort(order)[kmeans.labels_], distance, scores)


def _silhouette(sample: NDArray[np.float64], count: int, seed: int) -> float:
    if not 1 < count < len(sample):
        return 0.0
    labels = KMeans(count, n_init=3, random_state=seed).fit_predict(sample)
    return float(silhouette_score(sample, labels)) if len(np.unique(labels)) > 1 else 0.0
