"""A classifier of embeddings from some labelled objects: the probe that models are judged by, kept for use."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from sklearn.model_selection import StratifiedKFold

from ssdir.config import Record, parse
from ssdir.documents import json_text, read_json, read_text
from ssdir.errors import InputError
from ssdir.evaluation.probing import fit_linear
from ssdir.formatting import quote
from ssdir.identity import Fingerprint
from ssdir.outputs import atomic_file

FORMAT = 1
FOLDS = 5
Floats = NDArray[np.float64]

_LARGEST = 1e30
_Number = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST)]
_Scale = Annotated[float, Field(ge=1 / _LARGEST, le=_LARGEST)]


class _File(Record):
    """What a classifier's file holds, see `Classifier`."""

    format: int
    classes: Annotated[list[str], Field(min_length=2)]
    mean: Annotated[list[_Number], Field(min_length=1)]
    scale: list[_Scale]
    weights: list[list[_Number]]
    bias: list[_Number]
    fingerprint: Fingerprint

    @model_validator(mode="after")
    def _shapes(self) -> Self:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes has a name twice")
        rows = (len(self.classes), len(self.mean))
        if len(self.scale) != rows[1]:
            raise ValueError(f"scale must have {rows[1]} numbers like mean, got {len(self.scale)}")
        if len(self.weights) != rows[0] or any(len(row) != rows[1] for row in self.weights):
            raise ValueError(f"weights must have {rows[0]} rows of {rows[1]} numbers: one for each class")
        if len(self.bias) != rows[0]:
            raise ValueError(f"bias must have {rows[0]} numbers, one for each class, got {len(self.bias)}")
        return self


@dataclass(frozen=True)
class Classifier:
    """Logistic regression on standardised embeddings, as plain numbers: JSON, no pickle.

    Attributes:
        classes: their names.
        mean: of the embeddings that it learned from, (D,).
        scale: their standard deviations, (D,).
        weights: (classes, D).
        bias: (classes,).
        fingerprint: digest of the weights of the model that made the embeddings.
    """

    classes: list[str]
    mean: Floats
    scale: Floats
    weights: Floats
    bias: Floats
    fingerprint: str

    @classmethod
    def fit(cls, codes: NDArray[np.floating[Any]], labels: Sequence[str], fingerprint: str) -> Self:
        """Learns from labelled embeddings (M, D) of the model with this fingerprint.

        Raises:
            InputError: if all labels are the same.
        """
        classes = sorted(set(labels))
        if len(classes) < 2:
            raise InputError(
                f"all labelled objects are {quote(classes[0])}: a classifier needs two classes at least"
            )
        numbers = np.array([classes.index(label) for label in labels])
        scaler, regression = fit_linear(np.asarray(codes, dtype=np.float64), numbers)
        weights, bias = regression.coef_, regression.intercept_
        if len(classes) == 2:  # scikit-learn then has one row, of the second class.
            weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
        return cls(classes, scaler.mean_, scaler.scale_, weights, bias, fingerprint)

    def predict(self, codes: NDArray[np.floating[Any]]) -> tuple[list[str], Floats]:
        """The class of each embedding (M, D), and how probable it is. They must be of the same model.

        Raises:
            InputError: if the embeddings have another size.
        """
        if codes.shape[1] != len(self.mean):
            raise InputError(
                f"the classifier is for embeddings of {len(self.mean)} numbers, these have {codes.shape[1]}: "
                "they are of another model"
            )
        logits = (codes - self.mean) / self.scale @ self.weights.T + self.bias
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        chances = odds / odds.sum(axis=1, keepdims=True)
        best = chances.argmax(axis=1)
        return [self.classes[number] for number in best], chances[np.arange(len(best)), best]

    def save(self, path: str | Path, force: bool = False) -> None:
        """Writes JSON; raises InputError as `atomic_file`."""
        values = {name: getattr(self, name).tolist() for name in ("mean", "scale", "weights", "bias")}
        header = {"format": FORMAT, "classes": self.classes, "fingerprint": self.fingerprint}
        with atomic_file(path, force) as temporary:
            temporary.write_text(json_text({**header, **values}, None), "utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads what `save` wrote; raises InputError if it is missing or something else."""
        if not Path(path).is_file():
            raise InputError(f"'{path}' does not exist: make one with ssdir classify fit")
        try:
            file = parse(_File, read_json(path), source=str(path))
        except InputError as error:
            raise InputError(f"'{path}' is not a classifier of ssdir classify fit ({error})") from None
        if file.format != FORMAT:
            raise InputError(f"'{path}' is of another ssdir: fit the classifier again")
        numbers = {name: np.asarray(getattr(file, name)) for name in ("mean", "scale", "weights", "bias")}
        return cls(file.classes, **numbers, fingerprint=file.fingerprint)


@dataclass(frozen=True)
class Trial:
    """How well classes can be told, on labelled objects that were held out.

    Attributes:
        accuracy: mean over the folds of the share of right answers; None where a class has one object only.
        spread: its standard deviation over the folds.
        floor: the share of the most frequent class, which knows nothing of the codes.
        counts: labelled objects of each class.
    """

    accuracy: float | None
    spread: float | None
    floor: float
    counts: dict[str, int]


def try_out(codes: NDArray[np.floating[Any]], labels: Sequence[str], seed: int = 0) -> Trial:
    """Cross-validates `Classifier` in up to five folds."""
    counts = Counter(labels)
    floor = max(counts.values()) / len(labels)
    folds = min(FOLDS, min(counts.values()))
    if folds < 2 or len(counts) < 2:
        return Trial(None, None, floor, dict(sorted(counts.items())))
    names, scores = np.asarray(labels), []
    for kept, held in StratifiedKFold(folds, shuffle=True, random_state=seed).split(codes, names):
        predicted, _ = Classifier.fit(codes[kept], names[kept].tolist(), "").predict(codes[held])
        scores.append(float(np.mean(np.asarray(predicted) == names[held])))
    return Trial(float(np.mean(scores)), float(np.std(scores)), floor, dict(sorted(counts.items())))


def read_labels(path: str | Path, count: int) -> tuple[NDArray[np.int64], list[str]]:
    """A CSV with the columns `row`, from 0, and `label`: some of the objects, in any order.

    Args:
        path: the file.
        count: objects that there are.

    Raises:
        InputError: if it can't be read, or a row isn't there, or twice.
    """
    try:
        records = list(csv.DictReader(io.StringIO(read_text(path), newline="")))
        numbers = [int(record["row"]) for record in records]
        labels = [record["label"].strip() for record in records]
    except (KeyError, TypeError, AttributeError, ValueError, csv.Error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"'{path}' must be a CSV with the columns row and label") from error
    wrong = [number for number in numbers if not 0 <= number < count]
    if wrong:
        raise InputError(f"'{path}' labels row {quote(wrong[0])}, there are rows 0 ... {count - 1}")
    rows = np.array(numbers, dtype=np.int64)
    if len(np.unique(rows)) < len(rows):
        raise InputError(f"'{path}' labels row {Counter(rows.tolist()).most_common(1)[0][0]} twice")
    kept = [number for number, label in enumerate(labels) if label]
    if not kept:
        raise InputError(f"'{path}' labels nothing")
    return rows[kept], [labels[number] for number in kept]


__all__ = ["Classifier", "Trial", "read_labels", "try_out"]
