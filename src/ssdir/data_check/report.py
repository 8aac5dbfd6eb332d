"""The doctor of data sets: one look at all splits, and what to change before training on them.

It joins what rooms below must not know of each other: `data` says what is annotated and broken, `models` what a
detector's anchors or a grid's cells can do with it, `training` whether the recommended recipe holds, `plots` how
it looks.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL import Image

from ssdir.config import presets
from ssdir.data.annotations import AnnotationTable
from ssdir.data.learnable import (
    Learned,
    Problem,
    nothing_to_learn,
    usable_boxes,
)
from ssdir.data.readers.layout import Layout
from ssdir.data.readers.registry import find_layout
from ssdir.data.readers.splits import find_split, hold_out
from ssdir.data.transforms import AugmentConfig
from ssdir.data_check.anchors import DetectorFit, fit_detector
from ssdir.data_check.annotations import Summary, summarise
from ssdir.data_check.image_grid import draw_image_grid
from ssdir.data_check.images import scan_images
from ssdir.data_check.size_priors import GridModelConfig, PriorFit, fit_prior
from ssdir.data_check.splits import check_splits, main_split
from ssdir.documents import json_text, yaml_text
from ssdir.errors import EmptySplitError, InputError, nearest
from ssdir.formatting import counted, printable
from ssdir.models.detected.model import DetectedConfig
from ssdir.models.detected.vae import DetectedVAEConfig
from ssdir.ops.boxes import to_cxcywh
from ssdir.outputs import atomic_dir
from ssdir.training.recipe import Recipe, StageConfig, read_recipe

PRIOR_PRESETS = ("space-64", "spair-64")
"""Whose size priors are shown beside any detector's anchors."""

LEAST_SEEN, MOST_EPOCHS, SMALL_BATCH = 12_000, 200, 16
"""So many images a stage should see, each as often as it takes, in batches of at most so many: half of what
`clevr-128` sees of its 310. Fewer than sixty don't teach more by being seen more often."""

MORE_COPIES = 3
"""Boxes per object that a refiner learns from where images are few, as in `clevr-128`."""

AUGMENTED = {"flip": 0.5, "photometric": 0.5, "zoom_out": 0.3, "iou_crop": 0.5}
"""Where images are few and the preset has no augmentation; without `flip` where a mirrored object may be of
another class, and without `photometric` where images are mostly black."""

LEAST_PATIENCE, PATIENT_SHARE = 10, 0.25
"""Epochs without a better one after which training stops: at least so many, and this share of all."""

_SIDES = {"left", "right"}

_NAME_LENGTH = 200

WHOLE_VIEWS = {"places": "own", "zoom": 1.6, "elastic": 0.016, "jitter": 0}
"""For presets whose second views are over black, where the images are not."""

CHECK_FILE, RECOMMENDED_FILE, IMAGE_GRID_FILE = "check.json", "recommended.yaml", "image-grid.png"


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """All that was found out about one or several splits.

    Attributes:
        root: the folder, as given.
        split: the one to learn from, which the recommendations are for.
        layout: what the folder was recognised as.
        options: of the layout, as asked for.
        tables: what is annotated, by split, the one to learn from first.
        summaries: counts, by split.
        problems: those that stop training first.
        preset: the one that is to learn it.
        image_size: side of its square input.
        detector: what its detector's anchors match; None if it has none.
        priors: size priors and grids, by preset: of models that learn without boxes. The preset itself, if it is
            of such a model, or else the `PRIOR_PRESETS`.
        held_out: whether there is no split to validate on, so that training holds out a tenth.
        on_black: whether most of most images to learn from is black.
        validates: whether the split to validate on has an object, so that epochs can be compared.
    """

    root: str
    split: str
    layout: str
    options: dict[str, str]
    tables: dict[str, AnnotationTable]
    summaries: dict[str, Summary]
    problems: list[Problem]
    preset: str
    image_size: int
    detector: DetectorFit | None
    priors: dict[str, PriorFit]
    held_out: bool
    on_black: bool
    validates: bool

    @property
    def summary(self) -> Summary:
        """Counts of the split to learn from."""
        return self.summaries[self.split]

    @property
    def trainable(self) -> bool:
        """Whether training would run through."""
        return not any(problem.stops for problem in self.problems)

    def as_json(self) -> dict[str, Any]:
        """Everything but the annotations, as plain values."""
        parts = {
            "problems": [dataclasses.asdict(problem) for problem in self.problems],
            "summary": dataclasses.asdict(self.summary),
            "splits": {split: dataclasses.asdict(summary) for split, summary in self.summaries.items()},
        }
        names = ("root", "split", "layout", "options", "preset", "image_size", "held_out", "on_black", "validates")
        plain = {name: getattr(self, name) for name in names}
        detector = {} if self.detector is None else self.detector.as_json()
        priors = {name: dataclasses.asdict(fit) for name, fit in self.priors.items()}
        return {**plain, "trainable": self.trainable, **parts, **detector, "size_priors": priors}


def diagnose(
    root: str | Path,
    split: str | None,
    preset: str,
    progress: Callable[[int, int], None] | None = None,
    **options: str | None,
) -> Diagnosis:
    """Reads the annotations of one split, or of all, and each of their images once.

    Args:
        root: folder of the data set, in any known layout.
        split: which part of it; None looks at all, and recommends what suits train.
        preset: name of the preset that is to learn it.
        progress: called with the number of images read, and of all.
        options: of the layout, see `Layout.read`.

    Raises:
        InputError: if the preset is unknown, the layout not recognised, or the annotations missing or broken; of
            all splits, those of the one to learn from: another that can't be read is a problem.
    """
    if preset not in presets():
        raise InputError(f"unknown preset '{preset}'{nearest(preset, presets())}; presets: {', '.join(presets())}")
    recipe = read_recipe(preset)
    model = recipe.model
    layout = find_layout(root)
    tables, main, problems = _read_splits(layout, Path(root), split, options)
    paths = list(dict.fromkeys(path for table in tables.values() for path in table.image_paths))
    scanned = dict(zip(paths, scan_images(paths, progress), strict=True))
    problems += check_splits(tables, main, scanned, model.image_size, recipe.learned)
    held_out_of = layout.held_out_of(Path(root))
    division, validates = _check_validation(tables, main, held_out_of, recipe.learned)
    problems += division
    summaries = {name: summarise(table) for name, table in tables.items()}
    rows, corners = usable_boxes(tables[main])
    boxes, image_index = to_cxcywh(torch.from_numpy(corners)), tables[main].image[rows]
    detector = None
    if isinstance(model, DetectedConfig):
        longer_sides = tables[main].image_sizes.max(axis=1).tolist()
        detector = fit_detector(boxes, longer_sides, summaries[main].nms_threshold, model.detector)
    names = PRIOR_PRESETS if detector else (preset,)
    grids = {name: config for name in names if isinstance(config := read_recipe(name).model, GridModelConfig)}
    return Diagnosis(
        root=str(root),
        split=main,
        layout=layout.name,
        options=layout.known(options),
        tables=tables,
        summaries=summaries,
        problems=sorted(problems, key=lambda problem: not problem.stops),
        preset=preset,
        image_size=model.image_size,
        detector=detector,
        priors={name: fit_prior(boxes, image_index, config) for name, config in grids.items()},
        held_out=held_out_of is not None,
        on_black=median(scanned[path].black for path in tables[main].image_paths) > 0.5,
        validates=validates,
    )


def _check_validation(
    tables: Mapping[str, AnnotationTable], main: str, held_out_of: str | None, learned: Learned
) -> tuple[list[Problem], bool]:
    """What stops training once images are held out to validate on, where there is no val.

    Returns:
        The problems, and whether the split to validate on is there and has an object.
    """
    if held_out_of is None or main not in (held_out_of, "train"):
        val = find_split("val", list(tables))
        return [], val is not None and nothing_to_learn(tables[val], learned) is None
    try:
        train, val_part = hold_out(tables[main], f"split {main}")
    except InputError as error:
        return [Problem("nothing_to_hold_out", True, "no image to validate on", (str(error),))], False
    nothing = nothing_to_learn(train, learned)
    problems = []
    if nothing is not None and nothing_to_learn(tables[main], learned) is None:
        sentence = "objects only in the images that are held out to validate on, so there is nothing to learn"
        problems.append(replace(nothing, sentence=sentence, names=(main,)))
    return problems, nothing_to_learn(val_part, learned) is None


def _read_splits(
    layout: Layout, root: Path, split: str | None, options: Mapping[str, str | None]
) -> tuple[dict[str, AnnotationTable], str, list[Problem]]:
    """The tables by split, which of them to learn from, and what is wrong with those that can't be read."""
    if split is not None:
        return {split: layout.read(root, split, **options)}, split, []
    splits = layout.splits(root)
    if not splits:
        raise InputError(
            f"'{root}' has {layout.name}'s layout, but no split: see docs/data.md for where splits are"
        )
    main = main_split(splits)
    tables, empty, unreadable = {}, list[str](), list[str]()
    for name in sorted(splits, key=lambda name: name != main):
        try:
            tables[name] = layout.read(root, name, **options)
        except InputError as error:
            if name == main:
                raise
            (empty if isinstance(error, EmptySplitError) else unreadable).append(f"{name}: {error}")
    train = find_split("train", splits)
    problems = [
        Problem("no_training_split", True, "splits, but none to train on", tuple(splits if train is None else ())),
        Problem("unreadable_splits", True, "splits that can't be read", tuple(unreadable)),
        Problem("empty_splits", False, "splits without images", tuple(empty)),
    ]
    return tables, main, [problem for problem in problems if problem.names]


def recommended_yaml(diagnosis: Diagnosis) -> str:
    """A recipe for `ssdir train`: the preset with the recommended settings."""
    preset, split = diagnosis.preset, printable(diagnosis.split)
    if diagnosis.detector is not None:
        comments, model = _detector_changes(diagnosis.detector, preset, split)
    else:
        comments, model = _prior_changes(diagnosis.priors[preset], preset, split)
    recipe = read_recipe(preset)
    over_black = isinstance(recipe.model, DetectedVAEConfig) and recipe.model.consistency.places == "others"
    if over_black and not diagnosis.on_black:
        model["consistency"] = WHOLE_VIEWS
        comments.append("# Second views are of whole images: pasted elsewhere, objects would stand on black.")
    stages = _stage_changes(recipe, diagnosis)
    if stages:
        images = counted(diagnosis.summary.images, "image")
        comments.append(f"# Epochs for {images}: more are better, and take longer.")
        if isinstance(recipe.model, DetectedVAEConfig) and not recipe.model.decoder.smooth_start:
            model["decoder"] = {"smooth_start": True}
            comments.append("# The decoder starts smooth: few images would leave the patterns of another start.")
        refiner = recipe.model.detector.refiner if isinstance(recipe.model, DetectedConfig) else None
        if refiner is not None and refiner.copies < MORE_COPIES:
            model["detector"]["refiner"] = {"copies": MORE_COPIES}
            comments.append("# The refinement of boxes learns from more of them, for few images have few.")
        if "augment" in stages:
            comments.append("# Images are augmented for the detector, which would learn few of them by heart.")
        if "keep" in stages.get("detector", {}):
            comments.append("# Kept is the epoch of the largest AP50 on the validation split.")
    name = printable(Path(diagnosis.root).resolve().name)[:_NAME_LENGTH] or preset
    values = {"base": preset, "name": name, **diagnosis.options, "model": model, **stages}
    return "\n".join(comments) + "\n" + yaml_text(values, flow=None)


def _stage_changes(recipe: Recipe, diagnosis: Diagnosis) -> dict[str, Any]:
    """What to change so that few images are seen often enough, and are not learned by heart."""
    changes: dict[str, Any] = {}
    for name in recipe.stages:
        stage: StageConfig = getattr(recipe, name)
        epochs = min(MOST_EPOCHS, math.ceil(LEAST_SEEN / max(1, diagnosis.summary.images)))
        if epochs > stage.epochs:
            changes[name] = {"epochs": epochs, "batch_size": min(stage.batch_size, SMALL_BATCH)}
    if "detector" not in changes:
        return changes
    if recipe.augment == AugmentConfig():
        names = [name for name, count in diagnosis.summary.classes.items() if count]
        changes = {"augment": _augmentation(names, diagnosis.on_black), **changes}
    if diagnosis.validates:
        patience = max(LEAST_PATIENCE, round(PATIENT_SHARE * changes["detector"]["epochs"]))
        changes["detector"] |= {"keep": "best", "patience": patience}
    return changes


def _augmentation(class_names: Sequence[str], on_black: bool) -> dict[str, float]:
    """Augmentation for few images; characters, digits and sides may not be mirrored."""
    mirrored = any(len(name) == 1 or name.isdigit() or _SIDES & set(name.lower().split()) for name in class_names)
    left_out = [name for name, is_out in (("flip", mirrored), ("photometric", on_black)) if is_out]
    return {name: share for name, share in AUGMENTED.items() if name not in left_out}


def _detector_changes(fit: DetectorFit, preset: str, split: str) -> tuple[list[str], dict[str, Any]]:
    """Comments, and what to change of a recipe's `model`."""
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
    return comments, {"detector": detector}


def _prior_changes(fit: PriorFit, preset: str, split: str) -> tuple[list[str], dict[str, Any]]:
    """Comments, and what to change of a recipe's `model`."""
    now, better = fit.current, fit.recommended
    comments = [
        f"# {preset}, with the size prior and grid that suit split {split}.",
        f"# Windows are {better.window:.1f} px ({preset}'s own: {now.window:.1f} px); "
        f"{better.shared:.1%} of the objects find their cell taken ({now.shared:.1%}).",
    ]
    return comments, fit.changes


def write_diagnosis(diagnosis: Diagnosis, out: Path, force: bool = False) -> None:
    """Writes `check.json`, `recommended.yaml` and `image-grid.png` into a folder, all or nothing."""
    with atomic_dir(out, force) as folder:
        (folder / CHECK_FILE).write_text(json_text(diagnosis.as_json()), encoding="utf-8")
        (folder / RECOMMENDED_FILE).write_text(recommended_yaml(diagnosis), encoding="utf-8")
        classes = [name for name, count in diagnosis.summary.classes.items() if count]
        grid = draw_image_grid(diagnosis.tables, diagnosis.split, classes, diagnosis.image_size)
        Image.fromarray(grid).save(folder / IMAGE_GRID_FILE)


def _plain(value: float) -> int | float:
    return int(value) if value == int(value) else round(value, 4)
