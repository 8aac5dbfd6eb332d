"""`ssdir data check`: checks a data set and recommends a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssdir.commands.options import AsJson, Extent, Force, Outside, Vocabulary
from ssdir.commands.threads import let_waiting_threads_sleep
from ssdir.console import next_step, progress, say
from ssdir.errors import EXIT_FAILED
from ssdir.outputs import claim


def check(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Folder of a data set.")],
    split: Annotated[str | None, typer.Option(help="Split to check; by default all splits.")] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="Preset to train (see ssdir models); by default one that suits the images."),
    ] = None,
    minutes: Annotated[
        float, typer.Option(min=0, help="Minutes that training may take; the recipe's epochs are chosen to fit.")
    ] = 12,
    extent: Extent = None,
    vocabulary: Vocabulary = None,
    outside: Outside = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to make, with all results, the recipe and an image grid.")
    ] = None,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Report what a data set contains, what is broken in it, and which recipe suits it.

    Layouts: COCO (annotations/instances_SPLIT.json), YOLO (data.yaml, or images/ and labels/), Pascal VOC
    (Annotations/*.xml), Darknet (obj.data), MOTChallenge (gt/gt.txt), WIDER FACE, CLEVR, CLEVRTEX, index masks
    (images/ and masks/), and .xml, .txt or COCO's .json beside the images.

    Ends with exit code 1 if training would stop at something.
    """
    if out is not None:
        claim(out, force)
    let_waiting_threads_sleep()
    from ssdir.data_check.check import check_data
    from ssdir.data_check.recommendation import recommend, recommend_within
    from ssdir.data_check.report import (
        IMAGE_GRID_FILE,
        RECOMMENDED_FILE,
        report_json,
        screen_lines,
        write_report,
    )

    with progress("reading images") as advance:
        result = check_data(path, split, preset, advance, extent=extent, vocabulary=vocabulary, outside=outside)
    # One split alone may not be the one to train on.
    is_timed = result.trainable and split is None
    recommendation = recommend_within(result, minutes) if is_timed else recommend(result)
    if out is not None:
        write_report(result, recommendation, out, force)
    if as_json:
        typer.echo(report_json(result, recommendation), nl=False)
    else:
        for line in screen_lines(result, recommendation):
            say(line)
        if out is None:
            only = [] if split is None else ["--split", split]
            only += [part for name, value in result.options.items() for part in (f"--{name}", value)]
            next_step("data", "check", path, *only, "--preset", result.preset, "--out", "check")
        elif result.trainable:
            say(f"see {out / IMAGE_GRID_FILE}")
            next_step("train", out / RECOMMENDED_FILE, "--data", path, "--out", "runs/first")
    if not result.trainable:
        raise typer.Exit(EXIT_FAILED)
