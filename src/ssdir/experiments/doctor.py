"""The doctor of data sets: one look at all splits, and what to change before training on them.

It joins what rooms below must not know of each other: `data` says what is annotated and broken, `models` what a
detector can do with it, `training` whether the recommended recipe holds, `plots` how it looks.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor

from ssdir.config import presets
from ssdir.data.annotations import AnnotationTable
from ssdir.data.check import (
    SIZE_EDGES,
    SIZE_NAMES,
    Problem,
    Summary,
    summarise,
    usable_boxes,
)
from ssdir.data.check_images import scan_images
from ssdir.data.check_splits import check_splits, main_split
from ssdir.data.layouts import Layout, find_layout
from ssdir.errors import EmptySplitError, InputError, nearest
from ssdir.experiments.doctor_sheet import draw_sheet
from ssdir.models.anchor_fit import match_levels, pyramid, recommend
from ssdir.models.detected import DetectedConfig
from ssdir.models.ssd import AnchorConfig, SSDConfig
from ssdir.ops.boxes import to_cxcywh
from ssdir.outputs import atomic_dir
from ssdir.training.recipe import read_recipe

CHECK_FILE, RECOMMENDED_FILE, SHEET_FILE = "check.json", "recommended.yaml", "sheet.png"


@dataclass(frozen=True)
class LevelMatches:
    """The boxes that anchors match.

    Attributes:
        name: of the level, or what all of them are called.
        cells: along each side; 0 for all levels.
        sizes: sides of the two squares, in pixels; none for all levels.
        share: of all boxes.
        by_size: share by `SIZE_NAMES`; None where there are no boxes.
    """

    name: str
    cells: int
    sizes: tuple[float, ...]
    share: float
    by_size: dict[str, float | None]


@dataclass(frozen=True)
class Detector:
    """What a detector's anchors match.

    Attributes:
        image_size: side of its square input.
        anchors: its anchors.
        nms_threshold: IoU above which the weaker of two detections goes.
        levels: each alone, fine to coarse.
        together: all of them.
    """

    image_size: int
    anchors: AnchorConfig
    nms_threshold: float
    levels: list[LevelMatches]
    together: LevelMatches


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
        preset: whose detector was looked at.
        nms: whether that one suppresses doubles.
        match_iou: least overlap of an anchor with a box that it matches.
        current: what the preset's detector matches.
        recommended: what it would match with the recommended settings.
        full_size: the image size at which nearly all objects would be readable; maybe more than recommended.
    """

    root: str
    split: str
    layout: str
    options: dict[str, str]
    tables: dict[str, AnnotationTable]
    summaries: dict[str, Summary]
    problems: list[Problem]
    preset: str
    nms: bool
    match_iou: float
    current: Detector
    recommended: Detector
    full_size: int

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
        for name in ("current", "recommended"):
            detector: Detector = getattr(self, name)
            parts[name] = dataclasses.asdict(detector) | {"anchors": detector.anchors.model_dump(mode="json")}
        plain = {
            name: getattr(self, name)
            for name in ("root", "split", "layout", "options", "preset", "match_iou", "full_size")
        }
        return {**plain, "trainable": self.trainable, **parts}


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
        preset: name of the preset whose detector is to learn it.
        progress: called with the number of images read, and of all.
        options: of the layout, see `Layout.read`.

    Raises:
        InputError: if the preset is unknown, the layout not recognised, or the annotations missing or broken; of
            all splits, those of the one to learn from: another that can't be read is a problem.
    """
    if preset not in presets():
        raise InputError(f"unknown preset '{preset}'{nearest(preset, presets())}; presets: {', '.join(presets())}")
    model = read_recipe(preset).model
    if not isinstance(model, DetectedConfig):
        raise InputError(
            f"preset '{preset}' has no detector whose anchors could be looked at: give another --preset"
        )
    config = model.detector
    layout = find_layout(root)
    tables, main, problems = _read_splits(layout, Path(root), split, options)
    paths = list(dict.fromkeys(path for table in tables.values() for path in table.image_paths))
    scanned = dict(zip(paths, scan_images(paths, progress), strict=True))
    problems += check_splits(tables, main, scanned, config.image_size)
    summaries = {name: summarise(table) for name, table in tables.items()}
    boxes = to_cxcywh(torch.from_numpy(usable_boxes(tables[main])[1]))
    longer_sides = tables[main].image_sizes.max(axis=1).tolist()
    better = recommend(boxes, longer_sides, summaries[main].nms_threshold, config)
    settings = {name: getattr(better, name) for name in ("image_size", "anchors", "nms_threshold")}
    return Diagnosis(
        root=str(root),
        split=main,
        layout=layout.name,
        options=layout.known(options),
        tables=tables,
        summaries=summaries,
        problems=sorted(problems, key=lambda problem: not problem.stops),
        preset=preset,
        nms=config.nms,
        match_iou=config.match_iou,
        current=_detector(boxes, config),
        recommended=_detector(boxes, config.model_copy(update=settings)),
        full_size=better.full_size,
    )


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
    problems = [
        Problem("unreadable_splits", True, "splits that can't be read", tuple(unreadable)),
        Problem("empty_splits", False, "splits without images", tuple(empty)),
    ]
    return tables, main, [problem for problem in problems if problem.names]


def recommended_yaml(diagnosis: Diagnosis) -> str:
    """A recipe for `ssdir train`: the preset with the recommended settings."""
    better, preset = diagnosis.recommended, diagnosis.preset
    detector: dict[str, Any] = {
        "image_size": better.image_size,
        "anchors": {key: [_plain(v) for v in values] for key, values in better.anchors.model_dump().items()},
    }
    if diagnosis.nms:
        detector["nms_threshold"] = better.nms_threshold
    name = Path(diagnosis.root).resolve().name or preset
    values = {"base": preset, "name": name, **diagnosis.options, "model": {"detector": detector}}
    comments = (
        f"# {preset}, with the input, anchors and NMS threshold that suit split {diagnosis.split}.",
        f"# Its anchors match {better.together.share:.1%} of the boxes, {preset}'s own at "
        f"{diagnosis.current.image_size} px {diagnosis.current.together.share:.1%}.",
    )
    return "\n".join(comments) + "\n" + yaml.safe_dump(values, sort_keys=False, default_flow_style=None)


def write_diagnosis(diagnosis: Diagnosis, out: Path, force: bool = False) -> None:
    """Writes `check.json`, `recommended.yaml` and `sheet.png` into a folder, all or nothing."""
    with atomic_dir(out, force) as folder:
        text = json.dumps(diagnosis.as_json(), indent=2) + "\n"
        (folder / CHECK_FILE).write_text(text, encoding="utf-8")
        (folder / RECOMMENDED_FILE).write_text(recommended_yaml(diagnosis), encoding="utf-8")
        classes = [name for name, count in diagnosis.summary.classes.items() if count]
        sheet = draw_sheet(diagnosis.tables, diagnosis.split, classes, diagnosis.current.image_size)
        Image.fromarray(sheet).save(folder / SHEET_FILE)


def _detector(boxes: Tensor, config: SSDConfig) -> Detector:
    cells = pyramid(config)
    matched = match_levels(boxes, config.anchors, cells, config.image_size) >= config.match_iou
    anchors = config.anchors
    squares = zip(anchors.min_sizes, anchors.max_sizes, strict=True)
    levels = [
        _matches(f"level {i + 1}", n, (low, (low * high) ** 0.5), matched[:, i], boxes)
        for i, (n, (low, high)) in enumerate(zip(cells, squares, strict=True))
    ]
    together = _matches("all levels", 0, (), matched.any(dim=1), boxes)
    return Detector(config.image_size, anchors, config.nms_threshold, levels, together)


def _matches(name: str, cells: int, sizes: tuple[float, ...], matched: Tensor, boxes: Tensor) -> LevelMatches:
    size = np.digitize(boxes[:, 2:].amax(dim=1).numpy(), SIZE_EDGES) if len(boxes) else np.zeros(0)
    hits = matched.numpy()
    by_size = {
        label: float(hits[size == i].mean()) if (size == i).any() else None for i, label in enumerate(SIZE_NAMES)
    }
    return LevelMatches(name, cells, sizes, float(hits.mean()) if len(hits) else 0.0, by_size)


def _plain(value: float) -> int | float:
    return int(value) if value == int(value) else round(value, 4)
