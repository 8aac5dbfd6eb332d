"""`ssdir reproduce`: the paper's tables and figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from ssdir.commands.options import AsJson, Device
from ssdir.console import fail, next_step, say, stdout
from ssdir.documents import json_text
from ssdir.errors import EXIT_INTERRUPTED, EXIT_UNFINISHED, InputError


def reproduce(
    experiments: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...|all",
            help="table1, table2, figure2, figure3, figure4, scale, depth, masks, properties, faces, voc, "
            "own-scenes, clusters, redundancy, uncertainty, cost, classes or ablation; or photos, alone.",
        ),
    ],
    scale: Annotated[str, typer.Option(help="smoke, cpu, paper, or a plan of your own as a .yaml file.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Folder for results and the report.")] = Path("results"),
    runs: Annotated[
        Path, typer.Option(help="Folder for data sets and trainings, which later calls reuse.")
    ] = Path("runs"),
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with MNIST/, CLEVR, WIDER FACE, voc/ or coco128/, if you have them."),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=0, help="Start no further training after so many minutes; the same command continues."),
    ] = None,
    so_far: Annotated[
        bool, typer.Option("--so-far", help="Train nothing; report the results that are there.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be trained, and for how long.")
    ] = False,
    row: Annotated[
        list[str] | None,
        typer.Option(
            help="For photos: a row, such as crops-224, NAME=MODEL or NAME=pooled:MODEL; may be repeated."
        ),
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="For photos: model that detects boxes for rows without a detector."),
    ] = None,
    train_split: Annotated[
        str | None, typer.Option(help="For photos: the split to learn from, such as train[150:]; else train.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="For photos: the split to test on, such as train[:150]; else val or, without it, folds."
        ),
    ] = None,
    as_json: AsJson = False,
    device: Device = None,
) -> None:
    """Reproduce the paper's tables and figures: train what is missing, measure, write a report.

    `photos` compares embeddings of real photographs; its --data may be a data set of your own. Ends with exit code
    3 when the minutes are over before the end.
    """
    if "photos" in experiments:
        if experiments != ["photos"] or dry_run or so_far or as_json or data is None:
            raise InputError("photos is measured alone, with --data and without --dry-run, --so-far and --json")
        with _resumable():
            from ssdir.reproduce.photos.compare import compare_photographs
            from ssdir.reproduce.photos.photographs import Splits

            splits = Splits(train_split or "train", split)
            say(f"report: {compare_photographs(row or [], data, out, detector, minutes, device, splits)}")
        return
    if row or detector or train_split or split:
        raise InputError("--row, --detector, --train-split and --split are for photos alone")
    if dry_run:
        _list(experiments, scale, runs, data, as_json)
        return
    if as_json:
        raise InputError("--json needs --dry-run: results are written as JSON in --out anyway")
    with _resumable():
        from ssdir.reproduce.reproduce import reproduce as run_plan

        say(f"report: {run_plan(experiments, scale, out, runs, data, minutes, so_far, device)}")


@contextmanager
def _resumable() -> Iterator[None]:
    """Ends the command with a sentence where time is over, or the user interrupts it."""
    from ssdir.training.session import OutOfTime

    try:
        yield
    except OutOfTime:
        fail("time is over: what is done is kept; continue with the same command", EXIT_UNFINISHED)
    except KeyboardInterrupt:
        fail("interrupted: what is done is kept; continue with the same command", EXIT_INTERRUPTED)


def _list(experiments: list[str], scale: str, runs: Path, data: Path | None, as_json: bool) -> None:
    from ssdir.formatting import format_seconds
    from ssdir.reproduce.reproduce import forecast

    found, left_out = forecast(experiments, scale, runs, data)
    if as_json:
        listed = {"runs": [dataclasses.asdict(run) for run in found], "left_out": left_out}
        typer.echo(json_text(listed), nl=False)
        return
    table = Table("run", "preset", "data", "trainings", Column("time", justify="right"))
    for run in found:
        made = run.trainings - run.missing
        count = f"{run.trainings}, {made} done" if made else str(run.trainings)
        time = format_seconds(run.seconds) if run.seconds else "done"
        table.add_row(run.group, run.preset, run.data, count, time)
    stdout().print(table)
    for sentence in left_out:
        say(sentence)
    trainings, seconds = sum(run.trainings for run in found), sum(run.seconds for run in found)
    say(f"{trainings} trainings, {format_seconds(seconds)} to go")
    more: list[str | Path] = [] if data is None else ["--data", data]
    next_step("reproduce", *experiments, "--scale", scale, *more)
