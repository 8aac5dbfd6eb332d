"""Measures whether categories form clusters without supervision."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix
from torch import Tensor

from ssdir.evaluation.protocols import Model, NamesClusters, device_of


def cluster_metrics(latents: Tensor, labels: Tensor, num_clusters: int, seed: int = 0) -> dict[str, float]:
    """Compares the clusters of k-means on latents, without standardising, with the true categories.

    Args:
        latents: float (n, D).
        labels: int64 (n,), true categories.
        num_clusters: k, the number of categories.
        seed: seed of the ten initialisations, of which the best is used.

    Returns:
        `clusters/nmi`, `clusters/ari` and `clusters/accuracy`, see `clustering_metrics`. Nothing if there are
        fewer objects than clusters.
    """
    if len(latents) < num_clusters:
        return {}
    kmeans = KMeans(num_clusters, n_init=10, random_state=seed)
    return clustering_metrics("clusters", kmeans.fit_predict(latents.double().numpy()), labels.numpy())


def clustering_metrics(
    name: str, clusters: NDArray[np.integer[Any]], truth: NDArray[np.generic]
) -> dict[str, float]:
    """Compares clusters with the true categories.

    Args:
        name: prefix of the metrics.
        clusters: integers (n,), n > 0, the cluster of each object.
        truth: (n,), true categories; there may be more or fewer than clusters.

    Returns:
        `nmi`, normalised mutual information; `ari`, adjusted Rand index; and `accuracy`, under the best one-to-one
        assignment of clusters to categories (Hungarian matching).
    """
    counts = contingency_matrix(truth, clusters)
    assigned = counts[linear_sum_assignment(counts, maximize=True)].sum()
    return {
        f"{name}/nmi": float(normalized_mutual_info_score(truth, clusters)),
        f"{name}/ari": float(adjusted_rand_score(truth, clusters)),
        f"{name}/accuracy": float(assigned / np.size(truth)),
    }


def mixture_metrics(model: Model, latents: Tensor, labels: Tensor) -> dict[str, float]:
    """Compares the classes of a model's mixture prior with the true categories.

    Args:
        model: the model.
        latents: float (n, D), its `z_what`.
        labels: int64 (n,), true categories.

    Returns:
        `clusters/mixture/nmi`, `clusters/mixture/ari` and `clusters/mixture/accuracy`, see `clustering_metrics`.
        Nothing for a model without a mixture prior, or without objects.
    """
    if not (isinstance(model, NamesClusters) and model.num_clusters and len(latents)):
        return {}
    clusters = model.cluster_probs(latents.float().to(device_of(model))).argmax(dim=1).cpu()
    return clustering_metrics("clusters/mixture", clusters.numpy(), labels.numpy())
