"""Time and memory of models by stage, number of objects and engine, compared with an earlier report."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import Field

from ssdir.benchmark.costs import MEASURED_STAGES, Cost, measure_costs, resized, untrained
from ssdir.benchmark.engines import EngineCost, detect_about, measure_engines, scattered_pictures
from ssdir.benchmark.timing import Spread, is_worse
from ssdir.config import Record, parse, presets
from ssdir.console import Advance, no_progress
from ssdir.documents import read_json
from ssdir.errors import InputError, InputWarning
from ssdir.evaluation.provenance import other_cpu, provenance
from ssdir.models.base import ObjectModel
from ssdir.models.detected.model import DetectedModel
from ssdir.models.io import load_model
from ssdir.models.registry import StoredConfig
from ssdir.models.shipped import shipped_models
from ssdir.training.recipe import read_recipe

NUM_DETECTED = 10
"""Approximate number of objects that an untrained detector detects in an image when engines are compared."""

_SPREAD = ("ms/image", "least", "most")


@dataclass(frozen=True)
class BenchOptions:
    """Options of the measurement.

    Attributes:
        objects: numbers of objects per image.
        image_sizes: sides of the images in pixels; None takes the model's.
        batch_size: batch size.
        repeats: number of measured rounds.
        memory: also measure the peak memory of each stage, in new processes.
        engines: also compare engines.
    """

    objects: Sequence[int] = (1, 10, 50)
    image_sizes: Sequence[int] | None = None
    batch_size: int = 8
    repeats: int = 7
    memory: bool = True
    engines: bool = True


class BenchReport(Record):
    """Time and memory of models.

    Attributes:
        costs: time and memory of each stage.
        engines: by model, the time of encoding with each engine.
        provenance: see `provenance`.
    """

    costs: list[Cost]
    engines: dict[str, list[EngineCost]] = Field(default_factory=dict)
    provenance: dict[str, Any]


@dataclass(frozen=True)
class BenchTable:
    """A table to print: its title, the names of its columns, and its cells."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def bench(
    names: Sequence[str], options: BenchOptions | None = None, on_progress: Advance = no_progress
) -> BenchReport:
    """Measures models side by side, stage by stage, and encoding with each engine.

    Args:
        names: shipped models, folders of models or runs, or presets, which are measured untrained.
        options: options of the measurement.
        on_progress: called with (done, all, stage).

    Raises:
        InputError: if there is no such model, or it can't have an image size.
    """
    options, started = options or BenchOptions(), time.perf_counter()
    models = {name: _open(name) for name in names}
    costs = measure_costs(
        {
            name: [
                resized(cast("StoredConfig", model.config), side)
                for side in options.image_sizes or [model.image_size]
            ]
            for name, model in models.items()
        },
        options.objects,
        batch=options.batch_size,
        repeats=options.repeats,
        memory_of=tuple(MEASURED_STAGES) if options.memory else (),
        on_progress=on_progress,
    )
    engines = {}
    for name, model in models.items() if options.engines else ():
        on_progress(0, options.repeats + 1, f"engines of {name}")
        pixels = scattered_pictures(model.image_size, options.batch_size)
        engines[name] = measure_engines(model, pixels, options.repeats, on_progress)
    config = {**asdict(options), "models": list(names), "threads": torch.get_num_threads()}
    record = provenance(config, 0, None, "cpu", time.perf_counter() - started)
    return BenchReport(costs=costs, engines=engines, provenance=record)


def _open(name: str) -> ObjectModel:
    """Loads a trained model, or builds a preset's untrained one, whose detector then detects some objects."""
    if name not in presets() or name in shipped_models():
        return load_model(name)
    model = untrained(read_recipe(name).model)
    if isinstance(model, DetectedModel):
        detect_about(model, scattered_pictures(model.image_size, 8), NUM_DETECTED)
    return model


def read_comparable(file: Path, options: BenchOptions) -> BenchReport | None:
    """Reads an earlier report; None, and an `InputWarning`, where what is about to be measured is not comparable.

    Timings are compared on one kind of CPU, of the same batch size and number of threads.
    """
    if not file.is_file():
        return None
    try:
        report = parse(BenchReport, read_json(file), source=f"'{file}'")
    except InputError as error:
        warnings.warn(InputWarning(f"nothing is compared with what is replaced: {error}"), stacklevel=2)
        return None
    if difference := other_cpu(report.provenance) or _other_settings(report.provenance.get("config", {}), options):
        warnings.warn(InputWarning(difference), stacklevel=2)
        return None
    return report


def _other_settings(before: Mapping[str, Any], options: BenchOptions) -> str | None:
    """Returns a sentence if earlier timings are of another batch size or number of threads; else None."""
    settings = "batch size {}, threads {}"
    then = settings.format(before.get("batch_size"), before.get("threads"))
    now = settings.format(options.batch_size, torch.get_num_threads())
    if now == then:
        return None
    return f"nothing is compared: what was measured before has other settings ({then}; this one: {now})"


def tables(report: BenchReport, before: BenchReport | None = None) -> list[BenchTable]:
    """Makes a table of stages for each model and image size, then one of engines for each model.

    Args:
        report: the report to show.
        before: an earlier report, see `read_comparable`; rows that have become slower are marked.
    """
    earlier: dict[Any, Spread] = {}
    if before is not None:
        earlier = {cost.case: cost.seconds for cost in before.costs}
        earlier |= {(name, cost.engine): cost.seconds for name, costs in before.engines.items() for cost in costs}

    def mark(key: Any, seconds: Spread) -> str:
        return "slower than before" if is_worse(seconds, earlier.get(key, seconds)) else ""

    shown = []
    for name, size in dict.fromkeys((cost.model, cost.image_size) for cost in report.costs):
        rows = [
            (
                "every cell" if cost.objects is None else str(cost.objects),
                cost.stage,
                *_milliseconds(cost.seconds),
                "" if cost.memory_mb is None else f"{cost.memory_mb:.0f}",
                mark(cost.case, cost.seconds),
            )
            for cost in report.costs
            if (cost.model, cost.image_size) == (name, size)
        ]
        shown.append(BenchTable(f"{name}, {size}×{size} px", ("objects", "stage", *_SPREAD, "MiB", ""), rows))
    for name, costs in report.engines.items():
        engine_rows = [
            (
                cost.engine,
                *_milliseconds(cost.seconds),
                f"{cost.speedup.median:.2f}",
                f"{cost.objects:.1f}",
                mark((name, cost.engine), cost.seconds),
            )
            for cost in costs
        ]
        columns = ("engine", *_SPREAD, "times as fast", "objects", "")
        shown.append(BenchTable(f"{name}, encoding", columns, engine_rows))
    return shown


def _milliseconds(seconds: Spread) -> tuple[str, str, str]:
    return f"{1000 * seconds.median:.2f}", f"{1000 * seconds.min:.2f}", f"{1000 * seconds.max:.2f}"
