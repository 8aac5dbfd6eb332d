"""A classifier of codes from some labelled objects: the probe that models are judged by, kept for use."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from ssdir.errors import InputError
from ssdir.evaluation.probing import fit_linear
from ssdir.outputs import atomic_file

FORMAT = 1
FOLDS = 5
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Classifier:
    """Logistic regression on standardised codes, as plain numbers: JSON, no pickle.

    Attributes:
        classes: their names.
        mean: of the codes that it learned from, (D,).
        scale: their standard deviations, (D,).
        weights: (classes, D).
        bias: (classes,).
        fingerprint: digest of the weights of the model whose codes they are; empty where it isn't known.
    """

    classes: list[str]
    mean: Floats
    scale: Floats
    weights: Floats
    bias: Floats
    fingerprint: str = ""

    @classmethod
    def fit(cls, codes: NDArray[np.floating[Any]], labels: Sequence[str], fingerprint: str = "") -> Self:
        """Learns from labelled codes of the model with this fingerprint.

        Raises:
            InputError: if all labels are the same.
        """
        classes = sorted(set(labels))
        if len(classes) < 2:
            raise InputError(f"all labelled objects are '{classes[0]}': a classifier needs two classes at least")
        numbers = np.array([classes.index(label) for label in labels])
        scaler, regression = fit_linear(np.asarray(codes, dtype=np.float64), numbers)
        weights, bias = regression.coef_, regression.intercept_
        if len(classes) == 2:  # scikit-learn then has one row, of the second class.
            weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
        return cls(classes, scaler.mean_, scaler.scale_, weights, bias, fingerprint)

    def predict(self, codes: NDArray[np.floating[Any]], fingerprint: str = "") -> tuple[list[str], Floats]:
        """The class of each code, and how probable it is.

        Raises:
            InputError: if the codes have another size, or are of a model with another fingerprint.
        """
        if codes.shape[1] != len(self.mean):
            raise InputError(
                f"the classifier is for codes of {len(self.mean)} numbers, these have {codes.shape[1]}: "
                "they are of another model"
            )
        if fingerprint and self.fingerprint and fingerprint != self.fingerprint:
            raise InputError("the classifier is for codes of another model: fit it again on codes of this one")
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
            temporary.write_text(json.dumps({**header, **values}) + "\n", "utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads what `save` wrote; raises InputError if it is missing or something else."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            if values.pop("format") != FORMAT:
                raise InputError(f"'{path}' is of another ssdir: fit the classifier again")
            classes = [str(name) for name in values.pop("classes")]
            fingerprint = str(values.pop("fingerprint", ""))
            numbers = {name: np.asarray(each, dtype=np.float64) for name, each in values.items()}
            return cls(classes, **numbers, fingerprint=fingerprint)
        except FileNotFoundError:
            raise InputError(f"'{path}' does not exist: make one with ssdir classify fit") from None
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"'{path}' is not a classifier of ssdir classify fit") from error


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
        predicted, _ = Classifier.fit(codes[kept], names[kept].tolist()).predict(codes[held])
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
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            records = list(csv.DictReader(file))
        rows = np.array([int(record["row"]) for record in records], dtype=np.int64)
        labels = [record["label"].strip() for record in records]
    except FileNotFoundError:
        raise InputError(f"labels '{path}' don't exist") from None
    except (KeyError, ValueError, TypeError, AttributeError, OSError, csv.Error) as error:
        raise InputError(f"'{path}' must be a CSV with the columns row and label") from error
    wrong = rows[(rows < 0) | (rows >= count)]
    if len(wrong):
        raise InputError(f"'{path}' labels row {wrong[0]}, there are rows 0 ... {count - 1}")
    if len(np.unique(rows)) < len(rows):
        raise InputError(f"'{path}' labels row {Counter(rows.tolist()).most_common(1)[0][0]} twice")
    kept = [number for number, label in enumerate(labels) if label]
    if not kept:
        raise InputError(f"'{path}' labels nothing")
    return rows[kept], [labels[number] for number in kept]


__all__ = ["Classifier", "Trial", "read_labels", "try_out"]
