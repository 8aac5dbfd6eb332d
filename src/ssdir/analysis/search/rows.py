"""The rows of an index, checked as they are read from files of objects."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ssdir.analysis.search.files import IndexInfo
from ssdir.console import Advance
from ssdir.errors import InputError
from ssdir.formatting import quote
from ssdir.object_table import BOX_COLUMNS
from ssdir.store.columns import numbers
from ssdir.store.info import StoreInfo
from ssdir.store.objects_file import find_picture, stream_objects

IDENTITY_COLUMNS = ("image", *BOX_COLUMNS, "label", "anchor_index")
"""The columns that identify an object: two objects with the same values are the same."""

_KEPT = (
    *("image", "image_index", "image_height", "image_width", *BOX_COLUMNS),
    *("class", "label", "score", "z_what", "z_depth", "anchor_index"),
)
_INDEXED = -1
"""Source number of the objects that an index already holds; the files to add are numbered from 0."""
_PER_PIXEL = 10
"""Boxes that differ by less than this share of a pixel are the same: rounding depends on the batch size."""
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


class Rows:
    """The objects of files as rows of an index, checked as they are read.

    Args:
        files: files of objects, encoded by the index's model.
        info: metadata of the index.
        first: number of the first row.
    """

    def __init__(self, files: Sequence[StoreInfo], info: IndexInfo, first: int = 0) -> None:
        self.files, self.info, self.first = files, info, first
        self.total = sum(file.objects for file in files)
        self._images: dict[str, int] = {}
        self._sources: dict[int, int] = {}

    def note_indexed(self, rows: pa.Table, locate: Callable[[str], Path]) -> None:
        """Records the objects that the index already holds, to detect repeated ones.

        Args:
            rows: the objects, with `IDENTITY_COLUMNS`.
            locate: returns the file of an image.
        """
        self._find_double(rows, _INDEXED, locate)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        schema, row = index_schema(self.info.latent_dim), self.first
        for source, file in enumerate(self.files):
            start = row
            for batch in stream_objects(file):
                self._check(batch, source, row - start)
                columns = [batch.column(name) for name in _KEPT]
                columns[0] = self._from_index(columns[0])
                number = pa.array(np.arange(row, row + len(batch)))
                yield pa.RecordBatch.from_arrays([number, *columns, _sizes(batch)], schema=schema)
                row += len(batch)

    def _check(self, batch: pa.RecordBatch, source: int, first: int) -> None:
        """Raises an error for objects without a valid embedding, and for repeated objects."""
        file = self.files[source].path
        zero = np.flatnonzero(~numbers(batch.column("z_what")).any(axis=1))
        if len(zero):
            raise InputError(f"row {first + zero[0]} of '{file}' has a z_what of zeros, which is like nothing")
        double = self._find_double(batch, source, lambda image: find_picture(image, ".", file.parent))
        if double is None:
            return
        row, before = double
        image = quote(batch.column("image")[row].as_py())
        if before == _INDEXED:
            raise InputError(
                f"the index has objects of '{file}' already, such as one of {image}: add what is new only"
            )
        if before == source:
            raise InputError(f"row {first + row} of '{file}' is the same object of {image} as a row before it")
        raise InputError(f"'{file}' has objects of '{self.files[before].path}' again, such as one of {image}")

    def _find_double(
        self, rows: pa.RecordBatch | pa.Table, source: int, locate: Callable[[str], Path]
    ) -> tuple[int, int] | None:
        """Returns the first row that was seen before, and the number of the source in which; None if none was."""
        for row, key in enumerate(self._keys(rows, locate).tolist()):
            if key in self._sources:
                return row, self._sources[key]
            self._sources[key] = source
        return None

    def _keys(self, rows: pa.RecordBatch | pa.Table, locate: Callable[[str], Path]) -> NDArray[np.uint64]:
        """Returns a number for each object, a polynomial of `IDENTITY_COLUMNS` with real paths of images."""
        coded = pa.chunked_array([rows.column("image")]).combine_chunks().dictionary_encode()
        real = [os.path.realpath(locate(image)) for image in coded.dictionary.to_pylist()]
        images = np.array([self._images.setdefault(path, len(self._images)) for path in real], dtype=np.int64)
        boxes = [np.rint(numbers(rows.column(name)).astype(np.float64) * _PER_PIXEL) for name in BOX_COLUMNS]
        key: NDArray[np.uint64] = images[coded.indices.to_numpy()].astype(np.uint64)
        for part in (*boxes, *(numbers(rows.column(name)) for name in ("label", "anchor_index"))):
            key = key * _FACTOR + part.astype(np.int64).astype(np.uint64)
        return key

    def _from_index(self, images: pa.Array) -> pa.Array:
        """Returns paths that mean the same from the index's folder as from the current one."""
        if Path.cwd() == Path(self.info.folder):
            return images
        return pa.array([str(Path(image).absolute()) for image in images.to_pylist()], pa.string())


def write_rows(write: Callable[[pa.RecordBatchReader], Any], rows: Rows, on_progress: Advance) -> Any:
    """Streams objects to one of LanceDB's writers.

    Raises:
        InputError: as `stream_objects`; if an object is given twice.
    """
    raised: list[InputError] = []

    def batches() -> Iterator[pa.RecordBatch]:
        done = 0
        try:
            for batch in rows:
                yield batch
                done += len(batch)
                on_progress(done, rows.total, "reading objects")
        except InputError as error:  # LanceDB turns it into an error of its own.
            raised.append(error)
            raise

    try:
        return write(pa.RecordBatchReader.from_batches(index_schema(rows.info.latent_dim), batches()))
    except RuntimeError:
        if raised:
            raise raised[0] from None
        raise


def index_schema(latent_dim: int) -> pa.Schema:
    """Returns the columns of an index."""
    kinds = {
        **dict.fromkeys(("row", "image_index"), pa.int64()),
        **dict.fromkeys(("image", "class"), pa.string()),
        **dict.fromkeys(("image_height", "image_width", "label", "anchor_index"), pa.int32()),
        **dict.fromkeys((*BOX_COLUMNS, "score", "size", "z_depth"), pa.float32()),
        "z_what": pa.list_(pa.float32(), latent_dim),
    }
    return pa.schema([pa.field(name, kinds[name]) for name in ("row", *_KEPT, "size")])


def _sizes(batch: pa.RecordBatch) -> pa.Array:
    """Returns the boxes' longer sides, relative to the images' longer sides."""
    sides = [pc.subtract(batch.column(f"box_{axis}2"), batch.column(f"box_{axis}1")) for axis in "xy"]
    image = pc.max_element_wise(batch.column("image_height"), batch.column("image_width"))
    return pc.divide(pc.max_element_wise(*sides), image.cast(pa.float32()))
