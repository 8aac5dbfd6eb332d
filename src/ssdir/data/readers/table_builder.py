"""Builds an `AnnotationTable` object by object, and reads lists of class names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ssdir.data.annotations import AnnotationTable
from ssdir.documents import read_lines
from ssdir.errors import InputError
from ssdir.formatting import quote

_MAX_NAMES_BYTES = 1 << 22


class TableBuilder:
    """Collects the rows of a table; each image is added before its objects.

    An object that repeats another of its image in everything is left out, and counted in a note.
    """

    def __init__(self, category_names: Sequence[str], attribute_names: Mapping[str, list[str]] | None = None):
        """Starts an empty table with the names of the categories and of the attributes' values."""
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
        """Builds the table."""
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


def read_names(path: Path) -> list[str]:
    """Reads class names, one per line.

    Raises:
        InputError: as `read_lines`; if there are none, two are the same, or a line between them is empty, on which
            the classes' numbers would depend.
    """
    names = "\n".join(read_lines(path, _MAX_NAMES_BYTES)).rstrip("\n").split("\n")
    names = [] if names == [""] else names
    if "" in names:
        raise InputError(f"{path}: line {names.index('') + 1} is empty, but each line names a class: remove it")
    check_names(names, str(path))
    return names


def check_names(names: Sequence[str], where: str) -> None:
    """Raises an InputError if there are no class names, or two are the same."""
    if not names:
        raise InputError(f"{where}: there are no class names")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"{where}: two classes are called {quote(name)}: give each a name of its own")
        seen.add(name)
