"""Uncertainty metrics: how well a model's own signals predict that an object's embedding is misclassified."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

from ssdir.evaluation.probing import LabelledLatents, Probe, fit_probe


def uncertainty_metrics(
    train: LabelledLatents,
    test: LabelledLatents,
    predictors: Mapping[str, Tensor],
    probe: Probe | None = None,
) -> dict[str, float]:
    """Measures how well a property of an object predicts that the linear probe misclassifies it.

    Args:
        train: matched objects that the probe learns from.
        test: n matched objects that the probe classifies.
        predictors: by name, float (n,), row-aligned with `test`: larger where an error is expected.
        probe: the probe, if it is already fitted.

    Returns:
        `uncertainty/NAME_auroc`, the area under the ROC curve: 0.5 is chance, 1 is perfect. A predictor that is
        the same for all objects (such as a σ that is a constant of the model) is left out, and so are all metrics
        if the probe is always or never right.

    Raises:
        ValueError: if a predictor is not one number for each object.
    """
    for name, values in predictors.items():
        if values.shape != (len(test),):
            raise ValueError(f"{name} must be ({len(test)},), got {tuple(values.shape)}")
    probe = fit_probe(train) if probe is None else probe
    if probe is None or not len(test):
        return {}
    wrong = probe.predict(test.latents.numpy()) != test.labels.numpy()
    areas = {name: auroc(wrong, values.double().numpy()) for name, values in predictors.items()}
    return {f"uncertainty/{name}_auroc": area for name, area in areas.items() if area is not None}


def auroc(positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> float | None:
    """Computes the probability that a positive scores higher than a negative, ties counting half.

    It is None where it is undefined.

    Args:
        positive: (n,).
        scores: (n,); if they are all the same, they rank nothing, and the area is undefined.
    """
    if positive.all() or not positive.any() or np.ptp(scores) == 0:
        return None
    return float(roc_auc_score(positive, scores))
