"""`ssdir train`: a detector, the representation on top of it, and the memory of models of clips."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssdir.commands.options import AsJson, Device, Force
from ssdir.commands.threads import let_waiting_threads_sleep
from ssdir.console import fail, next_step, print_json, say, warn
from ssdir.errors import EXIT_INTERRUPTED, InputError

if TYPE_CHECKING:
    from ssdir.training.fit import RunSummary


def train(
    recipe: Annotated[
        str,
        typer.Argument(metavar="PRESET|FILE.yaml", help="A preset (see ssdir models), or a recipe of your own."),
    ],
    data: Annotated[Path, typer.Option(help="Folder of a data set with a split to train on.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Changes of the recipe, such as detector.epochs=3."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    as_json: AsJson = False,
    force: Force = False,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="RUN|MODEL",
            help="A run whose trained detector to keep; with a memory to train: a model to keep all else of.",
        ),
    ] = None,
    device: Device = None,
) -> None:
    """Train a detector, on top of it the representation, and on clips the memory (stage=all, or one of these)."""
    let_waiting_threads_sleep()
    from ssdir.training.recipe import read_recipe

    settings = read_recipe(recipe, overrides or [])
    if not data.exists():
        raise InputError(f"data folder '{data}' does not exist: make one with ssdir data scatter")
    from ssdir.data.readers.registry import find_layout
    from ssdir.device import choose_device, device_name
    from ssdir.models.io import check_parts
    from ssdir.training.fit import train as fit
    from ssdir.training.processes import find_place
    from ssdir.training.run_folder import RECIPE_FILE
    from ssdir.training.session import Session

    # The number of classes is not known until the data are read.
    check_parts(settings.model, recipe, ["object"] if settings.classes == "object" else ["one", "another"])
    layout, is_first = find_layout(data), not find_place(settings).rank
    divided = layout.held_out_of(data) if is_first and settings.val_split == "val" else None
    if is_first:
        warn(f"training on {device_name(choose_device(device))}")
        if divided is not None:
            warn(f"'{data}' has no split val with images: a tenth of {divided} is held out to validate on")
    try:
        summary = fit(settings, data, out, resume=resume, force=force, start=start, session=Session(device=device))
    except KeyboardInterrupt:
        if not (out / RECIPE_FILE).exists():
            raise
        fail(f"interrupted: '{out}' is kept; continue with the same command and --resume", EXIT_INTERRUPTED)
    if is_first:  # One of several processes prints.
        _print_result(recipe, overrides or [], data, out, summary, as_json)


def _print_result(
    recipe: str, overrides: list[str], data: Path, out: Path, summary: RunSummary, as_json: bool
) -> None:
    """Prints the time of each stage and which epoch of the detector was kept, then what to do next."""
    from ssdir.data.readers.registry import find_layout
    from ssdir.data.readers.splits import find_split
    from ssdir.training.run_folder import read_summary

    kept, is_model = read_summary(out, "detector"), summary.model_dir.exists()
    epoch = None if kept.kept_epoch is None else kept.kept_epoch + 1
    if as_json:
        model = summary.model_dir if is_model else None
        print_json({"model": model, "seconds": summary.seconds, "kept_epoch": epoch, "kept_ap50": kept.kept_ap50})
        return
    for stage, seconds in summary.seconds.items():
        say(f"{stage}: {seconds:.0f} s")
    if epoch is not None and kept.kept_ap50 is not None:
        say(
            f"detector: the weights kept are those after epoch {epoch}, with AP50 {kept.kept_ap50:.3f} on the "
            "split to validate on"
        )
    if not is_model:  # A detector alone is not a model yet.
        rest = [override for override in overrides if not override.startswith("stage=")]
        missing = "memory" if "representation" in summary.seconds else "representation"
        next_step("train", recipe, *rest, f"stage={missing}", "--data", data, "--out", out, "--resume")
        return
    measured = [] if find_split("test", find_layout(data).splits(data)) else ["--split", "val"]
    next_step("evaluate", summary.model_dir, data, *measured, "--out", "metrics.json")
