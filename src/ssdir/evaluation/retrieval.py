"""Retrieval metrics: how many of the objects nearest to a query, in other images, have its class."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import average_precision_score

from ssdir.evaluation.embedded import EmbeddedObjects

NEAREST = 10


def retrieval_metrics(queries: EmbeddedObjects, gallery: EmbeddedObjects) -> dict[str, float]:
    """Ranks, for each query, the gallery's objects in other images by cosine; objects of its class are relevant.

    Args:
        queries: the objects to search for.
        gallery: the objects to search in, which may include the queries; images are numbered in common.

    Returns:
        `retrieval/map`, the mean average precision of the whole ranking, and `retrieval/precision_at_10`, the
        share of the first ten that are relevant: means over the queries that have a relevant object. Empty if
        none has.
    """
    averages, shares = [], []
    entries = gallery.directions
    for direction, label, image in zip(queries.directions, queries.labels, queries.image_index, strict=True):
        elsewhere = gallery.image_index != image
        cosines = entries[elsewhere] @ direction
        relevant = gallery.labels[elsewhere] == label
        if not relevant.any():
            continue
        averages.append(average_precision_score(relevant, cosines))
        first = np.argsort(-cosines, kind="stable")[:NEAREST]
        shares.append(relevant[first].mean())
    if not averages:
        return {}
    return {"retrieval/map": float(np.mean(averages)), "retrieval/precision_at_10": float(np.mean(shares))}
