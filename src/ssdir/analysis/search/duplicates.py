"""Objects that an index would hold twice: of the same box in the same picture."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ssdir.store.columns import BOX_COLUMNS, numbers

PLACE = ("image", *BOX_COLUMNS, "label", "anchor_index")
"""The columns that make an object the same as another."""

_PER_PIXEL = 10
"""Boxes that differ by less than such a part of a pixel are the same: batches of other sizes round otherwise."""
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


class Places:
    """The places of all objects seen so far, by the file that each is in. A picture is known by its real path."""

    def __init__(self) -> None:
        self._pictures: dict[str, int] = {}
        self._seen: dict[int, int] = {}

    def add(
        self, rows: pa.RecordBatch | pa.Table, source: int, locate: Callable[[str], Path]
    ) -> tuple[int, int] | None:
        """Notes the places of some rows.

        Args:
            rows: with the columns `PLACE`.
            source: number of their file.
            locate: finds the picture of a path.

        Returns:
            The first row whose place was seen before, and the number of the file in which; None if there is none.
        """
        for row, place in enumerate(self._places(rows, locate).tolist()):
            if place in self._seen:
                return row, self._seen[place]
            self._seen[place] = source
        return None

    def _places(self, rows: pa.RecordBatch | pa.Table, locate: Callable[[str], Path]) -> NDArray[np.uint64]:
        """A number for each place: a polynomial of its parts, which differ for different places."""
        coded = pa.chunked_array([rows.column("image")]).combine_chunks().dictionary_encode()
        real = [os.path.realpath(locate(image)) for image in coded.dictionary.to_pylist()]
        pictures = np.array(
            [self._pictures.setdefault(path, len(self._pictures)) for path in real], dtype=np.int64
        )
        boxes = [np.rint(numbers(rows.column(name)).astype(np.float64) * _PER_PIXEL) for name in BOX_COLUMNS]
        further = [numbers(rows.column(name)) for name in ("label", "anchor_index")]
        place: NDArray[np.uint64] = pictures[coded.indices.to_numpy()].astype(np.uint64)
        for part in (*boxes, *further):
            place = place * _FACTOR + part.astype(np.int64).astype(np.uint64)
        return place
