"""The comparison of embeddings of photographs: a file of results for each data set and row, and a report."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ssdir.console import say
from ssdir.data.readers.registry import find_layout
from ssdir.device import choose_device, device_name
from ssdir.documents import json_text
from ssdir.errors import InputError, nearest
from ssdir.evaluation.provenance import provenance
from ssdir.formatting import format_seconds, quote
from ssdir.inference.predictor import Predictor, load
from ssdir.models.io import weights_fingerprint
from ssdir.outputs import atomic_file, claim
from ssdir.reproduce.photos.embedders import Embedder, embedders
from ssdir.reproduce.photos.measure import VERSION, compute_features, mean_over_folds, measure_fold
from ssdir.reproduce.photos.models import POOLED, ModelEmbedder, PooledEmbedder
from ssdir.reproduce.photos.photographs import (
    DEFAULT_SPLITS,
    SOURCES,
    Photographs,
    Splits,
    open_photographs,
    read_photographs,
)
from ssdir.reproduce.photos.report import REPORT, stored_rows, write_report
from ssdir.reproduce.photos.timing import one_thread, time_metrics
from ssdir.reproduce.plan import FileName
from ssdir.reproduce.records import read_stored
from ssdir.reproduce.stored import StoredRecord
from ssdir.training.session import OutOfTime

FOLDER = "photos"
"""Name of the folder of the results."""
_TIMED_IMAGES = 2


def compare_photographs(
    rows: Sequence[str],
    data: Path,
    out: Path,
    detector: str | None = None,
    minutes: float | None = None,
    device: str | None = None,
    splits: Splits = DEFAULT_SPLITS,
) -> Path:
    """Measures rows on data sets of photographs, each once, and writes results and a report.

    What is measured is kept in a file for each data set and row, and is measured again only if the embedder, the
    detector or the measurement has changed.

    Args:
        rows: see `choose_rows`.
        data: the folder that holds some of `SOURCES`, or a data set of its own in any known layout.
        out: folder to write the folder `photos` into.
        detector: a model whose boxes rows without a detector are measured at too; None leaves these out.
        minutes: time after which no row is begun.
        device: where trained models run, see `choose_device`. The networks of the other rows run on the CPU.
        splits: the splits to learn from and to test on.

    Returns:
        Path of the report.

    Raises:
        InputError: for an unknown row, models or data that can't be read, a folder that can't be written, or one
            whose results are of other data of the same name.
        OutOfTime: when the minutes are over; what is measured is kept.
    """
    folder = out / FOLDER
    claim(folder / REPORT, force=True)
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    chosen, boxes_of = choose_rows(rows, device), None if detector is None else load(detector, device)
    opened = find_photographs(data, splits)
    _check_data(folder, opened)
    for photographs in opened:
        for embedder in chosen:
            file = folder / f"{photographs.name}-{embedder.name}-{embedder.seed}.json"
            settings = _settings(embedder, boxes_of, splits)
            if _is_measured(file, settings):
                say(f"{file.stem}: measured before")
                continue
            if deadline is not None and time.monotonic() >= deadline:
                raise OutOfTime("nothing is begun after the deadline")
            started = time.monotonic()
            record = measure_row(embedder, photographs, boxes_of, settings, device)
            with atomic_file(file, force=True) as temporary:
                temporary.write_text(json_text(record, 1), encoding="utf-8")
            write_report(folder)
            say(f"{file.stem}: {format_seconds(time.monotonic() - started)}")
    write_report(folder)
    return folder / REPORT


def choose_rows(rows: Sequence[str], device: str | None = None) -> list[Embedder]:
    """Makes the embedders of rows.

    Args:
        rows: names of `embedders`; `NAME=MODEL` for the embeddings of a trained model, a folder or a shipped
            model's name; `NAME=pooled:MODEL` for the pooled features of its detector. None at all means all that
            need no trained model. Trainings of one recipe with several seeds have the same NAME.
        device: where trained models run, see `choose_device`.

    Raises:
        InputError: for an unknown name, or models that can't be read.
    """
    known = embedders()
    names = list(dict.fromkeys(each.name for each in known))
    chosen: list[Embedder] = []
    for row in rows or names:
        name, is_model, model = row.partition("=")
        if is_model:
            _check_name(name)
            if name in names:
                raise InputError(f"row '{row}': '{name}' is the name of a row without a model: take another")
            kind = PooledEmbedder if model.startswith(f"{POOLED}:") else ModelEmbedder
            chosen.append(kind(name, model.removeprefix(f"{POOLED}:"), device))
        elif name not in names:
            raise InputError(
                f"unknown row '{name}'{nearest(name, names)}; rows: {', '.join(names)}, or NAME=MODEL for a model"
            )
        else:
            chosen += [each for each in known if each.name == name]
    taken = [(each.name, each.seed) for each in chosen]
    if twice := next((each for each in taken if taken.count(each) > 1), None):
        raise InputError(f"row '{twice[0]}' is there twice with seed {twice[1]}: name one of them otherwise")
    return chosen


def _check_name(name: str) -> None:
    """Raises InputError if a row's name can't be in the name of a file and in `StoredRecord`."""
    try:
        TypeAdapter(FileName).validate_python(name)
    except ValidationError:
        raise InputError(
            f"row {quote(name)}: its name becomes that of a file: take at most 100 letters, digits, '-', '_' and "
            "'.', and begin with a letter or digit"
        ) from None


def find_photographs(data: Path, splits: Splits = DEFAULT_SPLITS) -> list[Photographs]:
    """Opens the data sets of a folder: those of `SOURCES` that are there, or the folder itself.

    Raises:
        InputError: if there is none, or one can't be read.
    """
    there = [name for name, source in SOURCES.items() if all((data / each).is_dir() for each in source.folders)]
    if there:
        return [open_photographs(name, data, splits) for name in there]
    find_layout(data)
    return [read_photographs(data.resolve().name, [data], splits=splits)]


def measure_row(
    embedder: Embedder,
    photographs: Photographs,
    detector: Predictor | None,
    settings: dict[str, Any],
    device: str | None = None,
) -> dict[str, Any]:
    """Measures an embedder on a data set, on one thread.

    Returns:
        A record, see `StoredRecord`; metrics are means over the folds of the data set.
    """
    started = time.perf_counter()
    name = f"{photographs.name}-{embedder.name}-{embedder.seed}"
    advance = _Lines(name)
    with one_thread():
        features = compute_features(embedder, photographs, detector, advance)
        folds = []
        for number, fold in enumerate(photographs.folds, start=1):
            folds.append(measure_fold(embedder, photographs, features, fold, embedder.seed))
            advance(number, len(photographs.folds), "classifiers")
        timed, _ = next(photographs.batches(photographs.tested, _TIMED_IMAGES))
        metrics = mean_over_folds(folds) | time_metrics(embedder, timed, advance)
    ran_on = device_name(choose_device(device)) if "weights" in settings else "cpu"
    made = provenance(settings, embedder.seed, photographs.data_hash, ran_on, time.perf_counter() - started)
    return {
        "run": name,
        "group": embedder.name,
        "label": embedder.name,
        "model": type(embedder).__name__,
        "data": photographs.name,
        "detector": None,
        "seed": embedder.seed,
        "metrics": metrics,
        "provenance": made,
    }


def _settings(embedder: Embedder, detector: Predictor | None, splits: Splits) -> dict[str, Any]:
    """Returns the settings, besides the data, that determine the metrics."""
    boxes_of = None if detector is None or embedder.detects else weights_fingerprint(detector.model)
    settings = {"version": VERSION, **embedder.settings, "detections": boxes_of, "threads": 1}
    return settings if splits == DEFAULT_SPLITS else {**settings, "splits": dataclasses.asdict(splits)}


def _is_measured(file: Path, settings: dict[str, Any]) -> bool:
    return file.exists() and read_stored(StoredRecord, file)["provenance"]["config"] == settings


def _check_data(folder: Path, opened: Sequence[Photographs]) -> None:
    """Refuses results of several data sets of one name, which would replace each other or be averaged.

    Raises:
        InputError: names a file whose data differ.
    """
    hashes = {each.name: each.data_hash for each in opened}
    for file, record in stored_rows(folder).items():
        name, measured_on = record["data"], record["provenance"]["data_hash"]
        if hashes.setdefault(name, measured_on) != measured_on:
            raise InputError(
                f"'{file}' was measured on other data named '{name}': give another folder with --out, or remove "
                "the results of that name to measure them again"
            )


class _Lines:
    """Prints a line when a stage has ended."""

    def __init__(self, name: str) -> None:
        self._name, self._started = name, time.monotonic()

    def __call__(self, done: int, total: int, stage: str | None = None) -> None:
        if done == total:
            say(f"{self._name}: {stage}, {format_seconds(time.monotonic() - self._started)}")
