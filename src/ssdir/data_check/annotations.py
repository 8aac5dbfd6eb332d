"""Summarises the annotations of a split, and names what is broken or suspicious in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import box_iou

from ssdir.data.annotations import AnnotationTable, clip_boxes
from ssdir.data.learnable import EVERYTHING, Learned, Problem, nothing_to_learn, usable_boxes
from ssdir.data.letterbox import Letterbox, Resize

SIZE_EDGES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""The edges of bins of a box's longer side, relative to the image resized to a square."""
SIZE_NAMES = ("< 3 %", "3-6 %", "6-12 %", "12-25 %", "25-50 %", "> 50 %")
ASPECT_EDGES = (1 / 3, 1 / 1.5, 1.5, 3)
ASPECT_NAMES = ("< 1:3", "1:3 - 2:3", "2:3 - 3:2", "3:2 - 3:1", "> 3:1")
"""The bins of width to height, in pixels of the image."""

MIN_SIDE = 4
"""The width in pixels of the resized image below which a box is suspicious."""
MAX_IMBALANCE = 100
"""A class is rare if the commonest has this many times its objects."""
MAX_SUPPRESSED = 0.01
"""The share of true objects that NMS at the recommended threshold may remove if all were detected perfectly."""
NMS_RANGE = (0.3, 0.7)
"""The range of NMS thresholds: lower ones remove neighbours, higher ones keep duplicate detections."""

_ROWS = 1024


@dataclass(frozen=True)
class Summary:
    """Counts of a split. Objects are those that a data set yields: with area, in the image, and not ignored.

    Attributes:
        images: number of images.
        image_sizes: number of images by annotated "width x height", the commonest first.
        objects: number of objects.
        clips: number of clips that the images are frames of; 0 if they are none.
        tracks: number of objects through whole clips; 0 if it is unknown.
        dropped: boxes that are left out because nothing of them is in the image.
        ignored: crowd regions and the like, and objects of clips that are hidden.
        empty_images: images without objects.
        per_image: objects of an image: min, median, mean, max.
        classes: objects by class, the commonest first.
        sizes: objects by `SIZE_NAMES`.
        aspects: objects by `ASPECT_NAMES`.
        overlapping: share of objects that overlap another by more than an IoU, by IoU.
        nms_threshold: the least one, in steps of 0.05 within `NMS_RANGE`, that removes at most `MAX_SUPPRESSED`.
        nms_cost: share of objects that it removes.
    """

    images: int
    image_sizes: dict[str, int]
    objects: int
    clips: int
    tracks: int
    dropped: int
    ignored: int
    empty_images: int
    per_image: dict[str, float]
    classes: dict[str, int]
    sizes: dict[str, int]
    aspects: dict[str, int]
    overlapping: dict[str, float]
    nms_threshold: float
    nms_cost: float


def summarise(table: AnnotationTable) -> Summary:
    """Counts what is in a split; reads no image."""
    rows, boxes = usable_boxes(table)
    image, sides = table.image[rows], boxes[:, 2:] - boxes[:, :2]
    counts = np.bincount(image, minlength=len(table.image_names))
    aspects = sides[:, 0] / sides[:, 1] * np.divide(*table.image_sizes[image][:, ::-1].T)
    copies = _copies(table, rows)
    nearest, earlier = overlaps(boxes[~copies], image[~copies])
    threshold = _nms_threshold(earlier)
    by_class = np.bincount(table.category[rows], minlength=len(table.category_names))
    dropped = len(table.image) - len(rows) - int(table.ignored.sum())
    return Summary(
        images=len(table.image_names),
        image_sizes=dict(Counter(f"{w} x {h}" for h, w in table.image_sizes.tolist()).most_common()),
        objects=len(rows),
        clips=len(table.clip_names or ()),
        tracks=_tracks(table, rows),
        dropped=dropped,
        ignored=int(table.ignored.sum()),
        empty_images=int((counts == 0).sum()),
        per_image={
            "min": float(counts.min()),
            "median": float(np.median(counts)),
            "mean": float(counts.mean()),
            "max": float(counts.max()),
        },
        classes={table.category_names[i]: int(by_class[i]) for i in np.argsort(-by_class, kind="stable").tolist()},
        sizes=_histogram(sides.max(axis=1, initial=0), SIZE_EDGES, SIZE_NAMES),
        aspects=_histogram(aspects, ASPECT_EDGES, ASPECT_NAMES),
        overlapping={f"{iou:g}": _share(nearest > iou) for iou in (0.3, 0.5)},
        nms_threshold=threshold,
        nms_cost=_share(earlier > threshold),
    )


def _tracks(table: AnnotationTable, rows: NDArray[np.int64]) -> int:
    if table.clip is None or table.track_id is None:
        return 0
    return len(np.unique(np.stack([table.clip[table.image[rows]], table.track_id[rows]]), axis=1).T)


def overlaps(
    boxes: NDArray[np.float64], image: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Computes how far boxes overlap others of their image.

    Args:
        boxes: float (N, 4), xyxy.
        image: int (N,), in any order.

    Returns:
        The largest IoU of each box with any other of its image, and with an earlier one; 0 where there is none.
        At a threshold below the latter, suppression may take the box for its neighbour's duplicate. Each pair is
        counted once, because the object with the higher score stays.
    """
    order = np.argsort(image, kind="stable")
    nearest, earlier = np.zeros(len(boxes)), np.zeros(len(boxes))
    for rows in np.split(order, np.flatnonzero(np.diff(image[order])) + 1):
        if len(rows) < 2:
            continue
        corners = torch.from_numpy(boxes[rows])
        for start in range(0, len(rows), _ROWS):
            part = rows[start : start + _ROWS]
            iou = box_iou(corners[start : start + _ROWS], corners).numpy()
            own = np.arange(start, start + len(part))
            iou[np.arange(len(part)), own] = 0
            nearest[part] = iou.max(axis=1)
            earlier[part] = np.where(np.arange(len(rows)) < own[:, None], iou, 0).max(axis=1)
    return nearest, earlier


def check_annotations(
    table: AnnotationTable, image_size: int, learned: Learned = EVERYTHING, resize: Resize = "stretch"
) -> list[Problem]:
    """Finds broken and suspicious boxes and classes; reads no image.

    Args:
        table: the annotations.
        image_size: side of the model's square input, to which images are resized.
        learned: which objects are to be learned.
        resize: how images become square.
    """
    problems = [*_box_problems(table, image_size, resize), *_class_problems(table)]
    nothing = nothing_to_learn(table, learned)
    if nothing is not None:
        problems.insert(0, nothing)
    if table.notes:
        problems.append(Problem("notes", False, "remarks of the layout's reader", tuple(table.notes)))
    return problems


def box_flags(table: AnnotationTable, image_size: int, resize: Resize = "stretch") -> dict[str, NDArray[np.bool_]]:
    """Marks the boxes that `check_annotations` names, by kind of problem, bool (N,); ignored ones have none."""
    sizes = table.image_sizes[table.image]
    clipped, visible = clip_boxes(table.boxes_px, sizes)
    with np.errstate(invalid="ignore"):
        sides = table.boxes_px[:, 2:] - table.boxes_px[:, :2]
        empty = ~(np.isfinite(table.boxes_px).all(axis=1) & (sides > 0).all(axis=1))
        # Half a pixel may be a rounding error.
        beyond = (table.boxes_px < -0.5).any(axis=1) | (table.boxes_px[:, 2:] > sizes[:, ::-1] + 0.5).any(axis=1)
        covered = image_size * Letterbox.of(table.image_sizes, image_size, resize).shares[table.image]
        narrow = ((clipped[:, 2:] - clipped[:, :2]) * covered < MIN_SIDE).any(axis=1)
    kept = visible & ~table.ignored
    copies = np.zeros(len(kept), dtype=np.bool_)
    copies[np.flatnonzero(kept)] = _copies(table, np.flatnonzero(kept))
    return {
        "boxes_without_area": empty & ~table.ignored,
        "boxes_outside": ~empty & ~visible & ~table.ignored,
        "boxes_across_the_edge": kept & beyond,
        "duplicate_boxes": copies,
        "tiny_boxes": kept & narrow,
    }


def _box_problems(table: AnnotationTable, image_size: int, resize: Resize) -> list[Problem]:
    sentences = {
        "boxes_without_area": "boxes without width or height (left out)",
        "boxes_outside": "boxes outside of their image (left out)",
        "boxes_across_the_edge": "boxes that reach out of their image (clipped)",
        "duplicate_boxes": "boxes that an image has already (kept)",
        "tiny_boxes": f"boxes narrower than {MIN_SIDE} px once images are {image_size} px (kept)",
    }
    flags = box_flags(table, image_size, resize)
    return [
        Problem(
            kind, False, sentence, tuple(_box_name(table, row) for row in np.flatnonzero(flags[kind]).tolist())
        )
        for kind, sentence in sentences.items()
        if flags[kind].any()
    ]


def _class_problems(table: AnnotationTable) -> list[Problem]:
    rows, _ = usable_boxes(table)
    counts = np.bincount(table.category[rows], minlength=len(table.category_names))
    names, most = table.category_names, int(counts.max(initial=0))
    unused = [name for name, count in zip(names, counts, strict=True) if count == 0]
    rare = [
        f"{name}: {count} of {names[int(counts.argmax())]}'s {most}"
        for name, count in zip(names, counts.tolist(), strict=True)
        if 0 < count * MAX_IMBALANCE <= most
    ]
    problems = []
    if unused and most:
        problems.append(Problem("unused_classes", False, "classes without objects", tuple(unused)))
    if rare:
        sentence = f"classes with less than 1/{MAX_IMBALANCE} of the commonest's objects"
        problems.append(Problem("rare_classes", False, sentence, tuple(rare)))
    return problems


def _copies(table: AnnotationTable, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Marks the rows with the box, to 1/100 pixel, of an earlier one in the same image."""
    if not len(rows):
        return np.zeros(0, dtype=np.bool_)
    keys = np.column_stack([table.image[rows], np.rint(table.boxes_px[rows] * 100).astype(np.int64)])
    _, first = np.unique(keys, axis=0, return_index=True)
    copies = np.ones(len(rows), dtype=np.bool_)
    copies[first] = False
    return copies


def _box_name(table: AnnotationTable, row: int) -> str:
    corners = ", ".join(f"{value:g}" for value in np.round(table.boxes_px[row], 1))
    image, category = table.image_names[table.image[row]], table.category_names[table.category[row]]
    return f"{image}: {category} ({corners})"


def _nms_threshold(earlier: NDArray[np.float64]) -> float:
    low, high = NMS_RANGE
    steps = np.arange(round(low * 20), round(high * 20) + 1) / 20
    return next((float(step) for step in steps if _share(earlier > step) <= MAX_SUPPRESSED), high)


def _histogram(values: NDArray[np.float64], edges: Iterable[float], names: tuple[str, ...]) -> dict[str, int]:
    counts = np.bincount(np.digitize(values, list(edges)), minlength=len(names))
    return dict(zip(names, counts.tolist(), strict=True))


def _share(mask: NDArray[np.bool_]) -> float:
    return float(mask.mean()) if len(mask) else 0.0
