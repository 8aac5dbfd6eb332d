"""Joining of the parts of a folder into one file."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from ssdir.identity import Identity
from ssdir.outputs import atomic_file, claim
from ssdir.store.info import StoreInfo, read_info
from ssdir.store.metadata import identity_metadata
from ssdir.store.objects_file import rows_schema, stream_rows
from ssdir.store.skipped import read_skipped, skipped_metadata
from ssdir.store.track_columns import check_one_clip
from ssdir.store.writer import RowGroupWriter


def join_parts(
    path: str | Path, out: str | Path, force: bool = False, identity: Identity | None = None
) -> StoreInfo:
    """Joins the parts of a folder into one file, whole or not at all, and checks every value.

    The file is the one that encoding the same images in one piece would have written. Memory grows only with what
    the file's metadata name: the images without objects, and those that were skipped.

    Args:
        path: the folder; or a file, which is copied.
        out: the `.parquet` file to write.
        force: replace an existing file.
        identity: of the model that encoded, where the parts no longer name it, see `read_info`.

    Returns:
        The metadata of the folder.

    Raises:
        InputError: as `claim`, `read_info`, `check_one_clip` and `stream_objects`.
    """
    claim(out, force, (".parquet",))
    info = read_info(path, identity)
    check_one_clip(info)
    schema = rows_schema(info).with_metadata(identity_metadata(info.identity))
    with atomic_file(out, force) as temporary, RowGroupWriter(temporary, schema) as file:
        for batch in stream_rows(info):
            file.write(pa.Table.from_batches([batch]))
        file.add_metadata(info.images_metadata() | skipped_metadata(read_skipped(path, identity)))
    return info
