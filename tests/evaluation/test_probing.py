from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, precision_score, recall_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from ssdir.evaluation.probing import (
    LabelledLatents,
    fit_linear,
    fit_probe,
    knn_accuracy,
    probe_metrics,
    probe_scores,
    property_metrics,
)


def blobs(seed: int, n: int, size: int = 6, spread: float = 1.5, missed: int = 0) -> LabelledLatents:
    """Returns three overlapping classes on unlike scales, whose centres are the same for every seed."""
    g = torch.Generator().manual_seed(seed)
    centers = torch.randn(3, size, generator=torch.Generator().manual_seed(99))
    labels = torch.randint(0, 3, (n,), generator=g)
    latents = centers[labels] + spread * torch.randn(n, size, generator=g)
    scales = torch.logspace(-2, 2, size)
    return LabelledLatents(latents * scales, labels, torch.rand(n, generator=g), n + missed)


def noise(split: LabelledLatents, seed: int, size: int = 6) -> LabelledLatents:
    latents = torch.randn(len(split), size, generator=torch.Generator().manual_seed(seed))
    return LabelledLatents(latents, split.labels, split.sizes, split.num_true)


def scored(train: LabelledLatents, test: LabelledLatents) -> dict[str, float]:
    probe = fit_probe(train)
    assert probe is not None
    return probe_scores(probe, test)


@pytest.mark.parametrize("classes", [3, 2])
@pytest.mark.parametrize("correlated", [False, True])
def test_probe_is_the_optimum_of_scikit_learn(classes: int, correlated: bool) -> None:
    train, test = blobs(0, 6000, spread=2), blobs(1, 2000, spread=2)
    train, test = train[train.labels < classes], test[test.labels < classes]
    if correlated:  # Features that are nearly the sums of others, as those of neighbouring pixels are.
        mixed = torch.randn(6, 12, generator=torch.Generator().manual_seed(5))
        train, test = (replace(split, latents=split.latents @ mixed) for split in (train, test))
    scaler = StandardScaler().fit(train.latents.double().numpy())
    plain = LogisticRegression(max_iter=10_000, tol=1e-9).fit(
        scaler.transform(train.latents.double().numpy()), train.labels.numpy()
    )
    probe = fit_probe(train)
    assert probe is not None
    wanted = plain.predict_proba(scaler.transform(test.latents.double().numpy()))
    np.testing.assert_allclose(probe.predict_proba(test.latents.numpy()), wanted, atol=2e-3)
    np.testing.assert_allclose(probe[-1].coef_, plain.coef_, atol=0.02)
    predicted, truth = wanted.argmax(axis=1), test.labels.numpy()
    scores = scored(train, test)
    assert 0.5 < scores["accuracy"] < 0.99
    assert scores == pytest.approx(
        {
            "accuracy": float((predicted == truth).mean()),
            "precision": precision_score(truth, predicted, average="macro"),
            "recall": recall_score(truth, predicted, average="macro"),
            "f1": f1_score(truth, predicted, average="macro"),
            "accuracy_end_to_end": float((predicted == truth).mean()),
        },
        abs=1e-3,
    )


def test_labels_keep_their_numbers() -> None:
    train = blobs(0, 200)
    probe = fit_linear(train.latents.numpy(), train.labels.numpy() * 10 + 4)
    assert set(probe.predict(train.latents.numpy())) == {4, 14, 24}
    plain = fit_linear(train.latents.numpy(), train.labels.numpy()).predict(train.latents.numpy())
    np.testing.assert_array_equal(probe.predict(train.latents.numpy()), plain * 10 + 4)


def test_missed_objects_are_errors_end_to_end() -> None:
    train, test = blobs(0, 200), blobs(1, 100, missed=100)
    scores = scored(train, test)
    assert scores["accuracy_end_to_end"] == pytest.approx(scores["accuracy"] / 2)


def test_one_class_is_predicted() -> None:
    train = blobs(0, 20)
    scores = scored(replace(train, labels=torch.full((20,), 2)), blobs(1, 50))
    assert scores["accuracy"] == pytest.approx(float((blobs(1, 50).labels == 2).float().mean()))


def test_neighbours_are_plain_scikit_learn() -> None:
    train, test = blobs(2, 200), blobs(1, 600)
    scaler = StandardScaler().fit(train.latents.numpy())
    known = scaler.transform(train.latents.numpy()), train.labels.numpy()
    unseen = scaler.transform(test.latents.numpy()), test.labels.numpy()
    expected = {k: KNeighborsClassifier(k).fit(*known).score(*unseen) for k in (3, 10)}
    assert knn_accuracy(train, test) == pytest.approx(expected[10]) != pytest.approx(expected[3])
    assert knn_accuracy(train[torch.arange(200) < 3], test) > 0  # fewer objects than neighbours


def test_each_floor_is_probed_on_its_own_embeddings() -> None:
    train, test = blobs(0, 300), blobs(1, 200, missed=200)
    informative = {name: blobs(0, 300, spread=0.01) for name in ("pooled_features", "true_boxes")}
    informative_test = {name: blobs(1, 200, spread=0.01, missed=200) for name in ("pooled_features", "true_boxes")}
    blind = {name: noise(train, 0, 40) for name in ("raw_pixels", "random_encoder")}
    blind_test = {name: noise(test, 1, 40) for name in ("raw_pixels", "random_encoder")}
    metrics = probe_metrics(
        {"z_what": train, **informative, **blind}, {"z_what": test, **informative_test, **blind_test}
    )
    assert metrics["probe/pooled_features/accuracy"] == 1
    assert metrics["probe/pooled_features/accuracy_end_to_end"] == 0.5
    assert metrics["probe/true_boxes/accuracy"] == 1
    assert "probe/true_boxes/accuracy_end_to_end" not in metrics
    assert 0.2 < metrics["probe/raw_pixels/accuracy"] < 0.5
    assert 0.2 < metrics["probe/random_encoder/accuracy"] < 0.5
    assert 0.5 < metrics["probe/accuracy"] < 0.99
    assert {"probe/precision", "probe/recall", "probe/f1", "probe/knn_accuracy"} <= set(metrics)


def test_embeddings_without_information_score_chance() -> None:
    train, test = noise(blobs(0, 900), 0), noise(blobs(1, 900), 1)
    scores = scored(train, test)
    assert 0.25 < scores["accuracy"] < 0.42


@pytest.mark.parametrize("empty", ["train", "test"])
def test_without_detections_every_object_is_an_error(empty: str) -> None:
    some = blobs(0, 30)
    none = LabelledLatents(torch.zeros(0, 0), some.labels[:0], some.sizes[:0], 30)
    train, test = (none, some) if empty == "train" else (some, none)
    embeddings = [{"z_what": split, "pooled_features": split} for split in (train, test)]
    metrics = probe_metrics(*embeddings)
    assert metrics == {
        "probe/accuracy_end_to_end": 0.0,
        "probe/pooled_features/accuracy_end_to_end": 0.0,
    }


def test_the_majority_of_an_attribute_comes_from_the_training_split() -> None:
    def labelled(values: list[int]) -> LabelledLatents:
        return LabelledLatents(
            torch.zeros(len(values), 2), torch.tensor(values), torch.ones(len(values)), len(values)
        )

    train = labelled([1] * 9 + [0])
    # What is usual is learned from training, not from the split that is scored.
    assert property_metrics({"a": train}, {"a": labelled([0, 0, 0, 1])})["properties/a/majority"] == 0.25
    usual = property_metrics({"a": train}, {"a": labelled([1] * 7 + [0])})
    assert usual["properties/a/majority"] == usual["properties/a/accuracy"] == 7 / 8


def test_rows_must_agree() -> None:
    with pytest.raises(ValueError, match="labels and sizes"):
        LabelledLatents(torch.zeros(3, 2), torch.zeros(2), torch.zeros(3), 3)
