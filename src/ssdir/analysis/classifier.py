"""Classifies objects by their embeddings: a linear probe that learns from a few labelled objects."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.special import softmax  # type: ignore[import-untyped]
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from ssdir.analysis.output import AnalysisOutput
from ssdir.analysis.tracks import read_entries
from ssdir.config import Record, parse
from ssdir.documents import json_text, read_json, read_text
from ssdir.errors import InputError, nearest
from ssdir.evaluation.probing import fit_linear
from ssdir.formatting import quote
from ssdir.identity import Fingerprint, check_comparable
from ssdir.inference.engines import load_identity
from ssdir.object_table import SPAN_COLUMNS, TRACK
from ssdir.outputs import atomic_file, claim
from ssdir.store.columns import numbers
from ssdir.store.objects_file import StoredObjects
from ssdir.store.track_columns import track_ids

FORMAT = 1
FOLDS = 5
Floats = NDArray[np.float64]

_LARGEST = 1e30
_Number = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST)]
_Scale = Annotated[float, Field(ge=1 / _LARGEST, le=_LARGEST)]


class Classifier(Record):
    """Logistic regression on standardised embeddings, as plain numbers: JSON, no pickle.

    Attributes:
        format: version of the file.
        classes: names of the K classes.
        fingerprint: digest of the weights of the model that made the embeddings.
        mean: mean of the embeddings that it learned from, (D,).
        scale: their standard deviations, (D,).
        weights: weights of the logits, (K, D).
        bias: bias of the logits, (K,).
    """

    format: int
    classes: Annotated[list[str], Field(min_length=2)]
    fingerprint: Fingerprint
    mean: Annotated[list[_Number], Field(min_length=1)]
    scale: list[_Scale]
    weights: list[list[_Number]]
    bias: list[_Number]

    @model_validator(mode="after")
    def _shapes(self) -> Self:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes has a name twice")
        num_classes, latent_dim = len(self.classes), len(self.mean)
        if len(self.scale) != latent_dim:
            raise ValueError(f"scale must have {latent_dim} numbers like mean, got {len(self.scale)}")
        if len(self.weights) != num_classes or any(len(row) != latent_dim for row in self.weights):
            raise ValueError(f"weights must have {num_classes} rows of {latent_dim} numbers: one for each class")
        if len(self.bias) != num_classes:
            raise ValueError(f"bias must have {num_classes} numbers, one for each class, got {len(self.bias)}")
        return self

    @classmethod
    def fit(cls, z_what: NDArray[np.floating[Any]], labels: Sequence[str], fingerprint: str) -> Self:
        """Learns from labelled embeddings (M, D) of the model with this fingerprint.

        Raises:
            InputError: if all labels are the same.
        """
        classes = sorted(set(labels))
        if len(classes) < 2:
            raise InputError(
                f"all labelled objects are {quote(classes[0])}: a classifier needs two classes at least"
            )
        targets = np.array([classes.index(label) for label in labels])
        scaler, regression = fit_linear(np.asarray(z_what, dtype=np.float64), targets)
        weights, bias = regression.coef_, regression.intercept_
        if len(classes) == 2:  # scikit-learn then has one row, of the second class.
            weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
        values = {"mean": scaler.mean_, "scale": scaler.scale_, "weights": weights, "bias": bias}
        lists = {name: each.tolist() for name, each in values.items()}
        return cls(format=FORMAT, classes=classes, fingerprint=fingerprint, **lists)

    def predict(self, z_what: NDArray[np.floating[Any]]) -> tuple[list[str], Floats]:
        """Returns the class of each embedding (M, D), and its probability. They must be of the same model.

        Raises:
            InputError: if the embeddings have another size.
        """
        if z_what.shape[1] != len(self.mean):
            raise InputError(
                f"the classifier is for embeddings of {len(self.mean)} numbers, these have {z_what.shape[1]}: "
                "they are of another model"
            )
        logits = (z_what - np.array(self.mean)) / self.scale @ np.array(self.weights).T + self.bias
        probabilities = softmax(logits, axis=1)
        best = probabilities.argmax(axis=1)
        return [self.classes[number] for number in best], probabilities.max(axis=1)

    def save(self, path: str | Path, force: bool = False) -> None:
        """Writes JSON; raises InputError as `atomic_file`."""
        with atomic_file(path, force) as temporary:
            temporary.write_text(json_text(self.model_dump(), None), "utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads what `save` wrote; raises InputError if it is missing or something else."""
        if not Path(path).is_file():
            raise InputError(f"'{path}' does not exist: make one with ssdir classify fit")
        try:
            classifier = parse(cls, read_json(path), source=str(path))
        except InputError as error:
            raise InputError(f"'{path}' is not a classifier of ssdir classify fit ({error})") from None
        if classifier.format != FORMAT:
            raise InputError(f"'{path}' is of another ssdir: fit the classifier again")
        return classifier


@dataclass(frozen=True)
class CrossValidation:
    """The accuracy of a classifier on held-out labelled objects.

    Attributes:
        accuracy: mean over the folds of the share of right predictions; None if none could be held out: a
            class has one object, or views of one track, only.
        spread: standard deviation of the accuracy over the folds.
        floor: the share of the most frequent class, the accuracy of always predicting it.
        counts: labelled objects of each class.
    """

    accuracy: float | None
    spread: float | None
    floor: float
    counts: dict[str, int]

    def sentence(self) -> str:
        """Returns the accuracy and the floor as a sentence."""
        if self.accuracy is None:
            return "a class has one labelled object or track only, so none could be held out: label more of it"
        return (
            f"accuracy on held-out objects: {self.accuracy:.3f} ± {self.spread:.3f} "
            f"(the most frequent class alone: {self.floor:.3f})"
        )


def cross_validate(
    z_what: NDArray[np.floating[Any]],
    labels: Sequence[str],
    seed: int = 0,
    track_id: NDArray[np.int64] | None = None,
) -> CrossValidation:
    """Cross-validates `Classifier` in up to five folds.

    Args:
        z_what: embeddings (M, D).
        labels: their classes.
        seed: of the folds.
        track_id: the track of which each is a view, int64 (M,), 0 where it is of none. The views of a track are
            held out together: they are of one object.
    """
    counts, names = dict(sorted(Counter(labels).items())), np.asarray(labels)
    floor, splitter, independent = max(counts.values()) / len(labels), StratifiedKFold, Counter(labels)
    if track_id is not None:
        track_id = np.where(track_id > 0, track_id, -1 - np.arange(len(names)))
        splitter = StratifiedGroupKFold
        independent = Counter(name for name, _ in {*zip(labels, track_id.tolist(), strict=True)})
    folds = min(FOLDS, *independent.values())
    if folds < 2 or len(counts) < 2:
        return CrossValidation(None, None, floor, counts)
    scores = []
    for kept, held in splitter(folds, shuffle=True, random_state=seed).split(z_what, names, track_id):
        if len(np.unique(names[kept])) > 1:  # Views of a track that have different labels may leave one class.
            predicted, _ = Classifier.fit(z_what[kept], names[kept].tolist(), "fold").predict(z_what[held])
            scores.append(float(np.mean(np.asarray(predicted) == names[held])))
    if not scores:
        return CrossValidation(None, None, floor, counts)
    return CrossValidation(float(np.mean(scores)), float(np.std(scores)), floor, counts)


def fit_file(
    objects: str | Path,
    out: str | Path,
    labels: str | Path | None = None,
    column: str | None = None,
    model: str | None = None,
    seed: int = 0,
    force: bool = False,
    per_view: bool = False,
) -> CrossValidation:
    """Learns a classifier from the labelled objects of a file, writes it, and cross-validates it.

    Args:
        objects: file or folder that `ssdir encode` or `ssdir track` wrote.
        out: classifier to write, as JSON.
        labels: CSV with the columns `row` and `label`, see `read_labels`; or
        column: a column of `objects` with the labels, empty where there is none.
        model: the model that encoded, where the file no longer names it.
        seed: of the folds of the cross-validation.
        force: replace an existing file.
        per_view: of a file of tracks, learn from every view, not the track as one, see `ssdir.analysis.tracks`.

    Raises:
        InputError: as `read_entries`, `read_labels`, `Classifier.fit` and `claim`; unless one of `labels` and
            `column` is given.
    """
    if (labels is None) == (column is None):
        raise InputError("give the labels, as a CSV by --labels or as a column of the objects by --column")
    claim(out, force)
    stored = read_entries(objects, load_identity(model), 2, per_view)
    if labels is not None:
        is_of_tracks = {TRACK, *SPAN_COLUMNS} <= set(stored.table.column_names)
        rows, names = read_labels(labels, len(stored), numbers(stored.table[TRACK]) if is_of_tracks else None)
    else:
        rows, names = _labels_in_column(stored, str(column))
    z_what = stored.z_what[rows]
    classifier = Classifier.fit(z_what, names, stored.info.fingerprint)
    is_of_views = per_view and TRACK in stored.table.column_names
    views = track_ids(stored.table, stored.info.path)[rows] if is_of_views else None
    validation = cross_validate(z_what, names, seed, views)
    classifier.save(out, force)
    return validation


def predict_file(
    classifier: str | Path,
    objects: str | Path,
    output: AnalysisOutput,
    model: str | None = None,
    per_view: bool = False,
) -> dict[str, int]:
    """Predicts the class of each object of a file; the output has the columns `predicted` and `probability`.

    Args:
        classifier: file that `fit_file` wrote.
        objects: file or folder that `ssdir encode` or `ssdir track` wrote.
        output: files to write; the image grid shows the most probable objects of each class.
        model: the model that encoded, where the file no longer names it.
        per_view: of a file of tracks, classify every view, not the track as one, see `ssdir.analysis.tracks`.

    Returns:
        The number of objects of each predicted class.

    Raises:
        InputError: as `Classifier.load` and `read_entries`, and if they are of different models.
    """
    loaded, stored = Classifier.load(classifier), read_entries(objects, load_identity(model), 1, per_view)
    check_comparable(stored.info, f"'{objects}' (model '{stored.info.model}')", loaded, f"'{classifier}'")
    predicted, probabilities = loaded.predict(stored.z_what)
    names = np.asarray(predicted, dtype=object)
    surest = np.argsort(-probabilities, kind="stable")
    members = {name: surest[names[surest] == name] for name in sorted(set(predicted))}
    columns = {"predicted": names, "probability": probabilities}
    output.write(stored, columns, members, lambda row: f"{probabilities[row]:.2f}")
    return {name: len(rows) for name, rows in members.items()}


def read_labels(
    path: str | Path, count: int, track_id: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], list[str]]:
    """Reads a CSV with the columns `row`, from 0, and `label`, of some of the objects, in any order.

    Args:
        path: the file.
        count: number of all objects.
        track_id: the tracks that they are, int64 (count,), rising: a column `track_id` may then stand for `row`.

    Returns:
        The rows, int64 (n,), and their labels.

    Raises:
        InputError: if it can't be read, lacks a column, or a row isn't there, or twice.
    """
    try:
        reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
        reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        records = [(reader.line_num, record) for record in reader]
    except csv.Error as error:
        raise InputError(f"'{path}' is not a CSV table ({error})") from error
    key = TRACK if track_id is not None and TRACK in reader.fieldnames else "row"
    for name in (key, "label"):
        if name not in reader.fieldnames:
            raise InputError(f"'{path}' has no column '{name}': it has {quote(', '.join(reader.fieldnames))}")
    named = [
        _whole_number(record[key] or "", f"line {line} of '{path}' has the {key}") for line, record in records
    ]
    labels = [(record["label"] or "").strip() for _, record in records]
    twice = [number for number, times in Counter(named).items() if times > 1]
    if twice:
        raise InputError(f"'{path}' labels {'track' if key == TRACK else 'row'} {twice[0]} twice")
    if track_id is not None and key == TRACK:
        row_of = {track: row for row, track in enumerate(track_id.tolist())}
        unknown = [number for number in named if number not in row_of]
        if unknown:
            raise InputError(f"'{path}' labels track {unknown[0]}, which is not in the file of tracks")
        named = [row_of[number] for number in named]
    wrong = [number for number in named if not 0 <= number < count]
    if wrong:
        raise InputError(f"'{path}' labels row {wrong[0]}, there are rows 0 ... {count - 1}")
    rows = np.array(named, dtype=np.int64)
    kept = [number for number, label in enumerate(labels) if label]
    if not kept:
        raise InputError(f"'{path}' labels nothing")
    return rows[kept], [labels[number] for number in kept]


def _whole_number(text: str, place: str) -> int:
    """Reads the number of a row or track; pandas writes `3.0` where others of the column are missing."""
    number = re.fullmatch(r"\s*(-?\d{1,18})(\.0*)?\s*", text)
    if number is None:
        raise InputError(f"{place} {quote(text)}, not a whole number")
    return int(number[1])


def _labels_in_column(stored: StoredObjects, column: str) -> tuple[NDArray[np.int64], list[str]]:
    """Returns the rows that have a label, and the labels."""
    source, names = stored.info.path, stored.table.column_names
    if column not in names:
        raise InputError(f"'{source}' has no column '{column}'{nearest(column, names)}")
    values = stored.table[column].to_pylist()
    rows = [row for row, value in enumerate(values) if value not in (None, "") and value == value]  # NaN is not
    if not rows:
        raise InputError(f"the column '{column}' of '{source}' labels nothing")
    return np.asarray(rows, dtype=np.int64), [str(values[row]) for row in rows]
