"""Checks a data set: all splits and images once, and the settings that suit training on them.

`check_data` calls the parts in turn: `images`, `splits` with `annotations`, `anchors` and `size_priors`. `report`
shows the result, a `DataCheck`, and writes it with the recipe of `recommendation` and the `image_grid`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ssdir.config import presets
from ssdir.data.annotations import AnnotationTable, ignore_hidden
from ssdir.data.learnable import (
    Learned,
    Problem,
    nothing_to_learn,
    usable_boxes,
)
from ssdir.data.letterbox import Letterbox, Resize
from ssdir.data.readers.layout import Layout
from ssdir.data.readers.registry import find_layout
from ssdir.data.readers.splits import find_split, hold_out
from ssdir.data_check.anchors import DetectorFit, fit_detector
from ssdir.data_check.annotations import Summary, summarise
from ssdir.data_check.images import are_photographs, mostly_black, scan_images
from ssdir.data_check.size_priors import GridModelConfig, PriorFit, fit_prior
from ssdir.data_check.splits import check_splits, main_split
from ssdir.device import choose_device
from ssdir.errors import EmptySplitError, InputError, nearest
from ssdir.models.detected.model import DetectedConfig
from ssdir.ops.boxes import to_cxcywh
from ssdir.training.recipe import read_recipe

PRIOR_PRESETS = ("space-64", "spair-64")
"""The presets whose size priors are shown beside any detector's anchors."""


@dataclass(frozen=True, eq=False)
class DataCheck:
    """The result of the check of one or several splits.

    Attributes:
        root: the folder, as given.
        split: the split to learn from, which the recommendations are for.
        layout: name of the folder's layout.
        options: the given options of the layout.
        tables: the annotations by split, the one to learn from first.
        summaries: counts, by split.
        problems: the problems, first those that stop training.
        preset: name of the preset that is to learn it.
        photographs: whether most images to learn from look like photographs.
        image_size: side of its square input.
        resize: how images become square.
        detector: the boxes that its detector's anchors match; None if it has no detector.
        priors: size priors and grids of models that learn without boxes, by preset: the preset itself, if it is
            of such a model, else the `PRIOR_PRESETS`.
        held_out: whether there is no split to validate on, so that training holds out a tenth.
        on_black: whether most images to learn from are mostly black.
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
    photographs: bool
    image_size: int
    resize: Resize
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
        """True if training would run without an error."""
        return not any(problem.stops for problem in self.problems)

    def as_json(self) -> dict[str, Any]:
        """Returns everything but the annotations as plain values."""
        parts = {
            "problems": [dataclasses.asdict(problem) for problem in self.problems],
            "summary": dataclasses.asdict(self.summary),
            "splits": {split: dataclasses.asdict(summary) for split, summary in self.summaries.items()},
        }
        names: tuple[str, ...] = ("root", "split", "layout", "options", "preset", "image_size")
        names += ("photographs", "held_out", "on_black", "validates")
        plain = {name: getattr(self, name) for name in names}
        detector = {} if self.detector is None else self.detector.as_json()
        priors = {name: dataclasses.asdict(fit) for name, fit in self.priors.items()}
        return {**plain, "trainable": self.trainable, **parts, **detector, "size_priors": priors}


def check_data(
    root: str | Path,
    split: str | None = None,
    preset: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: str | None,
) -> DataCheck:
    """Reads the annotations of one split, or of all, and each of their images once.

    Args:
        root: folder of the data set, in any known layout.
        split: the split to check; None checks all, with recommendations for train.
        preset: name of the preset that is to learn it; None for the one that suits the images, see
            `suitable_preset`.
        progress: called with the number of images read, and of all.
        options: options of the layout, see `Layout.read`.

    Raises:
        InputError: if the preset is unknown, the layout not recognised, or the annotations missing or broken. If
            all splits are checked, only the one to learn from raises this; others become a problem.
    """
    if preset is not None and preset not in presets():
        raise InputError(f"unknown preset '{preset}'{nearest(preset, presets())}; presets: {', '.join(presets())}")
    layout = find_layout(root)
    tables, main, problems = _read_splits(layout, Path(root), split, options)
    paths = list(dict.fromkeys(path for table in tables.values() for path in table.image_paths))
    scanned = dict(zip(paths, scan_images(paths, progress), strict=True))
    to_learn = [scanned[path] for path in tables[main].image_paths]
    photographs = are_photographs(to_learn)
    on_black = mostly_black(to_learn)
    preset = suitable_preset(photographs, on_black, choose_device().type) if preset is None else preset
    recipe = read_recipe(preset)
    model = recipe.model
    problems += check_splits(tables, main, scanned, model.image_size, recipe.learned, model.resize)
    held_out_of = layout.held_out_of(Path(root))
    val = _val_table(layout, Path(root), tables, options)
    division, validates = _check_validation(tables[main], main, val, held_out_of, recipe.learned)
    problems += division
    summaries = {name: summarise(table) for name, table in tables.items()}
    rows, corners = usable_boxes(tables[main])
    boxes, image_index = to_cxcywh(torch.from_numpy(corners)), tables[main].image[rows]
    detector = None
    if isinstance(model, DetectedConfig):
        letterbox = Letterbox.of(tables[main].image_sizes, model.image_size, model.resize)
        in_square = boxes * torch.from_numpy(letterbox.shares).repeat(1, 2)[image_index]
        longer_sides = tables[main].image_sizes.max(axis=1).tolist()
        detector = fit_detector(in_square, longer_sides, summaries[main].nms_threshold, model.ssd)
    names = PRIOR_PRESETS if detector else (preset,)
    grids = {name: config for name in names if isinstance(config := read_recipe(name).model, GridModelConfig)}
    return DataCheck(
        root=str(root),
        split=main,
        layout=layout.name,
        options=layout.known(options),
        tables=tables,
        summaries=summaries,
        problems=sorted(problems, key=lambda problem: not problem.stops),
        preset=preset,
        photographs=photographs,
        image_size=model.image_size,
        resize=model.resize,
        detector=detector,
        priors={name: fit_prior(boxes, image_index, config) for name, config in grids.items()},
        held_out=held_out_of is not None,
        on_black=on_black,
        validates=validates,
    )


def suitable_preset(photographs: bool, on_black: bool, device_type: str) -> str:
    """Names the preset that suits images: for photographs one with a pretrained backbone, by device."""
    if not photographs:
        return "tiny" if on_black else "clevr-128"
    return "photos" if device_type == "cpu" else "default"


def _val_table(
    layout: Layout, root: Path, tables: Mapping[str, AnnotationTable], options: Mapping[str, str | None]
) -> AnnotationTable | None:
    """Returns the split to validate on, even if only another is checked; None without one that can be read."""
    name = find_split("val", layout.splits(root))
    if name is None:
        return None
    if name in tables:
        return tables[name]
    try:
        return ignore_hidden(layout.read(root, name, **options))
    except InputError:
        return None


def _check_validation(
    table: AnnotationTable, main: str, val: AnnotationTable | None, held_out_of: str | None, learned: Learned
) -> tuple[list[Problem], bool]:
    """Finds what stops training once images are held out to validate on, where there is no val.

    Returns:
        The problems, and whether the split to validate on is there and has an object.
    """
    if held_out_of is None or main not in (held_out_of, "train"):
        return [], val is not None and nothing_to_learn(val, learned) is None
    try:
        train, val_part = hold_out(table, f"split {main}")
    except InputError as error:
        return [Problem("nothing_to_hold_out", True, "no image to validate on", (str(error),))], False
    nothing = nothing_to_learn(train, learned)
    problems = []
    if nothing is not None and nothing_to_learn(table, learned) is None:
        sentence = "objects only in the images that are held out to validate on, so there is nothing to learn"
        problems.append(replace(nothing, sentence=sentence, names=(main,)))
    return problems, nothing_to_learn(val_part, learned) is None


def _read_splits(
    layout: Layout, root: Path, split: str | None, options: Mapping[str, str | None]
) -> tuple[dict[str, AnnotationTable], str, list[Problem]]:
    """Reads the tables by split; also returns the one to learn from, and problems of those that can't be read."""
    if split is not None:
        return {split: ignore_hidden(layout.read(root, split, **options))}, split, []
    splits = layout.splits(root)
    if not splits:
        raise InputError(
            f"'{root}' has {layout.name}'s layout, but no split: see docs/data.md for where splits are"
        )
    main = main_split(splits)
    tables, empty, unreadable = {}, list[str](), list[str]()
    for name in sorted(splits, key=lambda name: name != main):
        try:
            tables[name] = ignore_hidden(layout.read(root, name, **options))
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
