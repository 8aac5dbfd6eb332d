"""`ssdir bench`: time and memory of models on this machine, by stage, objects and engine; plans of encoding."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from ssdir.commands.options import AsJson, BatchSize, Force
from ssdir.commands.plan import ONLY_PLANS, Wanted, plan_encoding
from ssdir.console import next_step, progress, stdout
from ssdir.documents import json_text
from ssdir.errors import InputError
from ssdir.outputs import atomic_file, claim

PLAN = "Plan of encoding many images"


def bench(
    context: typer.Context,
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
    plan: Annotated[
        str | None,
        typer.Option(
            metavar="IMAGES",
            help="Number of images, such as 1e9: instead of stages, measure encoding by cores and GPUs, and plan "
            "hours, machines, output and index.",
            rich_help_panel=PLAN,
        ),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH",
            help="Images like those to encode, folders or 'patterns*'; by default samples.",
            rich_help_panel=PLAN,
        ),
    ] = None,
    hours: Annotated[float, typer.Option(help="Hours in which to encode them.", rich_help_panel=PLAN)] = 24,
    price_per_core_hour: Annotated[
        float | None, typer.Option(help="What you pay for a core for an hour.", rich_help_panel=PLAN)
    ] = None,
    price_per_gpu_hour: Annotated[
        float | None, typer.Option(help="What you pay for a GPU for an hour.", rich_help_panel=PLAN)
    ] = None,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Measure models: time and memory of each stage, and time of encoding by each engine; or plan encoding.

    Variants are measured in turns; times are medians, with the smallest and largest repeat. With --out and
    --force, results that are slower than those in the replaced file are marked.
    """
    if out is not None:
        claim(out, force)
    _check_go_together(context, plans=plan is not None)
    if plan is not None:
        if len(models) > 1:
            raise InputError(f"--plan takes one model, got {len(models)}")
        wanted = Wanted(plan, images, hours, price_per_core_hour, price_per_gpu_hour)
        plan_encoding(models[0], wanted, out, as_json, force)
        return
    if chart is not None:
        claim(chart, force, (".png",))
    counts = _numbers(objects, "--objects")
    sizes = None if image_sizes is None else _numbers(image_sizes, "--image-size")
    from ssdir.benchmark import report as library
    from ssdir.benchmark.costs import chart_of

    options = library.BenchOptions(counts, sizes, batch_size, repeats, memory, engines)
    before = None if out is None else library.read_comparable(out, options)
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


def _check_go_together(context: typer.Context, *, plans: bool) -> None:
    """Refuses options that would have no effect beside, or without, --plan."""
    either = {"models", "plan", "out", "as_json", "force"}
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        given = source is not None and source.name == "COMMANDLINE"
        if given and name not in either and (name in ONLY_PLANS) != plans:
            option = max(parameter.opts, key=len)
            raise InputError(f"{option} has no effect {'with' if plans else 'without'} --plan: leave it out")


def _numbers(text: str, option: str) -> list[int]:
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = [0]
    if numbers[0] < 1:
        raise InputError(f"{option} must be whole numbers of at least 1, separated by commas, got '{text}'")
    return numbers
