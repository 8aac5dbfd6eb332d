"""The folder of a run: whose it is, who may write into it now, and what it starts with."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from ssdir.documents import json_text, yaml_text
from ssdir.errors import InputError
from ssdir.outputs import atomic_file, why_not_written
from ssdir.training.recipe import DATA_FILE, RECIPE_FILE, STAGES, Recipe, read_fingerprint, read_run_recipe

LOCK = ".lock"
"""File in the folder of a run that the training process locks."""


def check_folder(recipe: Recipe, data_hash: str, out: Path, *, resume: bool, force: bool) -> None:
    """Checks that the folder of a run can be made or replaced, or is the run to go on with; writes nothing.

    Args:
        recipe: of the run.
        data_hash: the fingerprint of its training data.
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
        changed = [key for key in current if key != "stage" and stored[key] != current[key]]
        if changed:
            raise InputError(
                f"'{out}' was started from another recipe (it differs in '{changed[0]}'): use a new --out"
            )
        if read_fingerprint(out) != data_hash:
            raise InputError(f"'{out}' was started on other data: give the same --data, or use a new --out")
    elif out.exists() and any(path.name not in (LOCK, DATA_FILE) for path in out.iterdir()):
        # A recipe alone may be anyone's.
        if not file.is_file() or not (out / DATA_FILE).is_file():
            raise InputError(f"'{out}' holds files, and is not a training run: use a new --out")
        if not force:
            raise InputError(f"'{out}' exists: pass --resume to go on with it, or --force to replace it")


def prepare_folder(recipe: Recipe, data_hash: str, out: Path, *, resume: bool) -> None:
    """Writes what a new run is known by, and deletes the stages and the model of the run that it replaces.

    Args:
        recipe: of the run.
        data_hash: the fingerprint of its training data.
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
        (out / DATA_FILE, json_text({"fingerprint": data_hash}, None)),
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
