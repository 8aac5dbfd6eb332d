"""The recipe that a data check recommends: the preset, with the settings that suit the data."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ssdir.config import parse, with_base
from ssdir.data.transforms import AugmentConfig
from ssdir.data_check.anchors import DetectorFit
from ssdir.data_check.check import DataCheck
from ssdir.data_check.size_priors import PriorFit
from ssdir.documents import yaml_text
from ssdir.formatting import counted, format_seconds, printable
from ssdir.models.detected.model import DetectedConfig
from ssdir.models.detected.vae import DetectedVAEConfig
from ssdir.training.estimate import MOST_TIMED, TrainingTime, estimate_training
from ssdir.training.recipe import Recipe, StageConfig, read_recipe

LEAST_SEEN, MOST_EPOCHS, SMALL_BATCH = 12_000, 200, 16
"""The images that a stage should see, counted once per epoch, the most epochs, and the largest batch: half of what
`clevr-128` sees of its 310. More epochs than for sixty images don't help."""

FEWEST_SEEN, FEWEST_EPOCHS = 2_000, 8
"""The images that a stage should see at the least, however long that takes, and the fewest epochs."""

MINUTES = 12
"""The minutes that training may take where nothing else is said."""

MORE_COPIES = 3
"""The boxes per object that a refiner learns from where images are few, as in `clevr-128`."""

AUGMENTED = {"flip": 0.5, "photometric": 0.5, "zoom_out": 0.3, "iou_crop": 0.5}
"""The augmentation where images are few and the preset has none; without `flip` where a mirrored object may be of
another class, and without `photometric` where images are mostly black."""

LEAST_PATIENCE, PATIENT_SHARE = 10, 0.25
"""The least number, and the share of all epochs, without improvement after which training stops."""

_SIDES = {"left", "right"}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
"""A word of a class name, also of turn_left, left-arrow and LeftHand."""

_NAME_LENGTH = 200

WHOLE_VIEWS = {"view": "warp", "zoom": 1.6, "elastic": 0.016, "jitter": 0}
"""The second views where images are not mostly black, for presets whose views are over black."""


@dataclass(frozen=True)
class Recommendation:
    """A recipe that suits a data set.

    Attributes:
        comments: why it is so, lines that start with `#`.
        values: the recipe's keys and values that differ from those of its preset, which is named as `base`.
        time: how long it trains, if that was measured.
        minutes: the minutes that it was to train, if its epochs were chosen by that.
    """

    comments: list[str]
    values: dict[str, Any]
    time: TrainingTime | None = None
    minutes: float | None = None

    @property
    def recipe(self) -> Recipe:
        """The whole recipe."""
        return parse(Recipe, with_base(self.values, "recommended"), source="recommended")

    @property
    def yaml(self) -> str:
        """The recipe as a file for `ssdir train`."""
        return "\n".join(self.comments) + "\n" + yaml_text(self.values, flow=None)

    def as_json(self) -> dict[str, Any]:
        """Returns plain values."""
        recipe, time = self.recipe, self.time
        plain: dict[str, Any] = {"recipe": self.values}
        if time is not None:
            seconds = {stage: time.of_stage(stage, recipe) for stage in time.stages}
            plain["seconds"] = {"reading": time.reading, **seconds, "all": time.seconds(recipe)}
            plain |= {"device": time.device, "threads": time.threads, "minutes": self.minutes}
        return plain


def recommend_within(check: DataCheck, minutes: float = MINUTES, device: str | None = None) -> Recommendation:
    """Recommends a recipe whose training ends within some minutes on this machine, if that many suffice.

    A few training steps on the data are timed, and epochs left out. No stage sees fewer than `FEWEST_SEEN` images,
    or has fewer than `FEWEST_EPOCHS` epochs, for that.

    Args:
        check: of data that a recipe can be trained on.
        minutes: that training may take.
        device: see `choose_device`.
    """
    whole = recommend(check)
    recipe = whole.recipe
    if check.summary.per_image["max"] > MOST_TIMED:
        untimed = f"# Its training was not timed: an image has more than {MOST_TIMED:,} objects, for which a step"
        return replace(whole, comments=[*whole.comments, f"{untimed} may take more memory than there is."])
    time = estimate_training(recipe, Path(check.root), device)
    changes = _fewer_epochs(recipe, time, check.summary.images, 60 * minutes)
    values, comments = dict(whole.values), list(whole.comments)
    for stage, epochs in changes.items():
        values[stage] = {**values.get(stage, {}), "epochs": epochs}
        if stage == "detector" and recipe.detector.patience is not None:
            values[stage]["patience"] = _patience(epochs)
    fitted = replace(whole, values=values, comments=comments, time=time, minutes=minutes if changes else None)
    seconds = format_seconds(time.seconds(fitted.recipe))
    comments.append(
        f"# It trains for {seconds}, as measured on {time.device} with {counted(time.threads, 'thread')}."
    )
    if changes:
        own = max(getattr(recipe, stage).epochs for stage in changes)
        comments.append(f"# Epochs are fewer than {own} for that: more are better (ssdir data check --minutes).")
    return fitted


def _fewer_epochs(recipe: Recipe, time: TrainingTime, images: int, seconds: float) -> dict[str, int]:
    """Returns the epochs by stage that end a training in time, where the recipe's do not."""
    whole, once = time.seconds(recipe), time.reading + sum(stage.once for stage in time.stages.values())
    if whole <= seconds or whole == once:
        return {}
    share = max(0.0, (seconds - once) / (whole - once))
    fewest = max(FEWEST_EPOCHS, math.ceil(FEWEST_SEEN / max(1, images)))
    changes = {}
    for stage, measured in time.stages.items():
        own = getattr(recipe, stage).epochs
        fewer = max(min(own, fewest), math.floor(own * share))
        if measured.epoch and fewer < own:
            changes[stage] = fewer
    return changes


def recommend(check: DataCheck) -> Recommendation:
    """Recommends a recipe: the preset with the settings that suit the data, however long it trains."""
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
    mirror_matters = _mirror_matters([name for name, count in check.summary.classes.items() if count])
    augment = _augment_changes(recipe.augment, "detector" in stages, mirror_matters, check.on_black)
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
        if any(augment.values()):
            comments.append("# Images are augmented for the detector, which would learn few of them by heart.")
        if "keep" in stages.get("detector", {}):
            comments.append("# Kept is the epoch of the largest AP50 on the validation split.")
    if augment.get("flip") == 0:
        comments.append(
            "# Images are not mirrored: by the classes' names, an object could become one of another class."
        )
    name = printable(Path(check.root).resolve().name)[:_NAME_LENGTH] or preset
    values = {"base": preset, "name": name, **check.options, "model": model}
    values |= {"augment": augment, **stages} if augment else stages
    return Recommendation(comments, values)


def _stage_changes(recipe: Recipe, check: DataCheck) -> dict[str, Any]:
    """Returns changes by which few images are seen often enough, and are not memorised."""
    changes: dict[str, Any] = {}
    for name in recipe.stages:
        stage: StageConfig = getattr(recipe, name)
        epochs = min(MOST_EPOCHS, math.ceil(LEAST_SEEN / max(1, check.summary.images)))
        if epochs > stage.epochs:
            changes[name] = {"epochs": epochs, "batch_size": min(stage.batch_size, SMALL_BATCH)}
    if "detector" in changes and check.validates:
        changes["detector"] |= {"keep": "best", "patience": _patience(changes["detector"]["epochs"])}
    return changes


def _patience(epochs: int) -> int | None:
    """Returns the epochs without improvement after which training stops; None if there are too few for that."""
    return max(LEAST_PATIENCE, round(PATIENT_SHARE * epochs)) if epochs > LEAST_PATIENCE else None


def _augment_changes(now: AugmentConfig, few: bool, mirror_matters: bool, on_black: bool) -> dict[str, float]:
    """Returns augmentation for few images, where there is none, and no mirroring where it changes classes."""
    changes = dict(AUGMENTED) if few and now == AugmentConfig() else {}
    if on_black:
        changes.pop("photometric", None)
    if mirror_matters:
        changes.pop("flip", None)
        changes |= {"flip": 0.0} if now.flip else {}
    return changes


def _mirror_matters(class_names: Sequence[str]) -> bool:
    """Returns True if a mirrored object may be of another class: characters, numbers, and names of sides."""
    return any(
        len(name) == 1 or name.isdigit() or not _SIDES.isdisjoint(map(str.lower, _WORD.findall(name)))
        for name in class_names
    )


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
