"""Measures one way to embed boxes on one data set of photographs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssdir.console import Advance
from ssdir.evaluation.classifiers import (
    classifier_metrics,
    detected_metrics,
    few_label_metrics,
    fit_classifiers,
    fit_probe,
)
from ssdir.evaluation.clusters import cluster_metrics
from ssdir.evaluation.embedded import EmbeddedObjects, Integers, accuracies
from ssdir.evaluation.matching import match_greedy
from ssdir.evaluation.retrieval import retrieval_metrics
from ssdir.evaluation.robustness import CHANGES, same_object_cosine, unrelated_cosine
from ssdir.inference.predictor import Predictor
from ssdir.objects import Objects
from ssdir.reproduce.photos.embedders import Embedder
from ssdir.reproduce.photos.photographs import Fold, Photographs

VERSION = 1
"""Counts up where the measurement changes, so that everything is measured again."""
CLUSTER_SEEDS = range(5)
BYTES_PER_VALUE = 4
"""Bytes per dimension of an embedding, stored as float32."""
_IMAGES_AT_ONCE = 8

Features = NDArray[np.float32]


@dataclass(frozen=True)
class Detections:
    """The objects detected in the tested photographs.

    Attributes:
        features: float32 (M, F), at the detected boxes.
        image_index: int64 (M,), the photograph of each.
        match: int64 (M,), the true object, counted over all photographs, that each is matched to at an IoU of at
            least 0.5, one to one; -1 for none.
    """

    features: Features
    image_index: Integers
    match: Integers


@dataclass(frozen=True)
class PhotographFeatures:
    """The features of all objects of a data set.

    Attributes:
        clean: float32 (T, F), of the true boxes of all photographs.
        changed: by name of the change, float32 (T, F), of the true boxes of tested photographs; other rows are 0.
        detected: the detected objects; None without a detector.
    """

    clean: Features
    changed: Mapping[str, Features]
    detected: Detections | None


def compute_features(
    embedder: Embedder, photographs: Photographs, detector: Predictor | None, progress: Advance
) -> PhotographFeatures:
    """Computes an embedder's features of a data set: at true boxes, in changed photographs, at detected boxes.

    Args:
        embedder: the embedder. One that detects is measured at its own boxes.
        photographs: the data set.
        detector: detects for embedders that don't; None leaves detected boxes out.
        progress: called with (images done, all images, what is done).
    """
    everything, tested = np.arange(len(photographs.paths)), photographs.tested
    of_tested = np.isin(photographs.image_index, tested)
    clean = _features(embedder, photographs, everything, None, progress)
    changed = {}
    for name in CHANGES:
        changed[name] = np.zeros_like(clean)
        changed[name][of_tested] = _features(embedder, photographs, tested, name, progress)
    return PhotographFeatures(clean, changed, _detect(embedder, photographs, detector, progress))


def _features(
    embedder: Embedder, photographs: Photographs, chosen: Integers, change: str | None, progress: Advance
) -> Features:
    parts: list[Features] = []
    done = 0
    for images, objects in photographs.batches(chosen, _IMAGES_AT_ONCE, CHANGES[change] if change else None):
        parts.append(embedder.features(images, objects))
        done += len(images)
        progress(done, len(chosen), f"photographs, {change}" if change else "photographs")
    return np.concatenate(parts)


def _detect(
    embedder: Embedder, photographs: Photographs, detector: Predictor | None, progress: Advance
) -> Detections | None:
    if embedder.detects:
        detector = None
    elif detector is None:
        return None
    first_object = np.concatenate([[0], np.cumsum([len(objects) for objects in photographs.objects])])
    features, image_index, match = list[Features](), list[Integers](), list[Integers]()
    tested, done = photographs.tested, 0
    for images, truth in photographs.batches(tested, _IMAGES_AT_ONCE):
        if detector is None:
            objects = embedder.detect(images)
        else:
            objects = detector.encode(images)
            objects = objects.replace(z_what=torch.from_numpy(embedder.features(images, objects)))
        assert objects.z_what is not None
        of_batch = tested[done : done + len(images)]
        rows = torch.from_numpy(np.concatenate([_counted(first_object, row) for row in of_batch]))
        features.append(objects.z_what.numpy())
        image_index.append(of_batch[objects.image_index.numpy()])
        match.append(_matched_rows(objects, truth, rows).numpy())
        done += len(images)
        progress(done, len(tested), "photographs, detected boxes")
    return Detections(np.concatenate(features), np.concatenate(image_index), np.concatenate(match))


def _counted(first_object: Integers, image: int) -> Integers:
    return np.arange(first_object[image], first_object[image + 1])


def _matched_rows(detected: Objects, truth: Objects, rows: Tensor) -> Tensor:
    """Returns, for each detected object, the row of the true one that it is matched to, or -1."""
    match = match_greedy(detected, truth)
    if not len(rows):
        return match
    return torch.where(match >= 0, rows[match.clamp(min=0)], match)


def measure_fold(
    embedder: Embedder, photographs: Photographs, features: PhotographFeatures, fold: Fold, seed: int
) -> dict[str, float]:
    """Fits an embedder and classifiers on the training images of a fold, and scores them on its test images.

    Returns:
        Metrics by name. Those that need several classes are left out where there is one.
    """
    labels, image_index = photographs.labels, photographs.image_index
    in_train, in_test = np.isin(image_index, fold.train), np.isin(image_index, fold.test)
    embedder.fit(features.clean[in_train], seed)

    def embedded(values: Features, chosen: NDArray[np.bool_]) -> EmbeddedObjects:
        return EmbeddedObjects(embedder.transform(values[chosen]), labels[chosen], image_index[chosen])

    train, test = embedded(features.clean, in_train), embedded(features.clean, in_test)
    changed = {name: embedded(values, in_test) for name, values in features.changed.items()}
    metrics = {f"robustness/{name}/cosine": same_object_cosine(test, objects) for name, objects in changed.items()}
    unrelated = unrelated_cosine(test, seed)
    metrics |= {} if unrelated is None else {"robustness/unrelated_cosine": unrelated}
    metrics["size/dimensions"] = train.embeddings.shape[1]
    metrics["size/bytes_per_object"] = BYTES_PER_VALUE * train.embeddings.shape[1]
    metrics |= _attribute_metrics(photographs, train, test, in_train, in_test)
    if len(np.unique(labels)) > 1:
        metrics |= _class_metrics(train, test, changed, seed)
        metrics |= _detected_metrics(embedder, features.detected, fold, train, labels, in_test)
    return metrics


def _class_metrics(
    train: EmbeddedObjects, test: EmbeddedObjects, changed: Mapping[str, EmbeddedObjects], seed: int
) -> dict[str, float]:
    """Computes the metrics that need several classes, at true boxes."""
    classifiers = fit_classifiers(train)
    scores = {f"true_boxes/{name}": value for name, value in classifier_metrics(classifiers, test).items()}
    for name, objects in changed.items():
        predicted = classifiers["knn_10"].predict(objects.embeddings)
        scores[f"robustness/{name}/knn_10"] = accuracies(objects.labels, predicted)["accuracy"]
    scores |= retrieval_metrics(test, EmbeddedObjects.concatenate([train, test]))
    scores |= few_label_metrics(train, test)
    directions, labels = torch.from_numpy(test.directions), torch.from_numpy(test.labels)
    runs = [cluster_metrics(directions, labels, len(np.unique(test.labels)), seed) for seed in CLUSTER_SEEDS]
    if nmi := [run["clusters/nmi"] for run in runs if run]:
        scores |= {"clusters/nmi": float(np.mean(nmi)), "clusters/nmi_std": float(np.std(nmi))}
    return scores


def _detected_metrics(
    embedder: Embedder,
    detected: Detections | None,
    fold: Fold,
    train: EmbeddedObjects,
    labels: Integers,
    in_test: NDArray[np.bool_],
) -> dict[str, float]:
    """Scores classifiers that learned at true boxes on detected boxes; empty without a detector."""
    if detected is None:
        return {}
    chosen = np.isin(detected.image_index, fold.test)
    embeddings = embedder.transform(detected.features[chosen])
    # The position of each true object among those of the fold's test images.
    position = np.cumsum(in_test) - 1
    match = detected.match[chosen]
    match = np.where(match >= 0, position[match], match)
    scores = detected_metrics(fit_classifiers(train), embeddings, match, labels[in_test])
    return {f"detected/{name}": value for name, value in scores.items()}


def _attribute_metrics(
    photographs: Photographs,
    train: EmbeddedObjects,
    test: EmbeddedObjects,
    in_train: NDArray[np.bool_],
    in_test: NDArray[np.bool_],
) -> dict[str, float]:
    """Computes balanced accuracies of linear probes of attributes, such as whether a face is occluded."""
    scores = {}
    for name, values in photographs.attributes.items():
        probe = fit_probe(train.embeddings, values[in_train])
        scores[f"attributes/{name}"] = accuracies(values[in_test], probe.predict(test.embeddings))["balanced"]
    return scores


def mean_over_folds(folds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns means over folds, and as `…_std` their population standard deviations; one fold as it is."""
    if len(folds) == 1:
        return dict(folds[0])
    means = {}
    for name in dict.fromkeys(name for fold in folds for name in fold):
        values = [fold[name] for fold in folds if name in fold]
        if not name.endswith("_std"):
            means[name], means[f"{name}_std"] = float(np.mean(values)), float(np.std(values))
    return means
