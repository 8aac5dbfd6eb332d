"""Classification of objects by their embeddings: linear probe, nearest neighbours, few labels per class."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from ssdir.evaluation.embedded import MISSED, Array, EmbeddedObjects, Integers, accuracies

Classifier: TypeAlias = Pipeline | KNeighborsClassifier

FEW_LABELS = (1, 5, 20)
NUM_DRAWS = 10
INVERSE_PENALTY = 10.0
"""C of all logistic regressions: the best for few labels between two halves of VOC's training split."""
_MAX_ITERATIONS = 2000


def fit_probe(embeddings: Array, labels: Integers, center: Array | None = None) -> Pipeline:
    """Fits a logistic regression on centred embeddings at unit length.

    Args:
        embeddings: float64 (M, D), M > 0.
        labels: int64 (M,); if all are the same, it predicts that one.
        center: float64 (D,), what to subtract; None takes the mean of the embeddings.
    """
    several = len(np.unique(labels)) > 1
    classifier = LogisticRegression(C=INVERSE_PENALTY, max_iter=_MAX_ITERATIONS) if several else DummyClassifier()
    scaler = StandardScaler(with_std=False).fit(embeddings if center is None else center[None])
    directions = Normalizer().fit_transform(scaler.transform(embeddings))
    with warnings.catch_warnings():  # With one object of each class, scikit-learn suspects numbers.
        warnings.filterwarnings("ignore", message="The number of unique classes", category=UserWarning)
        classifier.fit(directions, labels)
    return make_pipeline(scaler, Normalizer(), classifier)


def fit_classifiers(train: EmbeddedObjects) -> dict[str, Classifier]:
    """Fits the classifiers `probe` (see `fit_probe`), `knn_10` and `knn_1`.

    The nearest neighbours are those of the largest cosine, without centring; a vote is weighted by the inverse of
    its cosine distance.

    Args:
        train: the objects to learn from, at least one.
    """
    classifiers: dict[str, Classifier] = {"probe": fit_probe(train.embeddings, train.labels)}
    for count in (10, 1):
        neighbours = KNeighborsClassifier(
            min(count, len(train)), weights="distance", metric="cosine", algorithm="brute"
        )
        classifiers[f"knn_{count}"] = neighbours.fit(train.embeddings, train.labels)
    return classifiers


def classifier_metrics(classifiers: dict[str, Classifier], test: EmbeddedObjects) -> dict[str, float]:
    """Returns `NAME/accuracy` and `NAME/balanced` of classifiers, see `accuracies`; empty without objects."""
    if not len(test):
        return {}
    return {
        f"{name}/{score}": value
        for name, classifier in classifiers.items()
        for score, value in accuracies(test.labels, classifier.predict(test.embeddings)).items()
    }


def detected_metrics(
    classifiers: dict[str, Classifier], detected: Array, match: Integers, labels: Integers
) -> dict[str, float]:
    """Scores classifiers at detected boxes.

    Args:
        classifiers: classifiers fitted at true boxes, see `fit_classifiers`.
        detected: float64 (M, D), the embeddings of detected objects.
        match: int64 (M,), the true object that each is matched to, or -1.
        labels: int64 (T,), the classes of the true objects.

    Returns:
        `NAME/accuracy` and `NAME/balanced` over matched objects; `NAME/accuracy_end_to_end` and
        `NAME/balanced_end_to_end` over all true objects, where a missed object counts as an error; `recall`, the
        share of true objects that is matched.
    """
    is_matched = match >= 0
    scores = {"recall": float(is_matched.sum()) / len(labels)}
    for name, classifier in classifiers.items():
        predicted = np.full(len(labels), MISSED)
        if is_matched.any():
            predicted[match[is_matched]] = classifier.predict(detected[is_matched])
            matched = np.unique(match[is_matched])
            scores |= {
                f"{name}/{score}": v for score, v in accuracies(labels[matched], predicted[matched]).items()
            }
        every = accuracies(labels, predicted)
        scores |= {f"{name}/{score}_end_to_end": value for score, value in every.items()}
    return scores


def few_label_metrics(
    train: EmbeddedObjects,
    test: EmbeddedObjects,
    counts: Sequence[int] = FEW_LABELS,
    seeds: Sequence[int] = range(NUM_DRAWS),
) -> dict[str, float]:
    """Scores linear probes that learn from a few randomly sampled objects of each class.

    Embeddings are centred by the mean of the whole split, which needs no labels.

    Args:
        train: the objects to sample from; a class with fewer objects than the count contributes all of them.
        test: the objects to classify, at least one.
        counts: numbers of objects of each class to learn from.
        seeds: one seed per random sample.

    Returns:
        `few_labels/COUNT/accuracy` and `balanced`, means over the seeds, each with `…_std`, the population
        standard deviation over the seeds.
    """
    metrics, center = {}, train.embeddings.mean(axis=0)
    for count in counts:
        runs = [_few_labels(train, test, count, center, seed) for seed in seeds]
        for score in runs[0]:
            values = [run[score] for run in runs]
            metrics[f"few_labels/{count}/{score}"] = float(np.mean(values))
            metrics[f"few_labels/{count}/{score}_std"] = float(np.std(values))
    return metrics


def _few_labels(
    train: EmbeddedObjects, test: EmbeddedObjects, count: int, center: Array, seed: int
) -> dict[str, float]:
    """Scores a probe that learns from one random sample."""
    order = np.random.default_rng(seed).permutation(len(train))
    sampled = np.concatenate([order[train.labels[order] == label][:count] for label in np.unique(train.labels)])
    probe = fit_probe(train.embeddings[sampled], train.labels[sampled], center)
    return accuracies(test.labels, probe.predict(test.embeddings))
