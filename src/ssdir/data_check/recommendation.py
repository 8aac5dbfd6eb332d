"""The recipe that a data check recommends: the preset, with the settings that suit the data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssdir.data.transforms import AugmentConfig
from ssdir.data_check.anchors import DetectorFit
from ssdir.data_check.check import DataCheck
from ssdir.data_check.size_priors import PriorFit
from ssdir.documents import yaml_text
from ssdir.formatting import counted, printable
from ssdir.models.detected.model import DetectedConfig
from ssdir.models.detected.vae import DetectedVAEConfig
from ssdir.training.recipe import Recipe, StageConfig, read_recipe

LEAST_SEEN, MOST_EPOCHS, SMALL_BATCH = 12_000, 200, 16
"""The images that a stage should see, counted once per epoch, the most epochs, and the largest batch: half of what
`clevr-128` sees of its 310. More epochs than for sixty images don't help."""

MORE_COPIES = 3
"""The boxes per object that a refiner learns from where images are few, as in `clevr-128`."""

AUGMENTED = {"flip": 0.5, "photometric": 0.5, "zoom_out": 0.3, "iou_crop": 0.5}
"""The augmentation where images are few and the preset has none; without `flip` where a mirrored object may be of
another class, and without `photometric` where images are mostly black."""

LEAST_PATIENCE, PATIENT_SHARE = 10, 0.25
"""The least number, and the share of all epochs, without improvement after which training stops."""

_SIDES = {"left", "right"}

_NAME_LENGTH = 200

WHOLE_VIEWS = {"view": "warp", "zoom": 1.6, "elastic": 0.016, "jitter": 0}
"""The second views where images are not mostly black, for presets whose views are over black."""


def recommended_yaml(check: DataCheck) -> str:
    """Formats a recipe for `ssdir train`: the preset with the recommended settings."""
    preset, split = check.preset, printable(check.split)
    if check.detector is not None:
        comments, model = _detector_changes(check.detector, preset, split)
    else:
        comments, model = _prior_changes(check.priors[preset], preset, split)
    recipe = read_recipe(preset)
    over_black = isinstance(recipe.model, DetectedVAEConfig) and recipe.model.consistency.view == "copy_paste"
    if over_black and not check.on_black:
        model["consistency"] = WHOLE_VIEWS
        comments.append("# Second views are of whole images: pasted elsewhere, objects would stand on black.")
    stages = _stage_changes(recipe, check)
    if stages:
        images = counted(check.summary.images, "image")
        comments.append(f"# Epochs for {images}: more are better, and take longer.")
        decoder = recipe.model.decoder if isinstance(recipe.model, DetectedVAEConfig) else None
        if decoder is not None and decoder.upsampling == "transposed" and not decoder.icnr:
            model["decoder"] = {"icnr": True}
            comments.append("# The decoder starts smooth: few images would leave the patterns of another start.")
        refiner = recipe.model.ssd.refiner if isinstance(recipe.model, DetectedConfig) else None
        if refiner is not None and refiner.copies < MORE_COPIES:
            model["ssd"]["refiner"] = {"copies": MORE_COPIES}
            comments.append("# The refinement of boxes learns from more of them, for few images have few.")
        if "augment" in stages:
            comments.append("# Images are augmented for the detector, which would learn few of them by heart.")
        if "keep" in stages.get("detector", {}):
            comments.append("# Kept is the epoch of the largest AP50 on the validation split.")
    name = printable(Path(check.root).resolve().name)[:_NAME_LENGTH] or preset
    values = {"base": preset, "name": name, **check.options, "model": model, **stages}
    return "\n".join(comments) + "\n" + yaml_text(values, flow=None)


def _stage_changes(recipe: Recipe, check: DataCheck) -> dict[str, Any]:
    """Returns changes by which few images are seen often enough, and are not memorised."""
    changes: dict[str, Any] = {}
    for name in recipe.stages:
        stage: StageConfig = getattr(recipe, name)
        epochs = min(MOST_EPOCHS, math.ceil(LEAST_SEEN / max(1, check.summary.images)))
        if epochs > stage.epochs:
            changes[name] = {"epochs": epochs, "batch_size": min(stage.batch_size, SMALL_BATCH)}
    if "detector" not in changes:
        return changes
    if recipe.augment == AugmentConfig():
        names = [name for name, count in check.summary.classes.items() if count]
        changes = {"augment": _augmentation(names, check.on_black), **changes}
    if check.validates:
        patience = max(LEAST_PATIENCE, round(PATIENT_SHARE * changes["detector"]["epochs"]))
        changes["detector"] |= {"keep": "best", "patience": patience}
    return changes


def _augmentation(class_names: Sequence[str], on_black: bool) -> dict[str, float]:
    """Returns augmentation for few images; characters, digits and sides may not be mirrored."""
    mirrored = any(len(name) == 1 or name.isdigit() or _SIDES & set(name.lower().split()) for name in class_names)
    left_out = [name for name, is_out in (("flip", mirrored), ("photometric", on_black)) if is_out]
    return {name: share for name, share in AUGMENTED.items() if name not in left_out}


def _detector_changes(fit: DetectorFit, preset: str, split: str) -> tuple[list[str], dict[str, Any]]:
    """Returns comments, and changes to a recipe's `model`."""
    now, better = fit.current, fit.recommended
    detector: dict[str, Any] = {
        "image_size": better.image_size,
        "anchors": {key: [_plain(v) for v in values] for key, values in better.anchors.model_dump().items()},
    }
    if fit.nms:
        detector["nms_threshold"] = better.nms_threshold
    comments = [
        f"# {preset}, with the input, anchors and NMS threshold that suit split {split}.",
        f"# Its anchors match {better.together.share:.1%} of the boxes, {preset}'s own at "
        f"{now.image_size} px {now.together.share:.1%}.",
    ]
    return comments, {"ssd": detector}


def _prior_changes(fit: PriorFit, preset: str, split: str) -> tuple[list[str], dict[str, Any]]:
    """Returns comments, and changes to a recipe's `model`."""
    now, better = fit.current, fit.recommended
    comments = [
        f"# {preset}, with the size prior and grid that suit split {split}.",
        f"# Windows are {better.window:.1f} px ({preset}'s own: {now.window:.1f} px); "
        f"{better.shared:.1%} of the objects find their cell taken ({now.shared:.1%}).",
    ]
    return comments, fit.changes


def _plain(value: float) -> int | float:
    return int(value) if value == int(value) else round(value, 4)
