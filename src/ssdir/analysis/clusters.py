"""Clusters objects: by k-means on their embeddings at unit length, or by their model's mixture prior."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score
from sklearn.preprocessing import normalize

from ssdir.analysis.output import AnalysisOutput
from ssdir.analysis.tracks import read_entries
from ssdir.console import Advance, no_progress
from ssdir.errors import InputError
from ssdir.identity import Identity
from ssdir.inference.engines import load_encoder, load_identity
from ssdir.inference.predictor import Predictor
from ssdir.models.detected.vae import DetectedVAE
from ssdir.models.shipped import model_source
from ssdir.store.info import read_info

TRIED = range(2, 17)
SAMPLE = 2000
"""Maximum number of objects for the silhouette score, whose time grows with the square of their number."""


@dataclass(frozen=True)
class Clusters:
    """Clusters, the largest first.

    Attributes:
        labels: cluster of each object, int64 (M,), from 0.
        distances: distance of each object to its cluster's centre, float64 (M,), 0 … 2.
        silhouettes: mean silhouette score, -1 … 1 (larger is better separated), by number of clusters tried.
    """

    labels: NDArray[np.int64]
    distances: NDArray[np.float64]
    silhouettes: dict[int, float]

    @property
    def count(self) -> int:
        """The number of clusters."""
        return int(self.labels.max()) + 1


def cluster_file(
    objects: str | Path,
    output: AnalysisOutput,
    count: int | None = None,
    model: str | None = None,
    seed: int = 0,
    on_progress: Advance = no_progress,
    per_view: bool = False,
    mixture: bool = False,
) -> dict[str, int]:
    """Clusters the objects of a file.

    The output has the columns `cluster` and, by k-means, `distance_to_center`, or, by a mixture prior,
    `cluster_prob`, the probability of the cluster.

    Args:
        objects: file or folder that `ssdir encode` or `ssdir track` wrote.
        output: files to write; the image grid shows the objects nearest to each cluster's centre, or the
            most probable ones.
        count: number of clusters, see `cluster_embeddings`.
        model: the model that encoded, where the file no longer names it.
        seed: of k-means.
        on_progress: called with (clusterings done, all clusterings).
        per_view: of a file of tracks, cluster every view, not the track as one, see `ssdir.analysis.tracks`.
        mixture: take the components of the model's mixture prior for clusters, numbered as they are there; the
            model is loaded. There is nothing to choose then: `count` and `seed` are not used.

    Returns:
        The number of objects of each cluster.

    Raises:
        InputError: as `read_entries`; if there are fewer objects than clusters; if `mixture` is asked for with
            `count`, or of a model without one.
    """
    if mixture:
        if count is not None:
            raise InputError("a mixture prior has its own number of clusters: leave out -k, or --mixture")
        return _cluster_by_mixture(objects, output, model, per_view)
    stored = read_entries(objects, load_identity(model), 2, per_view)
    if count is not None and count > len(stored):
        raise InputError(f"'{objects}' holds {len(stored)} objects, they can't make {count} clusters")
    clusters = cluster_embeddings(stored.z_what, count, seed, on_progress)
    nearest = np.argsort(clusters.distances, kind="stable")
    members = {f"cluster {each}": nearest[clusters.labels[nearest] == each] for each in range(clusters.count)}
    columns = {"cluster": clusters.labels, "distance_to_center": clusters.distances}
    output.write(stored, columns, members, lambda row: f"row {row}")
    return {name: len(rows) for name, rows in members.items()}


def _cluster_by_mixture(
    objects: str | Path, output: AnalysisOutput, model: str | None, per_view: bool
) -> dict[str, int]:
    """Clusters the objects of a file by the mixture prior of the model that encoded them."""
    name = model or read_info(objects).model
    encoder = load_encoder(name, device="cpu")
    vae = encoder.model if isinstance(encoder, Predictor) else None
    if not (isinstance(vae, DetectedVAE) and vae.num_clusters):
        raise InputError(
            f"'{name}' has no mixture prior: leave out --mixture, and k-means makes the clusters; of an exported "
            "model, name the folder it was made of by --model"
        )
    stored = read_entries(objects, Identity.of(model_source(name), encoder), 1, per_view)
    probabilities = vae.cluster_probs(torch.tensor(stored.z_what)).numpy().astype(np.float64)
    labels, best = probabilities.argmax(axis=1), probabilities.max(axis=1)
    likely = np.argsort(-best, kind="stable")
    members = {f"cluster {each}": likely[labels[likely] == each] for each in range(vae.num_clusters)}
    output.write(stored, {"cluster": labels, "cluster_prob": best}, members, lambda row: f"row {row}")
    return {title: len(rows) for title, rows in members.items()}


def cluster_embeddings(
    z_what: NDArray[np.floating[Any]],
    count: int | None = None,
    seed: int = 0,
    on_progress: Advance = no_progress,
) -> Clusters:
    """Clusters embeddings (M, D).

    Args:
        z_what: embeddings of two objects at least.
        count: number of clusters; None takes the number, up to 16, with the largest silhouette.
        seed: of k-means.
        on_progress: called with (clusterings done, all clusterings).
    """
    directions = normalize(np.asarray(z_what, dtype=np.float64))
    sample = directions[np.random.default_rng(seed).permutation(len(z_what))[:SAMPLE]]
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
    distances = np.linalg.norm(directions - kmeans.cluster_centers_[kmeans.labels_], axis=1)
    return Clusters(np.argsort(order)[kmeans.labels_], distances, scores)


def _silhouette(sample: NDArray[np.float64], count: int, seed: int) -> float:
    if not 1 < count < len(sample):
        return 0.0
    labels = KMeans(count, n_init=3, random_state=seed).fit_predict(sample)
    return float(silhouette_score(sample, labels)) if len(np.unique(labels)) > 1 else 0.0
