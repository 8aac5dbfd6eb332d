"""The images and boxes that an encoding left out: a table for each part that has any, or a file's metadata."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ssdir.identity import Identity
from ssdir.storage import Location, is_file, is_folder, join, new_file, remove, to_location
from ssdir.store.folder import MANIFEST, SKIPPED, numbered_files, part_name
from ssdir.store.info import read_info
from ssdir.store.metadata import SKIPPED_KEY, damaged, json_metadata, open_parquet, read_json_metadata
from ssdir.store.parts import Part

SKIPPED_SCHEMA = pa.schema(
    [
        pa.field("image_index", pa.int64(), nullable=False),
        pa.field("image", pa.string(), nullable=False),
        pa.field("box_row", pa.int64()),
        pa.field("reason", pa.string(), nullable=False),
    ]
)
"""`box_row` is the row of a given box that was not encoded; it is null for an image that couldn't be read."""


def write_skipped(folder: Location, number: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes what was left out of a part; without rows, removes what an earlier attempt at it has written.

    Args:
        folder: folder of the encoding.
        number: the part's.
        rows: what `SKIPPED_SCHEMA` names.
    """
    path = join(join(folder, SKIPPED), part_name(number))
    if not rows:
        remove([path])
        return
    with new_file(path) as temporary:
        pq.write_table(pa.Table.from_pylist(list(rows), SKIPPED_SCHEMA), temporary, compression="zstd")


def read_skipped(path: str | Path, identity: Identity | None = None) -> pa.Table:
    """Reads what was left out of an encoding, with the columns of `SKIPPED_SCHEMA`, in the order of the images.

    Args:
        path: the file or folder that `ssdir encode` wrote, or a folder of several such files, local or as a URI.
        identity: of the model that encoded, where a file no longer names it, see `read_info`.

    Raises:
        InputError: if a file is missing or damaged; as `read_info`.
    """
    location = to_location(path)
    tables = [SKIPPED_SCHEMA.empty_table()]
    if is_folder(location):
        tables += stream_skipped(location)
    # The parts of one encoding, which may be incomplete, have nothing skipped in their metadata.
    if not is_file(join(location, MANIFEST)):
        tables += map(_skipped_of, read_info(location, identity).parts)
    return pa.concat_tables(tables)


def _skipped_of(part: Part) -> pa.Table:
    """Reads the rows in the metadata of a file, with its images numbered among those of all files."""
    with damaged(part.path), open_parquet(part.path) as file:
        rows = read_json_metadata(file.metadata.metadata or {}, SKIPPED_KEY, part.path) or []
        shifted = [{**row, "image_index": row["image_index"] + part.shift} for row in rows]
        return pa.Table.from_pylist(shifted, SKIPPED_SCHEMA)


def stream_skipped(folder: Location, parts: Container[int] | None = None) -> Iterator[pa.Table]:
    """Reads what was left out of each part of a folder, as `read_skipped` does.

    Args:
        folder: folder of the encoding.
        parts: numbers of the parts; None takes all.
    """
    for number, location in numbered_files(join(folder, SKIPPED)).items():
        if parts is None or number in parts:
            with open_parquet(location) as file:
                yield file.read()


def skipped_metadata(skipped: pa.Table) -> dict[bytes, bytes]:
    """Returns the metadata of a file of objects that keep what was left out; none if nothing was."""
    return json_metadata(SKIPPED_KEY, skipped.to_pylist()) if len(skipped) else {}
