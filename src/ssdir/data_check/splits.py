"""Checks the splits of a data set together: problems of each, and images and classes that they share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ssdir.data.annotations import AnnotationTable
from ssdir.data.learnable import (
    EVERYTHING,
    Learned,
    Problem,
    usable_boxes,
)
from ssdir.data.letterbox import Resize
from ssdir.data_check.annotations import check_annotations
from ssdir.data_check.images import ScannedImage, check_images

# The names of these problems don't contain the split, unlike images' names with their folder.
_UNPLACED = {"notes"}
# These are normal in a small validation or test split.
_OF_THE_MAIN_SPLIT = {"unused_classes", "rare_classes"}


def check_splits(
    tables: Mapping[str, AnnotationTable],
    main: str,
    scanned: Mapping[Path, ScannedImage],
    image_size: int,
    learned: Learned = EVERYTHING,
    resize: Resize = "stretch",
) -> list[Problem]:
    """Finds the problems of one or several splits, each kind once.

    Args:
        tables: the annotations by split.
        main: the split to learn from, which alone must show all classes.
        scanned: the decoded images, by path.
        image_size: side of the model's square input, to which images are resized.
        learned: which objects are to be learned.
        resize: how images become square.
    """
    about = (image_size, learned, resize)
    found = [problem for split in tables for problem in _check_split(tables, split, main, scanned, *about)]
    found += [*_classes_apart(tables, main), *_shared_images(tables, scanned)]
    by_kind: dict[str, list[Problem]] = defaultdict(list)
    for problem in found:
        by_kind[problem.kind].append(problem)
    return [
        replace(same[0], names=tuple(name for problem in same for name in problem.names))
        for same in by_kind.values()
    ]


def _check_split(
    tables: Mapping[str, AnnotationTable],
    split: str,
    main: str,
    scanned: Mapping[Path, ScannedImage],
    image_size: int,
    learned: Learned,
    resize: Resize,
) -> list[Problem]:
    table = tables[split]
    problems = []
    images = [scanned[path] for path in table.image_paths]
    for problem in [*check_images(table, images), *check_annotations(table, image_size, learned, resize)]:
        if split != main and problem.kind in _OF_THE_MAIN_SPLIT:
            continue
        if split != main and problem.kind == "no_objects":
            problem = Problem("splits_without_objects", False, "splits without any object", (split,))
        elif len(tables) > 1 and problem.kind in _UNPLACED:
            problem = replace(problem, names=tuple(f"{split}: {name}" for name in problem.names))
        problems.append(problem)
    return problems


def _classes_apart(tables: Mapping[str, AnnotationTable], main: str) -> list[Problem]:
    """Finds classes that only other splits than the main one show, and lists of classes in another order."""
    learned, unseen, others = _classes_with_objects(tables[main]), [], []
    for split, table in tables.items():
        missing = [name for name in _classes_with_objects(table) if name not in learned]
        unseen += [f"{split}: {name}" for name in missing if learned]
        if table.category_names != tables[main].category_names:
            listed = ", ".join(table.category_names[:5]) + ", ..." * (len(table.category_names) > 5)
            others.append(f"{split}: {listed}")
    problems = []
    if others:
        problems.append(
            Problem("other_classes", False, f"splits whose list of classes is not that of {main}", tuple(others))
        )
    if unseen:
        problems.append(Problem("unseen_classes", False, f"classes without objects in {main}", tuple(unseen)))
    return problems


def _classes_with_objects(table: AnnotationTable) -> list[str]:
    rows, _ = usable_boxes(table)
    return [table.category_names[i] for i in np.unique(table.category[rows]).tolist()]


def _shared_images(tables: Mapping[str, AnnotationTable], scanned: Mapping[Path, ScannedImage]) -> list[Problem]:
    """Finds images that an earlier split has too, whose measurements are of what was learned."""
    first: dict[str, tuple[str, str]] = {}
    shared = []
    for split, table in tables.items():
        for name, path in zip(table.image_names, table.image_paths, strict=True):
            content = scanned[path].content
            if content is None:
                continue
            earlier, other = first.setdefault(content, (split, name))
            if earlier != split:
                shared.append(f"{split}: {name} is {other} of {earlier}")
    sentence = "images that another split has too (kept: what is measured on them was learned)"
    return [Problem("shared_images", False, sentence, tuple(shared))] if shared else []


def main_split(splits: Sequence[str]) -> str:
    """Selects the split to learn from: train, or a name that begins so (train2017); else the first."""
    return next((split for split in splits if split == "train"), None) or next(
        (split for split in splits if split.lower().startswith("train")), splits[0]
    )
