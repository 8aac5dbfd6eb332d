"""Does a model know when its code of an object misleads?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

from ssdir.evaluation.probing import LabelledLatents, Probe, fit_probes


def uncertainty_metrics(
    train: LabelledLatents,
    test: LabelledLatents,
    predictors: Mapping[str, Tensor],
    seeds: Sequence[int],
    probes: Sequence[Probe] | None = None,
) -> dict[str, float]:
    """Measures how well a property of an object predicts that the linear probe is wrong about it.

    Args:
        train: matched objects that the probes learn from.
        test: n matched objects to be wrong about.
        predictors: by name, float (n,), row-aligned with `test`: larger where an error is expected.
        seeds: of the training objects drawn; figures are means over these.
        probes: where they are fitted already.

    Returns:
        `uncertainty/NAME_auroc`, the area under the ROC curve: 0.5 is chance, 1 is perfect. A predictor that is
        the same for all objects (such as a σ that is a constant of the model) says nothing and is left out, and
        so is everything where probes are always or never right.

    Raises:
        ValueError: if a predictor is not one number for each object.
    """
    for name, values in predictors.items():
        if values.shape != (len(test),):
            raise ValueError(f"{name} must be ({len(test)},), got {tuple(values.shape)}")
    if not len(test):
        return {}
    if probes is None:
        probes = fit_probes(train, seeds)
    latents, labels = test.latents.double().numpy(), test.labels.numpy()
    wrong = [probe.predict(latents) != labels for probe in probes]
    metrics = {}
    for name, values in predictors.items():
        areas = [area for errors in wrong if (area := auroc(errors, values.double().numpy())) is not None]
        if areas:
            metrics[f"uncertainty/{name}_auroc"] = float(np.mean(areas))
    return metrics


def auroc(positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> float | None:
    """Probability that a positive has the larger score of a pair, ties counting half; None where undefined.

    Args:
        positive: (n,).
        scores: (n,); if they are all the same, they rank nothing, and the area is undefined.
    """
    if positive.all() or not positive.any() or np.ptp(scores) == 0:
        return None
    return float(roc_auc_score(positive, scores))
