"""Linear and nearest-neighbour probes of an object's category from frozen embeddings (paper, Table 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, precision_recall_fscore_support
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

Probe: TypeAlias = Pipeline
Array: TypeAlias = NDArray[np.float64]

DRAWN_SHARE = 0.9
MAX_COMPONENTS_TRAIN = 20_000
MAX_NEIGHBOUR_TRAIN = 10_000
NEIGHBOURS = 10
MAX_ITERATIONS = 2000
_PROJECTED_ROWS = 4096

LATENTS = "z_what"
TRUE_BOXES = "true_boxes"
RAW_PIXELS = "raw_pixels"
POOLED_FEATURES = "pooled_features"
LABELS = "labels"
RANDOM_ENCODER = "random_encoder"
LARGEST_OVERLAP = "largest_overlap"
PROBE_SCORES = ("accuracy", "precision", "recall", "f1", "accuracy_end_to_end")
_REDUCED = (RAW_PIXELS, POOLED_FEATURES)


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


def fit_probe(train_latents: Tensor, train_labels: Tensor, seed: int = 0) -> Probe:
    """Fits a logistic regression (C = 1) on standardised latents.

    The fit itself is deterministic. Each seed selects a random 90 % of the objects, without replacement, so that
    the spread over seeds shows how much a metric depends on the training objects.

    Args:
        train_latents: float (n, D), n > 0.
        train_labels: int64 (n,).
        seed: seed of the random sample of objects.

    Returns:
        A fitted scikit-learn pipeline. If all labels are the same, it predicts that one.
    """
    rows = _sample(len(train_latents), seed)
    return fit_linear(_array(train_latents[rows]), train_labels.numpy()[rows])


def fit_linear(latents: Array, labels: NDArray[np.int64]) -> Probe:
    """Fits a logistic regression (C = 1) on standardised latents (n, D), for labels (n,), with all rows."""
    several = len(np.unique(labels)) > 1
    classifier = LogisticRegression(C=1.0, max_iter=MAX_ITERATIONS) if several else DummyClassifier()
    return make_pipeline(StandardScaler(), classifier).fit(latents, labels)


def probe_scores(probe: Probe, test: LabelledLatents) -> dict[str, float]:
    """Scores a fitted probe.

    Args:
        probe: from `fit_probe`.
        test: objects that it has not seen, n > 0.

    Returns:
        `accuracy`, macro `precision`, `recall` and `f1` over the matched objects (*conditional*, as in the
        paper), and `accuracy_end_to_end`, where a missed object is an error.
    """
    labels, predicted = test.labels.numpy(), probe.predict(_array(test.latents))
    precision, recall, f1, _ = precision_recall_fscore_support(labels, predicted, average="macro", zero_division=0)
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "accuracy_end_to_end": float((predicted == labels).sum()) / test.num_true,
    }


def knn_accuracy(train: LabelledLatents, test: LabelledLatents, seed: int = 0) -> float:
    """Computes the accuracy of a vote of the ten nearest training objects, by standardised Euclidean distance."""
    rows = _sample(len(train), seed, MAX_NEIGHBOUR_TRAIN)
    neighbours = KNeighborsClassifier(n_neighbors=min(NEIGHBOURS, len(rows)), algorithm="brute")
    model = make_pipeline(StandardScaler(), neighbours)
    model.fit(_array(train.latents[rows]), train.labels.numpy()[rows])
    return float(accuracy_score(test.labels.numpy(), model.predict(_array(test.latents))))


def fit_probes(train: LabelledLatents, seeds: Sequence[int]) -> list[Probe]:
    """Fits one probe per seed; returns an empty list without objects to learn from."""
    return [fit_probe(train.latents, train.labels, seed) for seed in seeds] if len(train) else []


def mean_scores(probes: Sequence[Probe], test: LabelledLatents) -> dict[str, float]:
    """Computes the mean of `probe_scores` over probes, and the population standard deviation as `…_std`.

    Without a probe, or an object to score, the only entries are `accuracy_end_to_end` and its `…_std`, both 0.
    """
    if not probes or not len(test):
        return {"accuracy_end_to_end": 0.0, "accuracy_end_to_end_std": 0.0}
    runs = [probe_scores(probe, test) for probe in probes]
    scores = {}
    for name in runs[0]:
        values = [run[name] for run in runs]
        scores[name], scores[f"{name}_std"] = float(np.mean(values)), float(np.std(values))
    return scores


def reduce_size(
    train: LabelledLatents, test: LabelledLatents, size: int, *, standardise: bool = False, seed: int = 0
) -> tuple[LabelledLatents, LabelledLatents]:
    """Projects both splits on the training split's principal components.

    Args:
        train: objects to fit on, (n, F).
        test: objects to project only.
        size: components kept; fewer where there are fewer objects or features.
        standardise: first scale each feature to unit variance, for features of different scales.
        seed: seed of the sample of objects to fit on, and of the randomised solver that is used for large F.

    Returns:
        Both splits with latents (n, size).
    """
    fitted = train.latents.numpy()[_sample(len(train), seed, MAX_COMPONENTS_TRAIN)]
    steps = [StandardScaler()] if standardise else []
    pca = make_pipeline(*steps, PCA(min(size, *fitted.shape), random_state=seed)).fit(fitted)

    def project(split: LabelledLatents) -> LabelledLatents:
        if not len(split):
            return split
        # Rows are projected in chunks, because standardising wide features all at once takes much memory.
        parts = [
            part.new_tensor(pca.transform(part.numpy())) for part in torch.split(split.latents, _PROJECTED_ROWS)
        ]
        return replace(split, latents=torch.cat(parts))

    return project(train), project(test)


def probe_metrics(
    train: Mapping[str, LabelledLatents],
    test: Mapping[str, LabelledLatents],
    seeds: Sequence[int],
    probes: Sequence[Probe] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Scores probes of `z_what`, and of the floors and ceilings that it is compared with.

    Args:
        train: by name: `z_what`; `true_boxes` (`z_what` at the true boxes, a ceiling); `largest_overlap`
            (`z_what` of every object that overlaps a true one, labelled by the one that it overlaps most, as in
            the paper); and the floors `raw_pixels`, `pooled_features`, `labels` (the class that the detector
            predicts, one-hot) and `random_encoder`. All but the first are optional. Pixels and features are
            reduced to the size of `z_what`.
        test: the same names, for the split to score on.
        seeds: seeds of the samples of training objects; mean and standard deviation are over these.
        probes: probes of `z_what`, if they are already fitted.
        progress: called with (done, total), counted in names.

    Returns:
        `probe/accuracy`, `precision`, `recall`, `f1`, `accuracy_end_to_end`, each with `…_std`;
        `probe/knn_accuracy`; and `probe/NAME/accuracy` and so on for the other names. `true_boxes` and
        `largest_overlap` have no end-to-end accuracy: no true box is missed, and by the largest overlap an object
        may count several times.
    """
    scores = mean_scores(fit_probes(train[LATENTS], seeds) if probes is None else probes, test[LATENTS])
    metrics = {f"probe/{name}": value for name, value in scores.items()}
    if len(train[LATENTS]) and len(test[LATENTS]):
        metrics["probe/knn_accuracy"] = knn_accuracy(train[LATENTS], test[LATENTS], seeds[0])
    size = train[LATENTS].latents.shape[1]
    others = sorted(train.keys() & test.keys() - {LATENTS})
    for number, name in enumerate(others, start=1):
        if progress is not None:
            progress(number, len(others) + 1)
        known, unseen = train[name], test[name]
        if name in _REDUCED and len(known) and size:
            # A pyramid's levels differ in scale; pixels share theirs, and some hardly vary.
            standardise = name == POOLED_FEATURES
            known, unseen = reduce_size(known, unseen, size, standardise=standardise, seed=seeds[0])
        kept = PROBE_SCORES[:-1] if name in (TRUE_BOXES, LARGEST_OVERLAP) else PROBE_SCORES
        metrics |= _probe_accuracy(f"probe/{name}", known, unseen, seeds, kept)
    if progress is not None:
        progress(len(others) + 1, len(others) + 1)
    return metrics


def property_metrics(
    train: Mapping[str, LabelledLatents], test: Mapping[str, LabelledLatents], seeds: Sequence[int]
) -> dict[str, float]:
    """Scores probes of `z_what` for each attribute of objects, such as their colour.

    Args:
        train: by attribute, `z_what` of the matched objects, labelled with the attribute's value.
        test: the same attributes, for the split to score on.
        seeds: seeds of the samples of training objects; mean and standard deviation are over these.

    Returns:
        `properties/NAME/accuracy` and `accuracy_end_to_end`, each with `…_std`, see `probe_scores`; and
        `properties/NAME/majority`, the accuracy of always predicting the most frequent value in `train`.
    """
    metrics: dict[str, float] = {}
    for name in sorted(train.keys() & test.keys()):
        metrics |= _probe_accuracy(f"properties/{name}", train[name], test[name], seeds)
        if len(train[name]) and len(test[name]):
            usual = train[name].labels.mode().values
            metrics[f"properties/{name}/majority"] = float((test[name].labels == usual).double().mean())
    return metrics


def _probe_accuracy(
    prefix: str,
    train: LabelledLatents,
    test: LabelledLatents,
    seeds: Sequence[int],
    kept: Sequence[str] = ("accuracy", "accuracy_end_to_end"),
) -> dict[str, float]:
    """Returns the `kept` scores of probes fitted on `train`, each with its standard deviation."""
    scores = mean_scores(fit_probes(train, seeds), test)
    names = [variant for score in kept for variant in (score, f"{score}_std") if variant in scores]
    return {f"{prefix}/{name}": scores[name] for name in names}


def _sample(n: int, seed: int, most: int | None = None) -> NDArray[np.int64]:
    """Samples the rows, of n, that a probe learns from: `DRAWN_SHARE` of them, at most `most`, ascending."""
    count = min(max(1, round(DRAWN_SHARE * n)), n if most is None else most)
    return np.sort(np.random.default_rng(seed).permutation(n)[:count])


def _array(latents: Tensor) -> Array:
    return latents.double().numpy()
