"""Linear and nearest-neighbour probes of an object's category from frozen embeddings (paper, Table 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, precision_recall_fscore_support
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from ssdir.evaluation.logistic import fit_logistic

Probe: TypeAlias = Pipeline
Array: TypeAlias = NDArray[np.float32] | NDArray[np.float64]

MAX_NEIGHBOUR_TRAIN = 10_000
NEIGHBOURS = 10

LATENTS = "z_what"
TRUE_BOXES = "true_boxes"
RAW_PIXELS = "raw_pixels"
POOLED_FEATURES = "pooled_features"
LABELS = "labels"
RANDOM_ENCODER = "random_encoder"
LARGEST_OVERLAP = "largest_overlap"
PROBE_SCORES = ("accuracy", "precision", "recall", "f1", "accuracy_end_to_end")


@dataclass(frozen=True)
class LabelledLatents:
    """Embeddings of the objects of a split that are matched to a true object.

    Attributes:
        latents: float (n, D).
        labels: int64 (n,), the true category.
        sizes: float (n,), longer side of the true box, relative to the image.
        num_true: number of true objects of the split, including missed ones.
    """

    latents: Tensor
    labels: Tensor
    sizes: Tensor
    num_true: int

    def __post_init__(self) -> None:
        n = len(self.latents)
        if self.latents.ndim != 2 or self.labels.shape != (n,) or self.sizes.shape != (n,):
            raise ValueError(
                f"latents must be (n, D), labels and sizes (n,), got {tuple(self.latents.shape)}, "
                f"{tuple(self.labels.shape)} and {tuple(self.sizes.shape)}"
            )

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, mask: Tensor) -> LabelledLatents:
        """Selects objects by mask (n,); only those count as true ones."""
        return LabelledLatents(self.latents[mask], self.labels[mask], self.sizes[mask], int(mask.sum()))


def fit_probe(train: LabelledLatents) -> Probe | None:
    """Fits a logistic regression (C = 1) on standardised latents; returns None without objects to learn from."""
    return fit_linear(train.latents.numpy(), train.labels.numpy()) if len(train) else None


def fit_linear(latents: Array, labels: NDArray[np.int64]) -> Probe:
    """Fits a logistic regression (C = 1) on standardised latents.

    It is the optimum of scikit-learn's problem, see `fit_logistic`.

    Args:
        latents: float (n, D), n > 0.
        labels: int64 (n,).

    Returns:
        A fitted scikit-learn pipeline. If all labels are the same, it predicts that one.
    """
    classes, numbers = np.unique(labels, return_inverse=True)
    scaler = StandardScaler().fit(latents)
    if len(classes) == 1:
        return make_pipeline(scaler, DummyClassifier().fit(latents, labels))
    weights, bias = fit_logistic(scaler.transform(latents).astype(np.float32, copy=False), numbers, len(classes))
    if len(classes) == 2:  # scikit-learn then has one row, of the second class.
        weights, bias = weights[1:] - weights[:1], bias[1:] - bias[:1]
    classifier = LogisticRegression()
    classifier.classes_, classifier.n_features_in_ = classes, latents.shape[1]
    classifier.coef_, classifier.intercept_ = weights, bias
    return make_pipeline(scaler, classifier)


def probe_scores(probe: Probe, test: LabelledLatents) -> dict[str, float]:
    """Scores a fitted probe.

    Args:
        probe: from `fit_probe`.
        test: objects that it has not seen, n > 0.

    Returns:
        `accuracy`, macro `precision`, `recall` and `f1` over the matched objects (*conditional*, as in the
        paper), and `accuracy_end_to_end`, where a missed object is an error.
    """
    labels, predicted = test.labels.numpy(), probe.predict(test.latents.numpy())
    precision, recall, f1, _ = precision_recall_fscore_support(labels, predicted, average="macro", zero_division=0)
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "accuracy_end_to_end": float((predicted == labels).sum()) / test.num_true,
    }


def scores_of(probe: Probe | None, test: LabelledLatents) -> dict[str, float]:
    """Computes `probe_scores`; without a probe, or an object to score, `accuracy_end_to_end` alone, which is 0."""
    return {"accuracy_end_to_end": 0.0} if probe is None or not len(test) else probe_scores(probe, test)


def knn_accuracy(train: LabelledLatents, test: LabelledLatents, seed: int = 0) -> float:
    """Computes the accuracy of a vote of the ten nearest training objects, by standardised Euclidean distance.

    Of more than 10,000 training objects, a random sample of so many votes.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(len(train))[:MAX_NEIGHBOUR_TRAIN])
    neighbours = KNeighborsClassifier(n_neighbors=min(NEIGHBOURS, len(rows)), algorithm="brute")
    model = make_pipeline(StandardScaler(), neighbours)
    model.fit(train.latents.numpy()[rows], train.labels.numpy()[rows])
    return float(accuracy_score(test.labels.numpy(), model.predict(test.latents.numpy())))


def probe_metrics(
    train: Mapping[str, LabelledLatents],
    test: Mapping[str, LabelledLatents],
    seed: int = 0,
    probe: Probe | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Scores probes of `z_what`, and of the floors and ceilings that it is compared with.

    Args:
        train: by name: `z_what`; `true_boxes` (`z_what` at the true boxes, a ceiling); `largest_overlap`
            (`z_what` of every object that overlaps a true one, labelled by the one that it overlaps most, as in
            the paper); and the floors `raw_pixels`, `pooled_features`, `labels` (the class that the detector
            predicts, one-hot) and `random_encoder`. All but the first are optional. Pixels and features are
            those that `Components` projected to the size of `z_what`.
        test: the same names, for the split to score on.
        seed: seed of the sample of training objects whose neighbours vote.
        probe: the probe of `z_what`, if it is already fitted.
        progress: called with (done, total), counted in names.

    Returns:
        `probe/accuracy`, `precision`, `recall`, `f1`, `accuracy_end_to_end`; `probe/knn_accuracy`; and
        `probe/NAME/accuracy` and so on for the other names. `true_boxes` and `largest_overlap` have no end-to-end
        accuracy: no true box is missed, and by the largest overlap an object may count several times.
    """
    scores = scores_of(fit_probe(train[LATENTS]) if probe is None else probe, test[LATENTS])
    metrics = {f"probe/{name}": value for name, value in scores.items()}
    if len(train[LATENTS]) and len(test[LATENTS]):
        metrics["probe/knn_accuracy"] = knn_accuracy(train[LATENTS], test[LATENTS], seed)
    others = sorted(train.keys() & test.keys() - {LATENTS})
    for number, name in enumerate(others, start=1):
        if progress is not None:
            progress(number, len(others) + 1)
        kept = PROBE_SCORES[:-1] if name in (TRUE_BOXES, LARGEST_OVERLAP) else PROBE_SCORES
        metrics |= _probe_accuracy(f"probe/{name}", train[name], test[name], kept)
    if progress is not None:
        progress(len(others) + 1, len(others) + 1)
    return metrics


def property_metrics(
    train: Mapping[str, LabelledLatents], test: Mapping[str, LabelledLatents]
) -> dict[str, float]:
    """Scores probes of `z_what` for each attribute of objects, such as their colour.

    Args:
        train: by attribute, `z_what` of the matched objects, labelled with the attribute's value.
        test: the same attributes, for the split to score on.

    Returns:
        `properties/NAME/accuracy` and `accuracy_end_to_end`, see `probe_scores`; and `properties/NAME/majority`,
        the accuracy of always predicting the most frequent value in `train`.
    """
    metrics: dict[str, float] = {}
    for name in sorted(train.keys() & test.keys()):
        metrics |= _probe_accuracy(f"properties/{name}", train[name], test[name])
        if len(train[name]) and len(test[name]):
            usual = train[name].labels.mode().values
            metrics[f"properties/{name}/majority"] = float((test[name].labels == usual).double().mean())
    return metrics


def _probe_accuracy(
    prefix: str,
    train: LabelledLatents,
    test: LabelledLatents,
    kept: Sequence[str] = ("accuracy", "accuracy_end_to_end"),
) -> dict[str, float]:
    """Returns the `kept` scores of a probe fitted on `train`."""
    scores = scores_of(fit_probe(train), test)
    return {f"{prefix}/{name}": scores[name] for name in kept if name in scores}
