"""What is measured of each run, as it is kept; and means over trainings."""

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
from ssdir.reproduce.plan import Job
from ssdir.reproduce.stored import StoredResults

Record: TypeAlias = dict[str, Any]
"""`run`, `group`, `label`, `model`, `data`, `detector`, `seed`, `metrics`, `provenance`, and maybe more."""

_DETECTORS = {"class_aware": "class-aware", "class_agnostic": "class-agnostic", None: ""}


def make_record(job: Job, measured: Mapping[str, Any], prefixes: Sequence[str]) -> Record:
    """What an experiment keeps of a run: the metrics whose names start so, and where they come from."""
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
    """Writes an experiment's results, a record in a line."""
    lines = ",\n".join(json_text(record, None).strip() for record in records)
    text = f'{{"left_out": {json_text(list(left_out), None).strip()},\n"records": [\n{lines}\n]}}\n'
    with atomic_file(file, force=True) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_records(file: Path) -> tuple[list[Record], list[str]]:
    """The records of an experiment, and what was left out.

    Raises:
        InputError: if the file is damaged, or holds something else.
    """
    content = read_stored(StoredResults, file)
    return content["records"], content["left_out"]


def read_stored(kind: type[C], file: Path) -> dict[str, Any]:
    """What a file of results holds, once it has been checked to be of a kind.

    Raises:
        InputError: if it is not; it says how to go on.
    """
    content: dict[str, Any] = read_json(file)
    try:
        parse(kind, content, source=f"'{file}'")
    except InputError as error:
        raise InputError(f"{error}: restore the file, or remove it to have it made again") from None
    return content


@dataclass(frozen=True)
class Trainings:
    """The trainings of one run, which differ in their seed.

    Attributes:
        records: one each.
    """

    records: Sequence[Record]

    @property
    def first(self) -> Record:
        """Whatever the trainings have in common."""
        return self.records[0]

    @property
    def name(self) -> str:
        """What tables call it, with what its detector was told."""
        told = _DETECTORS[self.first["detector"]]
        return f"{self.first['label']}, {told}" if told else str(self.first["label"])

    def values(self, metric: str) -> list[float]:
        """Of the trainings that have it; it may be undefined for some."""
        values = [record["metrics"].get(metric) for record in self.records]
        return [value for value in values if value is not None]

    def mean(self, metric: str) -> float | None:
        """Mean over trainings."""
        values = self.values(metric)
        return float(np.mean(values)) if values else None

    def text(self, metric: str, spec: str = ".4f") -> str:
        """Mean, and, of several trainings, the population standard deviation."""
        values = self.values(metric)
        if not values:
            return MISSING
        mean = format(float(np.mean(values)), spec)
        return mean if len(values) < 2 else f"{mean} ±\N{NO-BREAK SPACE}{format(float(np.std(values)), spec)}"


def by_run(
    records: Iterable[Record], key: Callable[[Record], Any] = lambda record: record["group"]
) -> list[Trainings]:
    """Records that belong together, in the order in which they come first."""
    groups: dict[Any, list[Record]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return [Trainings(members) for members in groups.values()]
