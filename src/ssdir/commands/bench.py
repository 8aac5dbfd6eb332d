"""`ssdir bench`: what a model costs on this machine, by stage, number of objects and engine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.table import Column, Table

from ssdir.commands.options import AsJson, BatchSize, Force
from ssdir.console import next_step, progress, stdout, warn
from ssdir.documents import json_text, read_json
from ssdir.errors import InputError
from ssdir.outputs import atomic_file, claim

if TYPE_CHECKING:
    from ssdir.benchmark.costs import Cost
    from ssdir.benchmark.engines import EngineCost
    from ssdir.benchmark.stored import StoredBench
    from ssdir.models.base import ObjectModel
    from ssdir.models.registry import AnyModelConfig

_SPREAD = ("ms/image", "least", "most")

OBJECTS_FOUND = 10
"""About so many an untrained detector is made to find, where engines are compared."""


def bench(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Shipped models, models' or runs' folders, or presets."),
    ],
    objects: Annotated[str, typer.Option(help="Objects of an image, by commas.")] = "1,10,50",
    image_sizes: Annotated[
        str | None, typer.Option("--image-size", help="Sides in pixels, by commas; by default the model's.")
    ] = None,
    batch_size: BatchSize = 8,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds that count.")] = 7,
    memory: Annotated[
        bool, typer.Option("--memory/--no-memory", help="Also the peak memory of each, in new processes.")
    ] = True,
    engines: Annotated[
        bool, typer.Option("--engines/--no-engines", help="Also encoding by each engine, ONNX and int8 included.")
    ] = True,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    chart: Annotated[Path | None, typer.Option(help="PNG to draw: encoding, by objects and image size.")] = None,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Measure what a model costs: each stage in time and memory, and encoding by each engine.

    All variants take turns; times are medians with the smallest and largest repeat. With --out and --force, what
    got slower than in the file that is replaced is marked.
    """
    if out is not None:
        claim(out, force)
    if chart is not None:
        claim(chart, force, (".png",))
    counts = _numbers(objects, "--objects")
    from ssdir.benchmark.costs import STAGES, chart_of, measure_costs, resized
    from ssdir.benchmark.engines import measure_engines, scattered_pictures

    started, before = time.perf_counter(), _last(out)
    opened = {name: _open(name) for name in models}
    sizes = None if image_sizes is None else _numbers(image_sizes, "--image-size")
    configs = {
        name: [resized(cast("AnyModelConfig", model.config), side) for side in sizes or [model.image_size]]
        for name, model in opened.items()
    }
    compared: dict[str, list[EngineCost]] = {}
    with progress("measuring") as advance:
        costs = measure_costs(
            configs,
            counts,
            batch=batch_size,
            repeats=repeats,
            weighed=tuple(STAGES) if memory else (),
            progress=lambda done, total, what: advance(done, total, what),
        )
        for name, model in opened.items() if engines else ():
            advance(0, repeats + 1, f"engines of {name}")
            pixels = scattered_pictures(model.image_size, batch_size)
            compared[name] = measure_engines(model, pixels, repeats, advance)
    report = _report(costs, compared, {"models": models, "batch_size": batch_size, "repeats": repeats}, started)
    text = json_text(report)
    with ExitStack() as outputs:  # Both, or none.
        if out is not None:
            outputs.enter_context(atomic_file(out, force)).write_text(text, encoding="utf-8")
        if chart is not None:
            outputs.enter_context(atomic_file(chart, force)).write_bytes(chart_of(costs))
    if as_json:
        typer.echo(text, nl=False)
        return
    _show(report, before)
    next_step("export", models[0], "--out", "encoder.onnx")


def _numbers(text: str, option: str) -> list[int]:
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = [0]
    if numbers[0] < 1:
        raise InputError(f"{option} must be whole numbers above zero with commas between, got '{text}'")
    return numbers


def _open(name: str) -> ObjectModel:
    """A trained model, or a preset's, untrained, with a detector that finds something."""
    from ssdir.config import presets
    from ssdir.models.io import load_model
    from ssdir.models.shipped import list_models

    if name not in presets() or name in {card.name for card in list_models()}:
        return load_model(name)
    from ssdir.benchmark.costs import untrained
    from ssdir.benchmark.engines import find_about, scattered_pictures
    from ssdir.models.detected.model import DetectedModel
    from ssdir.training.recipe import read_recipe

    model = untrained(read_recipe(name).model)
    if isinstance(model, DetectedModel):
        find_about(model, scattered_pictures(model.image_size, 8), OBJECTS_FOUND)
    return model


def _report(
    costs: Sequence[Cost], engines: dict[str, list[EngineCost]], config: dict[str, Any], started: float
) -> dict[str, Any]:
    import torch

    from ssdir.evaluation.provenance import provenance

    config |= {"threads": torch.get_num_threads()}
    return {
        "costs": [asdict(cost) for cost in costs],
        "engines": {name: [asdict(each) for each in found] for name, found in engines.items()},
        "provenance": provenance(config, 0, None, "cpu", time.perf_counter() - started),
    }


def _last(out: Path | None) -> StoredBench | None:
    """What the file that is to be replaced holds, if it is one of ours, and of such a CPU."""
    from ssdir.benchmark.stored import StoredBench
    from ssdir.config import parse
    from ssdir.evaluation.provenance import other_cpu

    if out is None or not out.is_file():
        return None
    try:
        content = parse(StoredBench, read_json(out), source=f"'{out}'")
    except InputError as error:
        warn(f"nothing is compared with what is replaced: {error}")
        return None
    if difference := other_cpu(content.provenance.model_dump()):
        warn(difference)
        return None
    return content


def _show(report: dict[str, Any], before: StoredBench | None) -> None:
    """For each model and size, a table of stages; then one of engines for each model."""
    slower = _slower(report, before)
    for name, size in dict.fromkeys((row["model"], row["image_size"]) for row in report["costs"]):
        columns = ("objects", "stage", *_SPREAD, Column("MiB", justify="right"), "")
        table = Table(*columns, title=f"{name}, {size}×{size} px", title_justify="left")
        for row in report["costs"]:
            if (row["model"], row["image_size"]) == (name, size):
                memory = "" if row["memory_mb"] is None else f"{row['memory_mb']:.0f}"
                count = "every cell" if row["objects"] is None else str(row["objects"])
                mark = "slower than before" if _key(row) in slower else ""
                table.add_row(count, row["stage"], *_milliseconds(row["seconds"]), memory, mark)
        stdout().print(table)
    for name, rows in report["engines"].items():
        times, found = Column("times as fast", justify="right"), Column("objects", justify="right")
        table = Table("engine", *_SPREAD, times, found, title=f"{name}, encoding", title_justify="left")
        for row in rows:
            factor = f"{row['speedup']['median']:.2f}"
            table.add_row(row["engine"], *_milliseconds(row["seconds"]), factor, f"{row['objects']:.1f}")
        stdout().print(table)


def _milliseconds(seconds: dict[str, float]) -> list[str]:
    return [f"{1000 * seconds[name]:.2f}" for name in ("median", "min", "max")]


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["model"], row["image_size"], row["objects"], row["stage"]


def _slower(report: dict[str, Any], before: StoredBench | None) -> set[tuple[Any, ...]]:
    from ssdir.benchmark.timing import Spread, is_worse

    earlier = [] if before is None else [cost.model_dump() for cost in before.costs]
    old = {_key(row): Spread(**row["seconds"]) for row in earlier}
    now = {_key(row): Spread(**row["seconds"]) for row in report["costs"]}
    return {key for key in now.keys() & old.keys() if is_worse(now[key], old[key])}
