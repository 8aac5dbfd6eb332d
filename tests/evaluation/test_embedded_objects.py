"""Metrics of embedded objects equal those of other implementations and of plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score
from sklearn.metrics.pairwise import cosine_similarity

from ssdir.evaluation.classifiers import (
    classifier_metrics,
    detected_metrics,
    few_label_metrics,
    fit_classifiers,
    fit_probe,
)
from ssdir.evaluation.embedded import EmbeddedObjects, accuracies
from ssdir.evaluation.retrieval import retrieval_metrics


def clouds(count: int, seed: int, spread: float = 0.1, classes: int = 3) -> EmbeddedObjects:
    """Returns objects whose embeddings have the direction of their class, at any length."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    directions = np.eye(classes, 8)[labels] + spread * rng.standard_normal((count, 8))
    return EmbeddedObjects(directions * rng.uniform(0.1, 10, (count, 1)), labels, np.arange(count) // 4)


def test_accuracies_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 4, 50), rng.integers(0, 4, 50)
    scores = accuracies(labels, predicted)
    assert scores["accuracy"] == pytest.approx((labels == predicted).mean())
    assert scores["balanced"] == pytest.approx(balanced_accuracy_score(labels, predicted))


def test_a_class_that_is_only_predicted_does_not_count_in_the_balance() -> None:
    assert accuracies(np.array([0, 0, 1, 1]), np.array([0, 5, 1, -1])) == {"accuracy": 0.5, "balanced": 0.5}


def test_embeddings_must_be_finite_and_row_aligned() -> None:
    with pytest.raises(ValueError, match="NaN or infinity in 1 of 2"):
        EmbeddedObjects(np.array([[1.0], [np.nan]]), np.zeros(2, np.int64), np.zeros(2, np.int64))
    with pytest.raises(ValueError, match="must be"):
        EmbeddedObjects(np.zeros((2, 3)), np.zeros(3, np.int64), np.zeros(2, np.int64))


def test_classifiers_go_by_direction_and_not_by_length() -> None:
    scores = classifier_metrics(fit_classifiers(clouds(60, 0)), clouds(30, 1))
    assert set(scores.values()) == {1.0}
    assert {name.split("/")[0] for name in scores} == {"probe", "knn_10", "knn_1"}


def test_nearest_neighbour_is_that_of_the_largest_cosine() -> None:
    train, test = clouds(40, 0, spread=1.5), clouds(30, 1, spread=1.5)
    nearest = cosine_similarity(test.embeddings, train.embeddings).argmax(axis=1)
    assert (fit_classifiers(train)["knn_1"].predict(test.embeddings) == train.labels[nearest]).all()


def test_probe_is_centred_before_directions_are_taken() -> None:
    """Without centring, a large common part would make all directions alike."""
    train, test = clouds(60, 0), clouds(30, 1)
    probe = fit_probe(train.embeddings / 100 + 50, train.labels)
    assert (probe.predict(test.embeddings / 100 + 50) == test.labels).mean() > 0.9


def test_probe_of_one_class_predicts_it() -> None:
    assert fit_probe(np.ones((2, 3)), np.array([4, 4])).predict(np.zeros((1, 3))) == [4]


def test_missed_objects_are_wrong_end_to_end_only() -> None:
    train = clouds(60, 0)
    labels = np.array([0, 1, 2, 0])
    detected = np.eye(3, 8)[[2, 0, 1, 1]]
    # Detected: object 2, as class 2; object 0, as class 0; a false alarm; object 3 of class 0, as class 1.
    scores = detected_metrics(fit_classifiers(train), detected, np.array([2, 0, -1, 3]), labels)
    assert scores["recall"] == 0.75
    assert scores["knn_1/accuracy"] == pytest.approx(2 / 3)
    assert scores["knn_1/balanced"] == pytest.approx((0.5 + 1) / 2)
    assert scores["knn_1/accuracy_end_to_end"] == 0.5
    assert scores["knn_1/balanced_end_to_end"] == pytest.approx((0.5 + 0 + 1) / 3)


def test_nothing_detected() -> None:
    scores = detected_metrics(fit_classifiers(clouds(60, 0)), np.zeros((0, 8)), np.zeros(0, int), np.array([0, 1]))
    assert scores["probe/accuracy_end_to_end"] == 0
    assert "probe/accuracy" not in scores


def test_few_labels_learn_from_as_many_of_each_class() -> None:
    """Each class has two clusters: one label shows one of them, and twenty labels show both."""
    rng = np.random.default_rng(0)

    def two_clusters(count: int) -> EmbeddedObjects:
        labels, place = np.arange(count) % 2, rng.integers(0, 2, count)
        directions = np.eye(4, 6)[2 * labels + place] + 0.05 * rng.standard_normal((count, 6))
        return EmbeddedObjects(directions, labels, np.arange(count))

    train, test = two_clusters(200), two_clusters(100)
    scores = few_label_metrics(train, test)
    assert scores["few_labels/1/accuracy"] < 0.95 <= scores["few_labels/20/accuracy"]
    assert scores["few_labels/1/accuracy_std"] > scores["few_labels/20/accuracy_std"]
    assert scores == few_label_metrics(train, test)


def test_few_labels_take_what_a_rare_class_has() -> None:
    train = clouds(60, 0)
    rare = train[np.flatnonzero((train.labels != 2) | (np.arange(60) == 2))]
    assert few_label_metrics(rare, clouds(30, 1), [20])["few_labels/20/accuracy"] > 0.8


def test_retrieval_is_that_of_a_loop() -> None:
    gallery = clouds(40, 0, spread=1.0)
    queries = gallery[np.arange(0, 40, 5)]
    averages, shares = [], []
    for embedding, label, image in zip(queries.embeddings, queries.labels, queries.image_index, strict=True):
        ranked = sorted(
            (
                (cosine_similarity(embedding[None], other[None])[0, 0], each == label)
                for other, each, there in zip(gallery.embeddings, gallery.labels, gallery.image_index, strict=True)
                if there != image
            ),
            reverse=True,
        )
        hits = [relevant for _, relevant in ranked]
        averages.append(np.mean([sum(hits[: rank + 1]) / (rank + 1) for rank in range(len(hits)) if hits[rank]]))
        shares.append(sum(hits[:10]) / 10)
    metrics = retrieval_metrics(queries, gallery)
    assert metrics["retrieval/map"] == pytest.approx(np.mean(averages))
    assert metrics["retrieval/precision_at_10"] == pytest.approx(np.mean(shares))


def test_a_query_retrieves_nothing_from_its_own_image() -> None:
    objects = clouds(4, 0, classes=1)
    assert retrieval_metrics(objects, objects) == {}
