"""Keys of objects, by which the same object is noticed when it is given twice, in bounded memory.

A key is a number of 64 bits, and a column of the index: to add to an index, its keys are read, and not kept.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ssdir.object_table import BOX_COLUMNS
from ssdir.storage import Location, to_location
from ssdir.store.columns import numbers

KEY = "object_key"
KEYS_AT_ONCE = 1 << 25
"""Keys that are compared at once, 8 bytes each; of more objects, the column is read several times."""

_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_PER_PIXEL = 10
"""Boxes that differ by less than this share of a pixel are the same: rounding depends on the batch size."""
_SHOWN = 1000
"""Repeated keys that are looked at together: an error names one object."""


def object_keys(rows: pa.RecordBatch, real_path: Callable[[str], str]) -> NDArray[np.uint64]:
    """Returns the keys of objects: a hash of the real path of the image, the box, label and anchor.

    Args:
        rows: the objects.
        real_path: returns the real path of an image as it is stored.
    """
    coded = rows.column("image").dictionary_encode()
    images = np.array([_hash(real_path(image)) for image in coded.dictionary.to_pylist()], dtype=np.uint64)
    key: NDArray[np.uint64] = images[coded.indices.to_numpy()]
    for part in _values(rows).T:
        key = key * _FACTOR + part.astype(np.uint64)
    return key


def repeated(table: Any, first: int) -> tuple[int, int] | None:
    """Returns a row that repeats an object of an earlier row, and that row; None if no object is repeated.

    Args:
        table: LanceDB's table of the index.
        first: the first row to look at; the rows before it don't repeat each other.
    """
    passes = max(1, -(-(int(table.count_rows()) - first) // KEYS_AT_ONCE))
    for number in range(passes):
        keys = _repeated_keys(table, first, number, passes)
        for start in range(0, len(keys), _SHOWN):
            found = _first_pair(table, keys[start : start + _SHOWN], first)
            if found is not None:
                return found
    return None


def _repeated_keys(table: Any, first: int, number: int, passes: int) -> NDArray[np.uint64]:
    """Returns the keys of rows from `first` on that other rows have too, of those with one remainder."""
    new = np.concatenate(
        [key[(row >= first) & (key % passes == number)] for row, key in _stream(table)]
        or [np.empty(0, dtype=np.uint64)]
    )
    new.sort()
    found = [new[1:][new[1:] == new[:-1]]]
    if first:
        found += [key[(row < first) & _is_in(key, new)] for row, key in _stream(table)]
    return np.unique(np.concatenate(found))


def _first_pair(table: Any, keys: NDArray[np.uint64], first: int) -> tuple[int, int] | None:
    rows = np.concatenate([row[_is_in(key, keys)] for row, key in _stream(table)])
    records = table.take_offsets(rows.tolist()).to_arrow().sort_by("row")
    seen: dict[tuple[int, ...], int] = {}
    # Different objects of the same key differ in their boxes, labels or anchors.
    identities = zip(records[KEY].to_pylist(), *_values(records).T.tolist(), strict=True)
    for row, identity in zip(records["row"].to_pylist(), identities, strict=True):
        if row >= first and identity in seen:
            return row, seen[identity]
        seen.setdefault(identity, row)
    return None


def _stream(table: Any) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint64]]]:
    for batch in table.search().select(["row", KEY]).to_batches():
        yield numbers(batch.column("row")), numbers(batch.column(KEY))


def _is_in(keys: NDArray[np.uint64], ordered: NDArray[np.uint64]) -> NDArray[np.bool_]:
    if not len(ordered):
        return np.zeros(len(keys), dtype=bool)
    place = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
    return np.equal(ordered[place], keys)


def _values(rows: pa.RecordBatch | pa.Table) -> NDArray[np.int64]:
    """Returns box, in tenths of a pixel, label and anchor of objects, int64 (M, 6)."""
    boxes = [np.rint(numbers(rows.column(name)).astype(np.float64) * _PER_PIXEL) for name in BOX_COLUMNS]
    return np.stack([*boxes, *(numbers(rows.column(name)) for name in ("label", "anchor_index"))], 1).astype(
        np.int64
    )


def _hash(path: str) -> int:
    return int.from_bytes(hashlib.blake2b(os.fsencode(path), digest_size=8).digest(), "little")


class RealPaths:
    """Paths with their links followed; those of a folder are followed once for all images in it."""

    def __init__(self) -> None:
        self._folder = lru_cache(maxsize=4096)(os.path.realpath)

    def of(self, image: Location) -> str:
        """Returns the real path of an image, or its URI."""
        path = to_location(image)
        if not isinstance(path, Path):
            return path
        folder, name = os.path.split(path)
        if name == ".." or os.path.islink(path):
            return os.path.realpath(path)
        return os.path.join(self._folder(os.path.join(os.getcwd(), folder)), name)
