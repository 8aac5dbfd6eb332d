"""`ssdir bench`: time and memory of models on this machine, by stage, number of objects and engine."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from ssdir.commands.options import AsJson, BatchSize, Force
from ssdir.console import next_step, progress, stdout
from ssdir.documents import json_text
from ssdir.errors import InputError
from ssdir.outputs import atomic_file, claim


def bench(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...", help="Names of shipped models or presets, or folders of models or runs."
        ),
    ],
    objects: Annotated[str, typer.Option(help="Numbers of objects per image, separated by commas.")] = "1,10,50",
    image_sizes: Annotated[
        str | None,
        typer.Option(
            "--image-size", help="Sides of images in pixels, separated by commas; by default the model's."
        ),
    ] = None,
    batch_size: BatchSize = 8,
    repeats: Annotated[int, typer.Option(min=1, help="Number of measured repeats.")] = 7,
    memory: Annotated[
        bool,
        typer.Option(
            "--memory/--no-memory", help="Also measure each stage's peak memory, in processes of their own."
        ),
    ] = True,
    engines: Annotated[
        bool,
        typer.Option(
            "--engines/--no-engines", help="Also measure encoding by each engine, ONNX and int8 included."
        ),
    ] = True,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    chart: Annotated[Path | None, typer.Option(help="PNG of encoding times, by objects and image size.")] = None,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Measure models: time and memory of each stage, and time of encoding by each engine.

    Variants are measured in turns; times are medians, with the smallest and largest repeat. With --out and
    --force, results that are slower than those in the replaced file are marked.
    """
    if out is not None:
        claim(out, force)
    if chart is not None:
        claim(chart, force, (".png",))
    counts = _numbers(objects, "--objects")
    sizes = None if image_sizes is None else _numbers(image_sizes, "--image-size")
    from ssdir.benchmark import report as library
    from ssdir.benchmark.costs import chart_of

    before = None if out is None else library.read_comparable(out)
    options = library.BenchOptions(counts, sizes, batch_size, repeats, memory, engines)
    with progress("measuring") as advance:
        report = library.bench(models, options, advance)
    text = json_text(report.model_dump())
    with ExitStack() as outputs:  # Both, or none.
        if out is not None:
            outputs.enter_context(atomic_file(out, force)).write_text(text, encoding="utf-8")
        if chart is not None:
            outputs.enter_context(atomic_file(chart, force)).write_bytes(chart_of(report.costs))
    if as_json:
        typer.echo(text, nl=False)
        return
    for shown in library.tables(report, before):
        columns = [Column(name, justify="right") for name in shown.columns]
        table = Table(*columns, title=shown.title, title_justify="left")
        for row in shown.rows:
            table.add_row(*row)
        stdout().print(table)
    next_step("export", models[0], "--out", "encoder.onnx")


def _numbers(text: str, option: str) -> list[int]:
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = [0]
    if numbers[0] < 1:
        raise InputError(f"{option} must be whole numbers of at least 1, separated by commas, got '{text}'")
    return numbers
