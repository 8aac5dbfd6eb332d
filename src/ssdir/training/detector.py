"""One trained detector for every model that is to be built on the same one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ssdir.errors import InputError
from ssdir.models.detected import DetectedConfig, DetectedModel
from ssdir.models.registry import build_model
from ssdir.models.zoo import load_model, save_model
from ssdir.training.recipe import DATA_FILE, RECIPE_FILE, SUMMARY_FILE, Recipe, read_recipe
from ssdir.training.summary import has_ended

_SELECTION = {"score_threshold", "nms", "nms_threshold", "max_objects"}
"""What a trained detector returns; its loss does not know them."""

_DECIDING = {"seed", "classes", "boxes", "vocabulary", "min_side", "drop_empty", "augment", "detector"}


def detector_settings(recipe: Recipe) -> dict[str, Any] | None:
    """All of a recipe that decides the weights of its detector; None for models without one."""
    if not isinstance(recipe.model, DetectedConfig):
        return None
    settings = recipe.model_dump(mode="json", include=_DECIDING)
    if recipe.precision != "auto":
        settings["precision"] = recipe.precision
    if recipe.workers and any(settings["augment"].values()):  # Each worker draws its own random numbers.
        settings["workers"] = recipe.workers
    return {**settings, "model": recipe.model.detector.model_dump(mode="json", exclude=_SELECTION)}


def adopt_detector(run: Path, recipe: Recipe, out: Path) -> None:
    """Gives a run the trained detector of another one: afterwards it is as if it had trained it itself.

    Args:
        run: folder of a run whose detector is trained.
        recipe: of the run to be; what its detector returns, such as the least score, is as it says.
        out: its folder, with `data.json`.

    Raises:
        InputError: if `run` has no trained detector, or it was trained by other settings or on other data.
    """
    source = run / "detector"
    if not has_ended(run, "detector"):
        raise InputError(f"'{run}' has no trained detector: train its stage detector first")
    if detector_settings(read_recipe(run / RECIPE_FILE)) != detector_settings(recipe):
        raise InputError(f"'{run}' has a detector of another recipe than '{out}' asks for: train one for it")
    if (run / DATA_FILE).read_bytes() != (out / DATA_FILE).read_bytes():
        raise InputError(f"'{run}' has a detector of other data than those of '{out}': train one for it")
    trained = load_model(source / "model")
    assert isinstance(trained, DetectedModel)
    assert isinstance(recipe.model, DetectedConfig)
    detector = trained.detector
    detector.config = recipe.model.detector
    whole = build_model(recipe.model, trained.class_names, detector=detector)
    save_model(whole, out / "detector" / "model", description=f"{recipe.name}: detector only")
    # Last: only with it does the stage count as ended.
    shutil.copyfile(source / SUMMARY_FILE, out / "detector" / SUMMARY_FILE)
