"""Measures whether categories form clusters without supervision."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix
from torch import Tensor


def cluster_metrics(latents: Tensor, labels: Tensor, num_clusters: int, seed: int = 0) -> dict[str, float]:
    """Compares the clusters of k-means on latents, without standardising, with the true categories.

    Args:
        latents: float (n, D).
        labels: int64 (n,), true categories.
        num_clusters: k, the number of categories.
        seed: seed of the ten initialisations, of which the best is used.

    Returns:
        `clusters/nmi`, `clusters/ari`, and `clusters/accuracy`, under the best one-to-one assignment of
        clusters to categories. Nothing if there are fewer objects than clusters.
    """
    if len(latents) < num_clusters:
        return {}
    kmeans = KMeans(num_clusters, n_init=10, random_state=seed)
    clusters, truth = kmeans.fit_predict(latents.double().numpy()), labels.numpy()
    counts = contingency_matrix(truth, clusters)
    assigned = counts[linear_sum_assignment(counts, maximize=True)].sum()
    return {
        "clusters/nmi": float(normalized_mutual_info_score(truth, clusters)),
        "clusters/ari": float(adjusted_rand_score(truth, clusters)),
        "clusters/accuracy": float(assigned / np.size(truth)),
    }
