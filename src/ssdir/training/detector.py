"""A trained detector of one run, adopted by another run of the same detector."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ssdir.errors import InputError
from ssdir.models.detected.model import DetectedConfig
from ssdir.models.detector.ssd import SSD
from ssdir.models.io import load_model, save_model
from ssdir.training.recipe import Recipe
from ssdir.training.run_folder import SUMMARY_FILE, has_ended, read_fingerprint, read_run_recipe

_SELECTION = {"score_threshold", "nms", "nms_threshold", "max_objects"}
"""Settings of a trained detector that select what it returns; its loss does not depend on them."""

_DECIDING = {"seed", "classes", "extent", "vocabulary", "outside", "min_side", "drop_empty", "augment", "detector"}


def detector_settings(recipe: Recipe) -> dict[str, Any] | None:
    """Returns all settings of a recipe that decide the weights of its detector; None for models without one."""
    if not isinstance(recipe.model, DetectedConfig):
        return None
    settings = recipe.model_dump(mode="json", include=_DECIDING)
    del settings["augment"]["representation"]
    if recipe.precision != "auto":
        settings["precision"] = recipe.precision
    if recipe.workers and recipe.augment.changes_images:  # Each worker draws random numbers of its own.
        settings["workers"] = recipe.workers
    return {**settings, "model": recipe.model.ssd.model_dump(mode="json", exclude=_SELECTION)}


def check_detector(run: Path, recipe: Recipe, data_hash: str, out: Path) -> None:
    """Checks that a run has a detector that another one can adopt.

    Args:
        run: folder of a run whose detector is trained.
        recipe: of the run to be.
        data_hash: the fingerprint of its training data.
        out: its folder, which may not be there.

    Raises:
        InputError: if `run` has no trained detector, or it was trained by other settings or on other data; or
            if it is the run to be.
    """
    if run.resolve() == out.resolve():
        raise InputError(f"'{run}' can't adopt its own detector: name another run's")
    if not has_ended(run, "detector"):
        raise InputError(f"'{run}' has no trained detector: train its stage detector first")
    if detector_settings(read_run_recipe(run)) != detector_settings(recipe):
        raise InputError(f"'{run}' has a detector of another recipe than '{out}' asks for: train one for it")
    if read_fingerprint(run) != data_hash:
        raise InputError(f"'{run}' has a detector of other data than those of '{out}': train one for it")


def adopt_detector(run: Path, recipe: Recipe, out: Path) -> None:
    """Copies the trained detector of another run into a run, which is then as if it had trained it.

    Args:
        run: folder of a run that `check_detector` accepted.
        recipe: of the run to be, whose score threshold and the like the detector takes.
        out: its folder.
    """
    source = run / "detector"
    detector = load_model(source / "model")
    assert isinstance(detector, SSD)
    assert isinstance(recipe.model, DetectedConfig)
    detector.config = recipe.model.ssd
    save_model(detector, out / "detector" / "model", f"{recipe.name}: its detector, trained in another run")
    # Last: only with it does the stage count as ended.
    shutil.copyfile(source / SUMMARY_FILE, out / "detector" / SUMMARY_FILE)
