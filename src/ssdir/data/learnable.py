"""Selects the objects of a split that a model can learn from, and reports a problem if there are none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssdir.data.annotations import AnnotationTable, clip_boxes
from ssdir.formatting import counted


@dataclass(frozen=True)
class Problem:
    """A broken or suspicious part of a data set.

    Attributes:
        kind: identifier of the kind of problem.
        stops: whether it stops training; if not, `sentence` says how training goes on.
        sentence: what is wrong, and how training handles it.
        names: each image, box or class that has the problem.
    """

    kind: str
    stops: bool
    sentence: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Learned:
    """Which objects of a split a model learns from; see `Recipe`.

    Attributes:
        classes: `all`, `object`, or the names of the classes to learn.
        min_side: objects narrower or lower than this share of the image are not learned.
        needs_objects: whether the split must have such objects: models without a detector learn from images alone.
    """

    classes: str | Sequence[str] = "all"
    min_side: float = 0.0
    needs_objects: bool = True


EVERYTHING = Learned()


def usable_boxes(table: AnnotationTable) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Returns the rows (n,) of objects that have an area and are not ignored, and their boxes (n, 4).

    Boxes are xyxy, relative to the image.
    """
    boxes, has_area = clip_boxes(table.boxes_px, table.image_sizes[table.image])
    rows = np.flatnonzero(has_area & ~table.ignored)
    return rows, boxes[rows]


def nothing_to_learn(table: AnnotationTable, learned: Learned = EVERYTHING) -> Problem | None:
    """Reports that a detector can't be trained, because no image has an object that it could learn.

    Both `ssdir data check` and training use this.

    Args:
        table: the annotations.
        learned: which objects are to be learned.

    Returns:
        The problem, whose `names` count the boxes that can't be learned from, by reason; None if there is an
        object to learn from, or if none is needed.
    """
    if not learned.needs_objects:
        return None
    rows, boxes = usable_boxes(table)
    large = (boxes[:, 2:] - boxes[:, :2] >= learned.min_side).all(axis=1)
    chosen = np.ones(len(rows), dtype=np.bool_)
    if not isinstance(learned.classes, str):
        wanted = [i for i, name in enumerate(table.category_names) if name in learned.classes]
        chosen = np.isin(table.category[rows], wanted)
    if (large & chosen).any():
        return None
    small = 0 if table.unreadable is None else int(table.unreadable.sum())
    counts = {
        "of crowds and the like": int(table.ignored.sum()) - small,
        "too small or too hidden": int((~large).sum()) + small,
        "of other classes than asked for": int((large & ~chosen).sum()),
        "without area or outside of their image": len(table.image) - len(rows) - int(table.ignored.sum()),
    }
    instead = [f"{counted(number, 'box', 'boxes')} {what}" for what, number in counts.items() if number]
    sentence = "there is nothing to learn: no image has an object"
    return Problem("no_objects", True, sentence, tuple(instead) or ("no box is annotated",))
