"""The records of trainings as they are stored, and means over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ssdir.config import C, parse
from ssdir.documents import json_text, read_json
from ssdir.errors import InputError
from ssdir.outputs import atomic_file
from ssdir.reports.glossary import MISSING
from ssdir.reproduce.jobs import Job
from ssdir.reproduce.stored import StoredResults

Record: TypeAlias = dict[str, Any]
"""`run`, `group`, `label`, `model`, `data`, `detector`, `seed`, `metrics`, `provenance`, and maybe more."""

_DETECTORS = {"class_aware": "class-aware", "class_agnostic": "class-agnostic", None: ""}


def make_record(job: Job, measured: Mapping[str, Any], prefixes: Sequence[str]) -> Record:
    """Makes the record of a training: its metrics that begin with one of `prefixes`, and their provenance."""
    metrics = {name: value for name, value in measured["metrics"].items() if name.startswith(tuple(prefixes))}
    return {
        "run": job.name,
        "group": job.group,
        "label": job.label,
        "model": job.model,
        "data": job.data.name,
        "detector": job.detector,
        "seed": job.recipe.seed,
        "metrics": metrics,
        "provenance": measured["provenance"],
    }


def write_records(file: Path, records: Iterable[Record], left_out: Sequence[str]) -> None:
    """Writes an experiment's results, one record per line."""
    lines = ",\n".join(json_text(record, None).strip() for record in records)
    text = f'{{"left_out": {json_text(list(left_out), None).strip()},\n"records": [\n{lines}\n]}}\n'
    with atomic_file(file, force=True) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_records(file: Path) -> tuple[list[Record], list[str]]:
    """Reads the records of an experiment, and what was left out.

    Raises:
        InputError: if the file is damaged, or holds other content.
    """
    content = read_stored(StoredResults, file)
    return content["records"], content["left_out"]


def read_stored(schema: type[C], file: Path) -> dict[str, Any]:
    """Reads a file of results, checked against a schema.

    Raises:
        InputError: if it does not match the schema.
    """
    content: dict[str, Any] = read_json(file)
    try:
        parse(schema, content, source=f"'{file}'")
    except InputError as error:
        raise InputError(f"{error}: restore the file, or remove it to have it made again") from None
    return content


@dataclass(frozen=True)
class Trainings:
    """The trainings of one group, which differ in their seed.

    Attributes:
        records: one for each training.
    """

    records: Sequence[Record]

    @property
    def first(self) -> Record:
        """The record of the first training, for values that all trainings have in common."""
        return self.records[0]

    @property
    def name(self) -> str:
        """Name in tables, with the supervision of the detector."""
        detector = _DETECTORS[self.first["detector"]]
        return f"{self.first['label']}, {detector}" if detector else str(self.first["label"])

    def values(self, metric: str) -> list[float]:
        """Values of the trainings for which the metric is defined."""
        values = [record["metrics"].get(metric) for record in self.records]
        return [value for value in values if value is not None]

    def mean(self, metric: str) -> float | None:
        """Mean over trainings; None where it is undefined for all."""
        values = self.values(metric)
        return float(np.mean(values)) if values else None

    def text(self, metric: str, spec: str = ".4f") -> str:
        """Formats the mean and, for several trainings, the population standard deviation.

        Where some trainings have no value, it ends with how many have one: `0.564 ± 0.103 (2 of 3)`.
        """
        values = self.values(metric)
        if not values:
            return MISSING
        text = format(float(np.mean(values)), spec)
        if len(values) > 1:
            text += f" ±\N{NO-BREAK SPACE}{format(float(np.std(values)), spec)}"
        return text if len(values) == len(self.records) else f"{text} ({len(values)} of {len(self.records)})"


def by_group(
    records: Iterable[Record], key: Callable[[Record], Any] = lambda record: record["group"]
) -> list[Trainings]:
    """Groups records by their group of trainings, in the order of their first occurrence."""
    groups: dict[Any, list[Record]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return [Trainings(members) for members in groups.values()]
