"""The images and boxes of an encoding that were left out: a table for each part that has any."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ssdir.storage import Location, join, list_files, new_file, open_file, pure_path, to_location
from ssdir.store.folder import SKIPPED, part_name
from ssdir.store.info import damaged

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
    """Writes what was left out of a part.

    Args:
        folder: folder of the encoding.
        number: the part's.
        rows: what `SKIPPED_SCHEMA` names.
    """
    with new_file(join(join(folder, SKIPPED), part_name(number))) as temporary:
        pq.write_table(pa.Table.from_pylist(list(rows), SKIPPED_SCHEMA), temporary, compression="zstd")


def read_skipped(folder: str | Location) -> pa.Table:
    """Reads what was left out of an encoding, with the columns of `SKIPPED_SCHEMA`, in the order of the images.

    Raises:
        InputError: if a file is damaged.
    """
    return pa.concat_tables([SKIPPED_SCHEMA.empty_table(), *_tables(join(to_location(folder), SKIPPED))])


def _tables(folder: Location) -> Iterator[pa.Table]:
    for path in list_files(folder):
        if pure_path(path).suffix == ".parquet" and pure_path(path).name[0] != ".":
            with damaged(path), open_file(path) as opened:
                yield pq.read_table(opened)
