"""What a run adopts of another one instead of training it: a detector, or all of a model but its memory."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssdir.errors import InputError
from ssdir.evaluation.detection import RANKING_THRESHOLD
from ssdir.models.detected.model import DetectedConfig
from ssdir.models.detector.ssd import SSD
from ssdir.models.io import load_model, save_model
from ssdir.models.registry import build_model, without_pretrained
from ssdir.models.ssdir import SSDIR
from ssdir.training.recipe import Recipe
from ssdir.training.run_folder import SUMMARY_FILE, RunData, has_ended, read_data, read_run_recipe, write_summary

_SELECTION = {"score_threshold", "nms", "nms_threshold", "max_objects"}
"""Settings of a trained detector that select what it returns; its loss does not depend on them, but AP50 does."""

_DECIDING = {
    "seed",
    "classes",
    "extent",
    "vocabulary",
    "outside",
    "min_side",
    "drop_empty",
    "val_split",
    "augment",
    "detector",
}


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
    selection = _SELECTION
    if recipe.detector.measures_epochs:  # By what it selects, from `RANKING_THRESHOLD` on.
        selection = {"score_threshold"} if recipe.model.score_threshold >= RANKING_THRESHOLD else set()
    return {**settings, "model": recipe.model.ssd.model_dump(mode="json", exclude=selection)}


def adopted_stages(start: str | Path, recipe: Recipe) -> tuple[str, ...]:
    """Returns the stages of a recipe that are adopted from a run or model, see `check_start`."""
    run = Path(start)
    has_more = has_ended(run, "representation") or not has_ended(run, "detector")
    return recipe.stages[: 2 if "memory" in recipe.stages and has_more else 1]


def check_start(start: str | Path, recipe: Recipe, class_names: Sequence[str], data: RunData, out: Path) -> None:
    """Checks that a run or model has what another run can adopt.

    A recipe with a memory adopts all else, of a model that may have been trained on other data: single images.
    Other recipes adopt the detector, and so does one with a memory if `start` is a run that has no more.

    Args:
        start: folder of a run; or, for all of a model, anything that `load_model` takes.
        recipe: of the run to be.
        class_names: of its training data.
        data: its fingerprints.
        out: its folder, which may not be there.

    Raises:
        InputError: if `start` has no such parts, or they are of another recipe, or, for a detector alone, of other
            data; or if it is the run to be.
    """
    if Path(start).resolve() == out.resolve():
        raise InputError(f"'{start}' can't adopt its own parts: name another run")
    if "representation" in adopted_stages(start, recipe):
        _check_frame_model(start, recipe, class_names)
    else:
        check_detector(Path(start), recipe, data, out)


def adopt(start: str | Path, recipe: Recipe, class_names: list[str], out: Path) -> None:
    """Copies trained parts into a run, which is then as if it had trained them; see `check_start`."""
    if "representation" not in adopted_stages(start, recipe):
        adopt_detector(Path(start), recipe, out)
        return
    model = build_model(without_pretrained(recipe.frame_model), class_names)
    assert isinstance(model, SSDIR)
    model.load_state_dict(load_model(start).state_dict(), strict=False)
    model.eval()
    text = f"{recipe.name}, without its memory: from {Path(start).name}"
    # The detector is last: with it, the parts count as adopted.
    for stage, part in (("representation", model), ("detector", model.detector)):
        save_model(part, out / stage / "model", text)
        write_summary(out / stage, 0.0, ended=True)


def _check_frame_model(start: str | Path, recipe: Recipe, class_names: Sequence[str]) -> None:
    """Checks that a model has the parts of a recipe's, and learned the same classes."""
    model = load_model(start)
    if not isinstance(model, SSDIR):
        raise InputError(f"'{start}' is of kind {model.config.kind}, and {recipe.name} has an SSDIR's parts")
    # A trained model no longer names the weights that its backbone started from.
    wanted, found = (
        _flat(config.model_dump(mode="json", exclude=_NOT_PARTS))
        for config in (without_pretrained(recipe.model), model.config)
    )
    different = [key for key in wanted if wanted[key] != found.get(key)]
    if different:
        key = different[0]
        raise InputError(
            f"'{start}' has other parts than '{recipe.name}' asks for: model.{key} is {found.get(key)} there, and "
            f"{wanted[key]} in the recipe"
        )
    if list(class_names) != model.class_names:
        raise InputError(
            f"'{start}' knows the classes {', '.join(model.class_names)}, and the data have "
            f"{', '.join(class_names)}: pass classes= with the same list"
        )


_NOT_PARTS: Any = {"loss": True, "consistency": True, "memory": True, "ssd": _SELECTION}
"""Settings of an SSDIR that no weight of its first stages depends on once these are trained."""


def _flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Returns nested values by their dotted paths."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{path}{key}.") if isinstance(value, Mapping) else {f"{path}{key}": value}
    return flat


def check_detector(run: Path, recipe: Recipe, data: RunData, out: Path) -> None:
    """Checks that a run has a detector that another one can adopt.

    Args:
        run: folder of a run whose detector is trained.
        recipe: of the run to be.
        data: its fingerprints; the split to validate on counts where epochs are measured on it.
        out: its folder, which may not be there.

    Raises:
        InputError: if `run` has no trained detector, or it was trained by other settings or on other data.
    """
    if not has_ended(run, "detector"):
        raise InputError(f"'{run}' has no trained detector: train its stage detector first")
    if detector_settings(read_run_recipe(run)) != detector_settings(recipe):
        raise InputError(f"'{run}' has a detector of another recipe than '{out}' asks for: train one for it")
    stored = read_data(run)
    if stored is None or not stored.is_same(data, with_val=recipe.detector.measures_epochs):
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
