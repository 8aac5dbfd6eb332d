"""`ssdir bench MODEL --plan IMAGES`: what encoding many images takes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import typer
from rich.table import Column, Table

from ssdir.console import next_step, progress, stdout
from ssdir.documents import json_text
from ssdir.outputs import atomic_file

ONLY_PLANS = ("images", "price_per_core_hour", "price_per_gpu_hour", "hours")
"""Parameters of `ssdir bench` that need --plan; with it, only these, --out, --json and --force are used."""


class Wanted(NamedTuple):
    """The values of the options of a plan."""

    images: str
    examples: list[str] | None
    hours: float
    core_hour_price: float | None
    gpu_hour_price: float | None


def plan_encoding(model: str, wanted: Wanted, out: Path | None, as_json: bool, force: bool) -> None:
    """Measures encoding, then prints or writes the plan."""
    from ssdir.benchmark.encoding_cost import measure_encoding
    from ssdir.benchmark.plan import PlanOptions, plan, read_count
    from ssdir.benchmark.plan_tables import plan_tables

    options = PlanOptions(read_count(wanted.images), wanted.hours, wanted.core_hour_price, wanted.gpu_hour_price)
    options.check()
    with progress("measuring") as advance:
        cost = measure_encoding(model, wanted.examples, on_progress=advance)
    planned = plan(cost, options)
    text = json_text(planned.model_dump())
    if out is not None:
        with atomic_file(out, force) as file:
            file.write_text(text, encoding="utf-8")
    if as_json:
        typer.echo(text, nl=False)
        return
    for shown in plan_tables(planned):
        columns = [Column(min_width=27), Column(justify="right", min_width=13), Column()]
        table = Table(*columns, title=f"\n{shown.title}", title_justify="left", show_header=False, box=None)
        for row in shown.rows:
            table.add_row(*row)
        stdout().print(table)
    next_step("encode", model, *(wanted.examples or ["IMAGES"]), "--out", "objects")
