"""The rows of an index, checked as they are read from files of objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssdir.analysis.search.header import IndexInfo
from ssdir.analysis.search.keys import KEY, RealPaths, object_keys
from ssdir.analysis.tracks import track_entries, track_spans
from ssdir.console import Advance
from ssdir.errors import InputError
from ssdir.object_table import BOX_COLUMNS, SPAN_COLUMNS, TRACK
from ssdir.storage import absolute, to_location
from ssdir.store.columns import numbers
from ssdir.store.info import StoreInfo
from ssdir.store.objects_file import find_picture, stream_objects

_KEPT = (
    *("image", "image_index", "image_height", "image_width", *BOX_COLUMNS),
    *("class", "label", "score", "z_what", "z_depth", "anchor_index"),
)


class Rows:
    """The objects of files, or their tracks, as rows of an index, checked as they are read.

    Args:
        files: files of objects, encoded by the index's model.
        info: metadata of the index.
        first: number of the first row.

    Raises:
        InputError: if the index is of tracks and a file has none; as `track_spans`.
    """

    def __init__(self, files: Sequence[StoreInfo], info: IndexInfo, first: int = 0) -> None:
        self.files, self.info, self.first = files, info, first
        self.schema = index_schema(info.latent_dim, info.entries)
        self._tracks = [track_spans(file) for file in files] if info.entries == "tracks" else None
        self._counts = [len(spans) for spans in self._tracks or ()] or [file.objects for file in files]
        self.total = sum(self._counts)
        self._is_moved = Path.cwd() != Path(info.folder)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        row = self.first
        for number, file in enumerate(self.files):
            start, real_path = row, partial(_real_path, RealPaths(), file.around)
            read = stream_objects(file) if self._tracks is None else track_entries(file, self._tracks[number])
            for batch in read:
                zero = np.flatnonzero(~numbers(batch.column("z_what")).any(axis=1))
                if len(zero):
                    where = self.name(number, row - start + int(zero[0]))
                    raise InputError(f"{where} has a z_what of zeros, which is like nothing")
                columns = {name: batch.column(name) for name in self.schema.names if name in batch.schema.names}
                columns |= {
                    "row": pa.array(np.arange(row, row + len(batch))),
                    KEY: pa.array(object_keys(batch, real_path)),
                    "image": self._from_index(columns["image"]),
                    "size": _sizes(batch),
                }
                yield pa.RecordBatch.from_arrays([columns[name] for name in self.schema.names], schema=self.schema)
                row += len(batch)

    def source(self, row: int) -> tuple[int, int] | None:
        """Returns the number of the file of a row of the index, and which of the file's entries it is, from 0.

        None if the index had the row before.
        """
        row -= self.first
        for number, count in enumerate(self._counts) if row >= 0 else ():
            if row < count:
                return number, row
            row -= count
        return None

    def name(self, number: int, entry: int) -> str:
        """Returns what an entry of a file is called in messages."""
        return f"{self.name_in_file(number, entry)} of '{self.files[number].path}'"

    def name_in_file(self, number: int, entry: int) -> str:
        """Returns what an entry is called where its file is named already."""
        return f"row {entry}" if self._tracks is None else f"track {self._tracks[number].track_id[entry]}"

    def _from_index(self, images: pa.Array) -> pa.Array:
        """Returns paths that mean the same from the index's folder as from the current one."""
        if not self._is_moved:
            return images
        coded = images.dictionary_encode()
        moved = [str(absolute(to_location(image))) for image in coded.dictionary.to_pylist()]
        return pa.array(moved, pa.string()).take(coded.indices)


def write_rows(write: Callable[[pa.RecordBatchReader], Any], rows: Rows, on_progress: Advance) -> Any:
    """Streams objects to one of LanceDB's writers.

    Raises:
        InputError: as `stream_objects`; if an embedding is all zeros.
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
        return write(pa.RecordBatchReader.from_batches(rows.schema, batches()))
    except RuntimeError:
        if raised:
            raise raised[0] from None
        raise


def index_schema(latent_dim: int, entries: str = "objects") -> pa.Schema:
    """Returns the columns of an index of objects or tracks, whose embeddings have `latent_dim` numbers."""
    tracks = (TRACK, *SPAN_COLUMNS) if entries == "tracks" else ()
    kinds = {
        **dict.fromkeys(("row", "image_index", *tracks), pa.int64()),
        KEY: pa.uint64(),
        **dict.fromkeys(("image", "class"), pa.string()),
        **dict.fromkeys(("image_height", "image_width", "label", "anchor_index"), pa.int32()),
        **dict.fromkeys((*BOX_COLUMNS, "score", "size", "z_depth"), pa.float32()),
        "z_what": pa.list_(pa.float32(), latent_dim),
    }
    return pa.schema([pa.field(name, kinds[name]) for name in ("row", KEY, *_KEPT, "size", *tracks)])


def _real_path(real: RealPaths, folder: Path, image: str) -> str:
    return real.of(find_picture(image, ".", folder))


def _sizes(batch: pa.RecordBatch) -> pa.Array:
    """Returns the boxes' longer sides, relative to the images' longer sides."""
    sides = [pc.subtract(batch.column(f"box_{axis}2"), batch.column(f"box_{axis}1")) for axis in "xy"]
    image = pc.max_element_wise(batch.column("image_height"), batch.column("image_width"))
    return pc.divide(pc.max_element_wise(*sides), image.cast(pa.float32()))
