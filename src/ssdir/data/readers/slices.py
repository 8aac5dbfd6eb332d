"""Parts of a split by the positions of their images, such as `train[:260]`, as in TensorFlow Datasets."""

from __future__ import annotations

import re
from typing import TypeAlias

import numpy as np

from ssdir.data.annotations import AnnotationTable
from ssdir.errors import InputError

Bounds: TypeAlias = tuple[int | None, int | None]
"""The first image, and the one after the last; negative ones count from the end, None leaves the end open."""

_SLICED = re.compile(r"(?P<name>[^\[\]]+)\[(?P<start>-?\d{1,12})?:(?P<stop>-?\d{1,12})?\]")


def split_bounds(split: str) -> tuple[str, Bounds | None]:
    """Separates `train[:260]` into the name of the split and the bounds; without brackets there are no bounds.

    Raises:
        InputError: if there are brackets, but no bounds in them.
    """
    if not split.endswith("]"):
        return split, None
    match = _SLICED.fullmatch(split)
    if match is None:
        raise InputError(
            f"'{split}' names no part of a split: write numbers of images, as in train[:260], train[260:] or "
            "train[-50:]"
        )
    start, stop = (None if match[end] is None else int(match[end]) for end in ("start", "stop"))
    return match["name"], (start, stop)


def sliced(table: AnnotationTable, bounds: Bounds, where: str) -> AnnotationTable:
    """Selects the images of a split between two positions, in the order of its annotations.

    Args:
        table: the annotations of the split.
        bounds: see `Bounds`.
        where: the data set and the split, for messages.

    Raises:
        InputError: if a position is beyond the split's images, if no image is left, or if a clip would be divided,
            whose frames resemble each other.
    """
    count = len(table.image_names)
    beyond = next((bound for bound in bounds if bound is not None and abs(bound) > count), None)
    if beyond is not None:
        raise InputError(f"{where}: {beyond} is beyond its {count} images: give a position of at most {count}")
    images = np.arange(count)[slice(*bounds)]
    if not len(images):
        raise InputError(f"{where}: no image is left of {count}: let the first position be below the last")
    if table.clip is not None:
        own = np.isin(table.clip, table.clip[images])
        if own.sum() != len(images):
            raise InputError(
                f"{where} divides a clip, whose frames resemble each other: choose a position where a clip begins"
            )
    return table.subset(np.arange(len(table.image)), images)
