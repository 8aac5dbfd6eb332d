"""The folder of a run: its records, and which process may write into it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import Field
from safetensors import SafetensorError

from ssdir.config import Record, parse, parse_values
from ssdir.documents import MAX_YAML_BYTES, json_text, read_json, read_text, yaml_text
from ssdir.errors import InputError
from ssdir.outputs import atomic_file, why_not_written
from ssdir.training.recipe import NOT_DECIDING, STAGES, Recipe

RECIPE_FILE, DATA_FILE, SUMMARY_FILE = "recipe.yaml", "data.json", "summary.json"
LOCK = ".lock"
"""File in the folder of a run that the training process locks."""
TOKEN_FILE = ".processes"
"""File by which processes on other machines recognise the run's folder."""


class RunData(Record):
    """Contents of `data.json` in the folder of a run: its data.

    Attributes:
        fingerprint: of the split to train on.
        val_fingerprint: of the split to validate on; None where it was not recorded.
    """

    fingerprint: str
    val_fingerprint: str | None = None

    def is_same(self, other: RunData, *, with_val: bool = True) -> bool:
        """Returns whether these are another run's data; with `with_val`, both splits count, where recorded."""
        differ = with_val and self.val_fingerprint not in (None, other.val_fingerprint)
        return self.fingerprint == other.fingerprint and not differ


class StageSummary(Record):
    """Contents of `summary.json` in the folder of a stage.

    Attributes:
        ended: whether the stage has ended.
        wall_seconds: over all its sessions.
        device: on which the last session ran.
        precision: of the last session, by its name in Lightning.
        kept_epoch: the epoch whose weights were kept, where epochs are measured; the first one is 0, as in
            metrics.csv.
        kept_ap50: its AP50 on the validation split.
    """

    ended: bool = False
    wall_seconds: float = Field(0.0, ge=0)
    device: str | None = None
    precision: str | None = None
    kept_epoch: int | None = None
    kept_ap50: float | None = None


def read_summary(run: Path, stage: str) -> StageSummary:
    """Reads the summary of a run's stage; returns the default one if the stage has not run.

    Raises:
        InputError: if the file is damaged.
    """
    file = run / stage / SUMMARY_FILE
    return parse(StageSummary, read_json(file), source=f"'{file}'") if file.is_file() else StageSummary()


def read_data(run: Path) -> RunData | None:
    """Reads the fingerprints of the data that a run was started on; returns None if the folder has no such file.

    Raises:
        InputError: if the file is damaged.
    """
    file = run / DATA_FILE
    return parse(RunData, read_json(file), source=f"'{file}'") if file.is_file() else None


def read_fingerprint(run: Path) -> str | None:
    """Reads the fingerprint of the split that a run trains on; for errors and None see `read_data`."""
    return None if (data := read_data(run)) is None else data.fingerprint


def read_training(model: Path) -> dict[str, Any] | None:
    """Reads how the model in a run's folder was trained, for the record beside its metrics.

    Args:
        model: folder of the model.

    Returns:
        `recipe`, `wall_seconds` of each stage, and, where they are known, the `device` of the last one and the
        `precision` that it was trained in, by its name in Lightning; None if the folder is in no run.

    Raises:
        InputError: if a file of the run is damaged.
    """
    run = model.resolve().parent
    file = run / RECIPE_FILE
    if not file.is_file():
        return None
    summaries = {stage: read_summary(run, stage) for stage in STAGES if (run / stage / SUMMARY_FILE).is_file()}
    notes = {
        name: note
        for summary in summaries.values()
        for name in ("device", "precision")
        if (note := getattr(summary, name)) is not None
    }
    return {
        "recipe": parse_values(read_text(file, MAX_YAML_BYTES), f"'{file}'"),
        "wall_seconds": {stage: round(summary.wall_seconds, 1) for stage, summary in summaries.items()},
        **notes,
    }


def read_run_recipe(run: Path) -> Recipe:
    """Reads the recipe that a run was started from.

    Raises:
        InputError: if the file is missing, empty or damaged.
    """
    file = run / RECIPE_FILE
    values = parse_values(read_text(file, MAX_YAML_BYTES), f"'{file}'")
    if not values:
        raise InputError(f"'{file}' is empty, so the run can't go on: use a new --out")
    return parse(Recipe, values, source=f"'{file}'")


def write_summary(folder: Path, seconds: float, *, ended: bool, **notes: float | str | None) -> None:
    """Writes the summary of a stage.

    Args:
        folder: of the stage.
        seconds: wall-clock time of all its sessions.
        ended: whether the stage has ended.
        notes: other records.
    """
    with atomic_file(folder / SUMMARY_FILE, force=True) as temporary:
        temporary.write_text(json_text({"ended": ended, "wall_seconds": seconds, **notes}), encoding="utf-8")


def has_ended(out: Path, stage: str) -> bool:
    """Returns whether a run's stage has ended, and its model is there: that of the last one is the run's."""
    models = [out / stage / "model"] if stage == "detector" else [out / stage / "model", out / "model"]
    return read_summary(out, stage).ended and any((model / "config.json").exists() for model in models)


def check_folder(recipe: Recipe, data: RunData, out: Path, *, resume: bool, force: bool) -> None:
    """Checks that the folder of a run can be made or replaced, or is the run to go on with; writes nothing.

    Args:
        recipe: of the run.
        data: its fingerprints.
        out: its folder, which need not be there.
        resume: go on with the run that is there.
        force: replace the run that is there.

    Raises:
        InputError: if the folder is not a run's, is damaged, or is the run of another recipe or other data; if it
            is a run and neither `resume` nor `force` is set.
    """
    file = out / RECIPE_FILE
    if out.is_file():
        raise InputError(f"'{out}' is a file: --out takes the folder of a run")
    if file.exists() and resume:
        stored, current = read_run_recipe(out).model_dump(), recipe.model_dump()
        changed = [key for key in current if key not in NOT_DECIDING and stored[key] != current[key]]
        if changed:
            raise InputError(
                f"'{out}' was started from another recipe (it differs in '{changed[0]}'): use a new --out"
            )
        if (stored_data := read_data(out)) is None or not stored_data.is_same(data):
            raise InputError(f"'{out}' was started on other data: give the same --data, or use a new --out")
    elif out.exists() and any(path.name not in (LOCK, TOKEN_FILE, DATA_FILE) for path in out.iterdir()):
        # A recipe alone may be anyone's.
        if not file.is_file() or not (out / DATA_FILE).is_file():
            raise InputError(f"'{out}' holds files, and is not a training run: use a new --out")
        if not force:
            raise InputError(f"'{out}' exists: pass --resume to go on with it, or --force to replace it")


def prepare_folder(recipe: Recipe, data: RunData, out: Path, *, resume: bool) -> None:
    """Writes recipe and fingerprints of a new run, and deletes stages and model of the run that it replaces.

    Args:
        recipe: of the run.
        data: its fingerprints.
        out: its folder, which is there, and was checked by `check_folder`.
        resume: leave the run that is there as it is.
    """
    file = out / RECIPE_FILE
    if file.exists() and resume:
        return
    for folder in (out / name for name in (*STAGES, "model")):
        if folder.exists():
            shutil.rmtree(folder)
    for path, text in (
        (out / DATA_FILE, json_text(data.model_dump(exclude_none=True), None)),
        (file, yaml_text(recipe.model_dump(mode="json"))),
    ):
        with atomic_file(path, force=True) as temporary:
            temporary.write_text(text, encoding="utf-8")


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Makes the folder of a run, and keeps other processes from training in it."""
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / LOCK, timeout=0):
            yield
    except Timeout:
        raise InputError(
            f"'{out}' is being trained by another process: wait for its end, or use a new --out"
        ) from None


@contextmanager
def resumable(out: Path) -> Iterator[None]:
    """Says why a run could not be written, and that it can be resumed."""
    try:
        yield
    except (OSError, SafetensorError, InputError) as error:
        cause = error.__cause__ if isinstance(error, InputError) else error
        reason = why_not_written(cause) if isinstance(cause, Exception) else None
        if reason is None:
            raise
        raise InputError(
            f"training can't write to '{out}': {reason}; mend this, and go on with --resume"
        ) from error
