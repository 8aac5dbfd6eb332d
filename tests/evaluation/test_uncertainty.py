"""Metrics of what predicts a wrong probe equal those of scikit-learn and of counting pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from ssdir.evaluation.probing import LabelledLatents
from ssdir.evaluation.uncertainty import auroc, uncertainty_metrics


def labelled(latents: list[float], labels: list[int]) -> LabelledLatents:
    rows = torch.tensor(latents)[:, None]
    return LabelledLatents(rows, torch.tensor(labels), torch.ones(len(rows)), len(rows))


TRAIN = labelled([-1.2, -1.0, -0.9, -1.1, 0.9, 1.0, 1.1, 1.2], [0, 0, 0, 0, 1, 1, 1, 1])
TEST = labelled([-2.0, -1.0, -0.5, 0.5, 1.0, 2.0], [0, 1, 0, 0, 1, 1])
"""The probe parts them at about 0: rows 1 and 3 are wrong."""
WRONG = [False, True, False, True, False, False]


def test_predictors_are_ranked_as_by_scikit_learn() -> None:
    scores = torch.tensor([0.1, 0.9, 0.2, 0.3, 0.4, 0.0])
    metrics = uncertainty_metrics(TRAIN, TEST, {"any": scores, "opposite": -scores})
    assert metrics["uncertainty/any_auroc"] == pytest.approx(roc_auc_score(WRONG, scores.numpy()))
    assert metrics["uncertainty/any_auroc"] == pytest.approx(7 / 8)  # of 2 × 4 pairs, one is in the wrong order
    assert metrics["uncertainty/opposite_auroc"] == pytest.approx(1 / 8)


@pytest.mark.parametrize("seed", range(3))
def test_the_area_is_the_share_of_pairs_in_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    positive, scores = rng.random(40) < 0.3, rng.integers(0, 6, 40).astype(float)
    pairs = [
        1.0 if high > low else 0.5 if high == low else 0.0
        for high in scores[positive]
        for low in scores[~positive]
    ]
    assert auroc(positive, scores) == pytest.approx(np.mean(pairs))


def test_a_constant_has_no_information() -> None:
    assert uncertainty_metrics(TRAIN, TEST, {"sigma": torch.full((6,), 0.1)}) == {}


def test_without_errors_or_objects_there_is_nothing_to_predict() -> None:
    assert uncertainty_metrics(TRAIN, TRAIN, {"any": torch.arange(8.0)}) == {}
    nothing = labelled([], [])
    empty = LabelledLatents(nothing.latents.view(0, 1), nothing.labels.long(), nothing.sizes, 3)
    assert uncertainty_metrics(TRAIN, empty, {"any": torch.zeros(0)}) == {}
    assert uncertainty_metrics(empty, TEST, {"any": torch.arange(6.0)}) == {}


def test_each_object_needs_its_number() -> None:
    with pytest.raises(ValueError, match=r"any must be \(6,\)"):
        uncertainty_metrics(TRAIN, TEST, {"any": torch.zeros(5)})
