"""What the readers of one file per image share: collecting rows, reading lines, dividing what has no splits."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from ssdir.data.annotations import AnnotationTable
from ssdir.documents import read_lines
from ssdir.errors import InputError
from ssdir.formatting import quote

Key = TypeVar("Key", bound=str | Path)

SPLITS = ("train", "val", "test")
"""What `divide` makes."""

# A division leaves at least one image for each of train, val and test.
_FEWEST_TO_DIVIDE = 3
_FEWEST_TO_HOLD_OUT = 2

_MAX_NAMES_BYTES = 1 << 22


class TableBuilder:
    """Collects images, and after each its objects.

    An object that repeats another of its image in everything is left out, and counted in a note.
    """

    def __init__(self, category_names: Sequence[str], attribute_names: Mapping[str, list[str]] | None = None):
        """Starts empty, with the names of the categories and of the attributes' values."""
        self._category_names = list(category_names)
        self._attribute_names = attribute_names
        self._names: list[str] = []
        self._sizes: list[tuple[int, int]] = []
        self._rows: list[tuple[int, int, tuple[float, ...], bool, bool, tuple[int, ...]]] = []
        self._of_this_image: set[tuple[object, ...]] = set()
        self._repeated = 0
        self._first_repeated = ""

    def __len__(self) -> int:
        return len(self._names)

    def add_image(self, name: str, size: tuple[int, int]) -> None:
        """Adds an image: its name relative to the root, height and width."""
        self._names.append(name)
        self._sizes.append(size)
        self._of_this_image = set()

    def add_object(
        self,
        category: int,
        box: Sequence[float],
        ignored: bool = False,
        difficult: bool = False,
        attributes: Sequence[int] = (),
    ) -> None:
        """Adds an object to the last image; `box` is xyxy in pixels."""
        row = (len(self._names) - 1, category, tuple(box), ignored, difficult, tuple(attributes))
        if row in self._of_this_image:
            self._repeated += 1
            self._first_repeated = self._first_repeated or self._names[-1]
            return
        self._of_this_image.add(row)
        self._rows.append(row)

    def build(
        self,
        root: Path,
        sources: Iterable[Path],
        notes: Iterable[str] = (),
        has_difficult: bool = False,
        sizes_from_files: bool = False,
    ) -> AnnotationTable:
        """The table of what was added."""
        image, category, boxes, ignored, difficult, attributes = (
            zip(*self._rows, strict=True) if self._rows else [()] * 6
        )
        notes = [*notes]
        if self._repeated:
            notes.append(
                f"repeated objects (same class and box), left out: {self._repeated}, the first in "
                f"{self._first_repeated}"
            )
        names = self._attribute_names
        columns = np.array(attributes, dtype=np.int64).reshape(len(image), len(names or {}))
        return AnnotationTable(
            root=root,
            sources=tuple(sources),
            category_names=self._category_names,
            image_names=self._names,
            image_sizes=np.array(self._sizes, dtype=np.int64).reshape(-1, 2),
            image=np.array(image, dtype=np.int64),
            category=np.array(category, dtype=np.int64),
            boxes_px=np.array(boxes, dtype=np.float64).reshape(-1, 4),
            ignored=np.array(ignored, dtype=np.bool_),
            difficult=np.array(difficult, dtype=np.bool_) if has_difficult else None,
            attributes=None if names is None else dict(zip(names, columns.T, strict=True)),
            attribute_names=None if names is None else dict(names),
            notes=tuple(notes),
            sizes_from_files=sizes_from_files,
        )


def divide(keys: Sequence[Key], split: str, where: str) -> list[Key]:
    """The part of a data set without splits that a split's name stands for.

    `all` is everything. `val` and `test` are a tenth each, at least one image, and `train` is the rest. The
    images' names alone decide, by their hash: neither their order nor where the folder lies does.

    Raises:
        InputError: if `split` is none of these, or there are too few images to divide; it names `where`.
    """
    if split == "all":
        return sorted(keys)
    if split not in SPLITS:
        raise InputError(
            f"{where} is not divided into splits: ask for train, val or test (80, 10 and 10 % of the "
            f"images), or all, not '{split}'"
        )
    if len(keys) < _FEWEST_TO_DIVIDE:
        raise InputError(f"{where}: too few images to divide into train, val and test ({len(keys)}): ask for all")
    ranked, part = _by_hash(keys), _tenth(keys)
    return sorted({"val": ranked[:part], "test": ranked[part : 2 * part], "train": ranked[2 * part :]}[split])


def hold_out(table: AnnotationTable, where: str) -> tuple[AnnotationTable, AnnotationTable]:
    """Divides a split for training, where there is none for validation: `train`, and a `val` of a tenth of it.

    It is at least one image, and `divide` would have chosen the same. A note of `val` says where it is from.

    Raises:
        InputError: if there is but one image; it names `where`.
    """
    names = table.image_names
    if len(names) < _FEWEST_TO_HOLD_OUT:
        raise InputError(
            f"{where} has one image, so none can be held out to validate on: add images, or a split val"
        )
    held = {*_by_hash(names)[: _tenth(names)]}
    objects, is_held = np.arange(len(table.image)), np.array([name in held for name in names])
    train, val = (table.subset(objects, np.flatnonzero(part)) for part in (~is_held, is_held))
    part = f"{len(held)} of the {len(names)} images of {where.rstrip(',')}"
    note = f"{part}: there is no other val, so training leaves them out"
    return train, replace(val, notes=(*val.notes, note))


def _by_hash(keys: Sequence[Key]) -> list[Key]:
    """In an order that their names alone decide."""
    return sorted(keys, key=lambda key: hashlib.sha256(os.fsencode(str(key))).digest())


def _tenth(keys: Sequence[Key]) -> int:
    return max(1, len(keys) // 10)


def split_of(name: str) -> str:
    """The split that a name stands for: `train` for train2017, `val` for valid; else the name itself."""
    return next((split for split in SPLITS if name.lower().startswith(split)), name)


def stand_for(names: Sequence[str]) -> list[str]:
    """What each of all splits' names stands for: see `split_of`. An only split of another name is `train`."""
    splits = [split_of(name) for name in names]
    return ["train"] if len(splits) == 1 and splits[0] not in SPLITS else splits


def find_name(split: str, names: Sequence[str]) -> str | None:
    """What a split is called among all splits' names: as itself, or by the only one that stands for it."""
    called = [name for name, stands_for in zip(names, stand_for(names), strict=True) if stands_for == split]
    return split if split in names else called[0] if len(called) == 1 else None


def read_names(path: Path) -> list[str]:
    """Class names, one per line.

    Raises:
        InputError: as `read_lines`; if there are none, two are the same, or a line between them is empty: the
            classes' numbers would depend on whether it counts.
    """
    names = "\n".join(read_lines(path, _MAX_NAMES_BYTES)).rstrip("\n").split("\n")
    names = [] if names == [""] else names
    if "" in names:
        raise InputError(f"{path}: line {names.index('') + 1} is empty, but each line names a class: remove it")
    check_names(names, str(path))
    return names


def check_names(names: Sequence[str], where: str) -> None:
    """InputError if there are no class names, or two are the same."""
    if not names:
        raise InputError(f"{where}: there are no class names")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"{where}: two classes are called {quote(name)}: give each a name of its own")
        seen.add(name)
