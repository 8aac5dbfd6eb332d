"""The rows of an index, checked as they are read from files of objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssdir.analysis.search.duplicates import Places
from ssdir.analysis.search.table import IndexInfo
from ssdir.errors import InputError
from ssdir.formatting import quote
from ssdir.identity import Identity
from ssdir.store.columns import BOX_COLUMNS, numbers
from ssdir.store.objects_file import find_picture, read_batches, read_info

OnProgress: TypeAlias = Callable[[int, int, str], None]

_KEPT = (
    *("image", "image_index", "image_height", "image_width", *BOX_COLUMNS),
    *("class", "label", "score", "z_what", "z_depth", "anchor_index"),
)
INDEXED = -1
"""Number of the objects that an index holds already, where files count from 0."""


class Rows:
    """The objects of files as an index holds them, checked as they are read.

    Args:
        files: of the index's model.
        info: of the index.
        identity: of the model, see `read_info`.
        first: number of the first row.
    """

    def __init__(
        self, files: Sequence[str | Path], info: IndexInfo, identity: Identity | None, first: int = 0
    ) -> None:
        self.files, self.info, self.identity, self.first = files, info, identity, first
        self.places = Places()
        self.total = sum(read_info(file, identity).objects for file in files)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        schema, row = index_schema(self.info.latent_dim), self.first
        for source, file in enumerate(self.files):
            start = row
            for batch in read_batches(file, identity=self.identity):
                self._check(batch, source, row - start)
                columns = [batch.column(name) for name in _KEPT]
                columns[0] = self._from_index(columns[0])
                number = pa.array(np.arange(row, row + len(batch)))
                yield pa.RecordBatch.from_arrays([number, *columns, _sizes(batch)], schema=schema)
                row += len(batch)

    def _check(self, batch: pa.RecordBatch, source: int, first: int) -> None:
        """Refuses objects that would never be found, or be nearest to their doubles."""
        file = self.files[source]
        zero = np.flatnonzero(~numbers(batch.column("z_what")).any(axis=1))
        if len(zero):
            raise InputError(f"row {first + zero[0]} of '{file}' has a z_what of zeros, which is like nothing")
        double = self.places.add(batch, source, lambda image: find_picture(image, ".", Path(file).parent))
        if double is None:
            return
        row, before = double
        image = quote(batch.column("image")[row].as_py())
        if before == INDEXED:
            raise InputError(
                f"the index has objects of '{file}' already, such as one of {image}: add what is new only"
            )
        if before == source:
            raise InputError(f"row {first + row} of '{file}' is the same object of {image} as a row before it")
        raise InputError(f"'{file}' has objects of '{self.files[before]}' again, such as one of {image}")

    def _from_index(self, images: pa.Array) -> pa.Array:
        """Paths that mean the same from the index's folder as from the current one."""
        if Path.cwd() == Path(self.info.folder):
            return images
        return pa.array([str(Path(image).absolute()) for image in images.to_pylist()], pa.string())


def write_rows(write: Callable[[pa.RecordBatchReader], Any], rows: Rows, on_progress: OnProgress | None) -> Any:
    """Gives objects to one of LanceDB's writers.

    Raises:
        InputError: as `read_batches`.
    """
    raised: list[InputError] = []

    def batches() -> Iterator[pa.RecordBatch]:
        done = 0
        try:
            for batch in rows:
                yield batch
                done += len(batch)
                if on_progress is not None:
                    on_progress(done, rows.total, "reading objects")
        except InputError as error:  # LanceDB makes an error of its own of it.
            raised.append(error)
            raise

    try:
        return write(pa.RecordBatchReader.from_batches(index_schema(rows.info.latent_dim), batches()))
    except RuntimeError:
        if raised:
            raise raised[0] from None
        raise


def index_schema(latent_dim: int) -> pa.Schema:
    """The columns of an index."""
    kinds = {
        **dict.fromkeys(("row", "image_index"), pa.int64()),
        **dict.fromkeys(("image", "class"), pa.string()),
        **dict.fromkeys(("image_height", "image_width", "label", "anchor_index"), pa.int32()),
        **dict.fromkeys((*BOX_COLUMNS, "score", "size", "z_depth"), pa.float32()),
        "z_what": pa.list_(pa.float32(), latent_dim),
    }
    return pa.schema([pa.field(name, kinds[name]) for name in ("row", *_KEPT, "size")])


def _sizes(batch: pa.RecordBatch) -> pa.Array:
    """The boxes' longer sides, relative to the images' longer sides."""
    sides = [pc.subtract(batch.column(f"box_{axis}2"), batch.column(f"box_{axis}1")) for axis in "xy"]
    image = pc.max_element_wise(batch.column("image_height"), batch.column("image_width"))
    return pc.divide(pc.max_element_wise(*sides), image.cast(pa.float32()))
