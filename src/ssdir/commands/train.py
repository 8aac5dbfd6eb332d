"""`ssdir train`: a detector, and the representation on top of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssdir.commands.options import Device, Force
from ssdir.commands.threads import let_waiting_threads_sleep
from ssdir.console import fail, next_step, say
from ssdir.errors import EXIT_INTERRUPTED, InputError


def train(
    recipe: Annotated[str, typer.Argument(metavar="PRESET|FILE.yaml", help="See ssdir models.")],
    data: Annotated[Path, typer.Option(help="Folder of a data set with a split to train on.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, e.g. detector.lr=1e-3.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    force: Force = False,
    device: Device = None,
) -> None:
    """Train a detector and, on top of it, the representation (stage=detector, representation or all)."""
    let_waiting_threads_sleep()
    from ssdir.training.recipe import read_recipe
    from ssdir.training.run_folder import RECIPE_FILE, read_summary

    settings = read_recipe(recipe, overrides or [])
    if not data.exists():
        raise InputError(f"data folder '{data}' does not exist: make one with ssdir data scatter")
    from ssdir.data.readers.registry import find_layout
    from ssdir.data.readers.splits import find_split
    from ssdir.models.io import check_parts
    from ssdir.training.devices import is_first_process
    from ssdir.training.fit import train as fit
    from ssdir.training.session import Session

    # The number of classes is not known until the data are read.
    check_parts(settings.model, recipe, ["object"] if settings.classes == "object" else ["one", "another"])
    layout = find_layout(data)
    divided = layout.held_out_of(data)
    if divided is not None and is_first_process():
        say(f"'{data}' has no split val: a tenth of {divided} is held out to validate on")
    try:
        summary = fit(settings, data, out, resume=resume, force=force, session=Session(device=device))
    except KeyboardInterrupt:
        if not (out / RECIPE_FILE).exists():
            raise
        fail(f"interrupted: '{out}' is kept; go on with the same command and --resume", EXIT_INTERRUPTED)
    if not is_first_process():  # One of several processes prints.
        return
    for stage, seconds in summary.seconds.items():
        say(f"{stage}: {seconds:.0f} s")
    kept = read_summary(out, "detector")
    if kept.kept_epoch is not None and kept.kept_ap50 is not None:
        say(
            f"detector: the weights kept are those after epoch {kept.kept_epoch + 1}, with AP50 "
            f"{kept.kept_ap50:.3f} on the split to validate on"
        )
    if not summary.model_dir.exists():  # A detector alone is not a model yet.
        rest = [override for override in overrides or [] if not override.startswith("stage=")]
        next_step("train", recipe, *rest, "stage=representation", "--data", data, "--out", out, "--resume")
        return
    measured = [] if find_split("test", layout.splits(data)) else ["--split", "val"]
    next_step("evaluate", summary.model_dir, data, *measured, "--out", "metrics.json")
