"""The doctor of data sets: one look at a split, and what to change before training on it.

It joins what rooms below must not know of each other: `data` says what is annotated and broken, `models` what a
detector can do with it, `training` whether the recommended recipe holds, `plots` how it looks.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ssdir.config import presets
from ssdir.data.annotations import AnnotationTable
from ssdir.data.check import (
    SIZE_EDGES,
    SIZE_NAMES,
    Problem,
    Summary,
    box_flags,
    check_annotations,
    summarise,
    usable_boxes,
)
from ssdir.data.check_images import check_images, scan_images
from ssdir.data.images import read_image
from ssdir.data.layouts import find_layout
from ssdir.errors import InputError, nearest
from ssdir.models.anchor_fit import match_levels, pyramid, recommend
from ssdir.models.detected import DetectedConfig
from ssdir.models.ssd import AnchorConfig, SSDConfig
from ssdir.ops.boxes import to_cxcywh
from ssdir.outputs import atomic_dir
from ssdir.plots import Picture, contact_sheet
from ssdir.plots.sheets import ALERT_COLOUR, BOX_COLOURS, SMALL_COLOUR
from ssdir.training.recipe import read_recipe

CHECK_FILE, RECOMMENDED_FILE, SHEET_FILE = "check.json", "recommended.yaml", "sheet.png"

SHEET_IMAGES, SHEET_SUSPECTS = 24, 2
_THUMBNAIL = 440


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
    """All that was found out about a split.

    Attributes:
        root: the folder, as given.
        split: as given.
        layout: what the folder was recognised as.
        table: what is annotated.
        summary: counts.
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
    table: AnnotationTable
    summary: Summary
    problems: list[Problem]
    preset: str
    nms: bool
    match_iou: float
    current: Detector
    recommended: Detector
    full_size: int

    @property
    def trainable(self) -> bool:
        """Whether training would run through."""
        return not any(problem.stops for problem in self.problems)

    def as_json(self) -> dict[str, Any]:
        """Everything but the annotations, as plain values."""
        parts = {
            "problems": [dataclasses.asdict(problem) for problem in self.problems],
            "summary": dataclasses.asdict(self.summary),
        }
        for name in ("current", "recommended"):
            detector: Detector = getattr(self, name)
            parts[name] = dataclasses.asdict(detector) | {"anchors": detector.anchors.model_dump(mode="json")}
        plain = {
            name: getattr(self, name) for name in ("root", "split", "layout", "preset", "match_iou", "full_size")
        }
        return {**plain, "trainable": self.trainable, **parts}


def diagnose(
    root: str | Path, split: str, preset: str, progress: Callable[[int, int], None] | None = None
) -> Diagnosis:
    """Reads the annotations of a split and each of its images once.

    Args:
        root: folder of the data set, in any known layout.
        split: which part of it.
        preset: name of the preset whose detector is to learn it.
        progress: called with the number of images read, and of all.

    Raises:
        InputError: if the preset is unknown, the layout not recognised, or the annotations missing or broken.
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
    table = layout.read(Path(root), split)
    problems = [
        *check_images(table, scan_images(table, progress)),
        *check_annotations(table, config.image_size),
    ]
    summary = summarise(table)
    boxes = to_cxcywh(torch.from_numpy(usable_boxes(table)[1]))
    better = recommend(boxes, table.image_sizes.max(axis=1).tolist(), summary.nms_threshold, config)
    settings = {name: getattr(better, name) for name in ("image_size", "anchors", "nms_threshold")}
    return Diagnosis(
        root=str(root),
        split=split,
        layout=layout.name,
        table=table,
        summary=summary,
        problems=sorted(problems, key=lambda problem: not problem.stops),
        preset=preset,
        nms=config.nms,
        match_iou=config.match_iou,
        current=_detector(boxes, config),
        recommended=_detector(boxes, config.model_copy(update=settings)),
        full_size=better.full_size,
    )


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
    values = {"base": preset, "name": name, "model": {"detector": detector}}
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
        Image.fromarray(draw_sheet(diagnosis)).save(folder / SHEET_FILE)


def draw_sheet(diagnosis: Diagnosis) -> Picture:
    """Images with what is annotated: some of each kind of suspicious boxes, then of all the split."""
    table = diagnosis.table
    flags = box_flags(table, diagnosis.current.image_size)
    names = [name for name, count in diagnosis.summary.classes.items() if count][: len(BOX_COLOURS) - 1]
    group_of = np.array([names.index(name) if name in names else len(names) for name in table.category_names])
    group = group_of[table.category]
    legend = [*zip(names, BOX_COLOURS, strict=False), ("other", BOX_COLOURS[-1])]
    tiny = flags["tiny_boxes"]
    odd = np.any([mask for kind, mask in flags.items() if kind != "tiny_boxes"], axis=0)
    for mask, name, colour in (
        (tiny, f"too small at {diagnosis.current.image_size} px", SMALL_COLOUR),
        (odd, "broken or suspicious", ALERT_COLOUR),
    ):
        group[mask] = len(legend)
        legend.append((name, colour))
    pictures, boxes, groups, captions = [], [], [], []
    for index in _chosen(table, flags):
        try:
            pictures.append(read_image(table.image_paths[index], _THUMBNAIL))
        except InputError:
            continue
        rows = np.flatnonzero((table.image == index) & ~table.ignored)
        boxes.append(table.boxes_px[rows] / table.image_sizes[index][[1, 0, 1, 0]])
        groups.append(group[rows])
        number = f"{len(rows)} boxes" if len(rows) != 1 else "1 box"
        captions.append(f"{Path(table.image_names[index]).name}: {number}")
    seen = np.unique(np.concatenate([*groups, [0]])).tolist()
    place = np.zeros(len(legend), dtype=np.int64)
    place[seen] = np.arange(len(seen))
    return contact_sheet(pictures, boxes, [place[g] for g in groups], captions, [legend[i] for i in seen])


def _chosen(table: AnnotationTable, flags: dict[str, NDArray[np.bool_]]) -> list[int]:
    """Two images of each kind of suspicious boxes, then evenly spaced ones."""
    suspects = [np.unique(table.image[mask])[:SHEET_SUSPECTS].tolist() for mask in flags.values()]
    n = len(table.image_names)
    spread = np.linspace(0, n - 1, min(n, SHEET_IMAGES)).round().astype(int).tolist()
    return list(dict.fromkeys([*chain.from_iterable(suspects), *spread]))[:SHEET_IMAGES]


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
