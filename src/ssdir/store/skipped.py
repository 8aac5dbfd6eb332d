"""The images and boxes of an encoding that were left out: a table for each part that has any."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ssdir.outputs import atomic_file
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


def write_skipped(folder: Path, number: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes what was left out of a part.

    Args:
        folder: folder of the encoding.
        number: the part's.
        rows: what `SKIPPED_SCHEMA` names.
    """
    with atomic_file(folder / SKIPPED / part_name(number), force=True) as temporary:
        pq.write_table(pa.Table.from_pylist(list(rows), SKIPPED_SCHEMA), temporary, compression="zstd")


def read_skipped(folder: str | Path) -> pa.Table:
    """Reads what was left out of an encoding, with the columns of `SKIPPED_SCHEMA`, in the order of the images.

    Raises:
        InputError: if a file is damaged.
    """
    return pa.concat_tables([SKIPPED_SCHEMA.empty_table(), *_tables(Path(folder) / SKIPPED)])


def _tables(folder: Path) -> Iterator[pa.Table]:
    for path in sorted(folder.glob("part-*.parquet")):
        with damaged(path), pq.ParquetFile(path) as file:
            yield file.read()
