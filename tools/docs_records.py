"""Reads the results that tables of README and docs are made from: a model's metrics, by its source.

A source is a file below `results/`, a run of an experiment's file, the authors' figures of a method, metrics as
they are, or several of these; see `docs_tables.yaml`.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from ssdir.reports.paper import PROBE, RECONSTRUCTION
from ssdir.reproduce.plan import read_plan

RESULTS = Path(__file__).resolve().parents[1] / "results"

Source: TypeAlias = str | Sequence[str] | Mapping[str, float]


@cache
def content(name: str) -> Any:
    """Reads `results/NAME.json`."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def exists(name: str) -> bool:
    """Returns whether there is `results/NAME.json`."""
    return (RESULTS / f"{name}.json").exists()


def trainings_of(file: str, run: str) -> list[dict[str, Any]]:
    """Returns the trainings of a run in an experiment's file; none where they are not measured by today's plan.

    Results of scale `cpu` by an earlier plan had the same names, and probes that learned from other objects. Each
    row of photographs has a file of its own: `photos/DATA` are all files of a data set.
    """
    if file.startswith("photos/"):
        return [each for each in photographs_of(file.removeprefix("photos/")) if each["group"] == run]
    if not exists(file):
        return []
    records = [record for record in content(file)["records"] if record["group"] == run]
    return [each for each in records if _is_of_plan(each)] if file.startswith("cpu/") else records


def photographs_of(data: str) -> list[dict[str, Any]]:
    """Returns the rows of `results/photos/` for a data set, one for each seed."""
    return [content(f"photos/{path.stem}") for path in sorted((RESULTS / "photos").glob(f"{data}-*.json"))]


def _is_of_plan(record: Mapping[str, Any]) -> bool:
    """Returns whether a record is measured as the plan `cpu` has it today; times have no such settings."""
    settings = record["provenance"]["config"].get("measure")
    planned = cpu_settings().get(record["group"])
    return settings is None or (
        planned is not None and all(settings.get(name) == planned[name] for name in planned)
    )


@cache
def cpu_settings() -> dict[str, dict[str, Any]]:
    """Returns how many images and glyphs each run of the plan `cpu` is measured with, named as in results."""
    plan = read_plan("cpu")
    settings = {name: getattr(plan.measure, name) for name in ("test_images", "glyphs", "train_images")}
    return dict.fromkeys(plan.runs, settings)


def is_measured(source: Source) -> bool:
    """Returns whether there are results of a model; published ones beside others don't count."""
    if isinstance(source, str):
        file, _, run = source.partition(":")
        return file == "published" or bool(trainings_of(file, run) if run else exists(file))
    return isinstance(source, Mapping) or any(is_measured(each) for each in source if not is_published(each))


def is_published(source: str) -> bool:
    """Returns whether the authors published the figures of a model."""
    return source.startswith("published:")


def published(name: str) -> dict[str, float]:
    """Returns published figures: a method's, as `published/…`, or those of `METHOD/digits` under our own names."""
    method, _, data = name.partition("/")
    accuracy, errors = PROBE[method]["accuracy"], {each: by[method] for each, by in RECONSTRUCTION.items()}
    if data:
        figures = {"probe/largest_overlap/accuracy": accuracy, "reconstruction/mse": errors[data]}
    else:
        figures = {"published/accuracy": accuracy}
        figures |= {f"published/mse/{each}": error for each, error in errors.items()}
    metrics = {}
    for name, (mean, *deviation) in figures.items():
        metrics |= {name: mean} | ({f"± {name}": deviation[0]} if deviation else {})
    return metrics


def measured(source: Source) -> dict[str, float]:
    """Returns the metrics of a model of `docs_tables.yaml`; none where it is not measured.

    Besides the metrics of the files there are `± METRIC`, the standard deviation over trainings; `with METRIC` and
    `all METRIC`, how many trainings have a value and how many there are, where these differ; `trainings`, their
    number; `wall_minutes`, `training_minutes`, `training_seconds` and the demo's `cpu_minutes_per_core`.
    """
    if isinstance(source, Mapping):
        return dict(source)
    if not isinstance(source, str):
        return {name: value for each in source for name, value in measured(each).items()}
    file, _, run = source.partition(":")
    if file == "published":
        return published(run)
    trainings = trainings_of(file, run) if run else [content(file)] if is_measured(source) else []
    metrics = {"trainings": float(len(trainings))} if trainings else {}
    for name in {name: None for training in trainings for name in training["metrics"]}:
        values = [training["metrics"].get(name) for training in trainings]
        values = [value for value in values if isinstance(value, int | float)]
        if values:
            metrics[name] = statistics.fmean(values)
        if len(values) > 1:
            metrics[f"± {name}"] = statistics.pstdev(values)
        if 0 < len(values) < len(trainings):
            metrics |= {f"with {name}": len(values), f"all {name}": len(trainings)}
    return metrics | times([training["provenance"] for training in trainings])


def times(made: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns the times of the trainings that metrics are from."""
    metrics = {}
    if made:
        metrics["wall_minutes"] = made[0]["wall_seconds"] / 60
    if made and "cpu_seconds" in made[0]:
        metrics["cpu_minutes_per_core"] = sum(made[0]["cpu_seconds"].values()) / made[0]["cpu_count"] / 60
    if made and "training" in made[0]:
        seconds = [sum(each["training"]["wall_seconds"].values()) for each in made]
        metrics |= {
            "training_seconds": statistics.fmean(seconds),
            "training_minutes": statistics.fmean(seconds) / 60,
        }
    return metrics
