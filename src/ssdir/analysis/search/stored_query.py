"""Queries by objects that were encoded before: the tracks or rows of a file, `tracks.parquet#track=3`."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ssdir.analysis.search.header import IndexInfo
from ssdir.analysis.tracks import has_tracks, read_entries, track_entries, track_spans
from ssdir.errors import InputError
from ssdir.formatting import quote
from ssdir.identity import Identity, check_comparable
from ssdir.object_table import TRACK
from ssdir.storage import Location, is_folder, list_files
from ssdir.store.folder import MANIFEST
from ssdir.store.info import StoreInfo, read_info
from ssdir.store.objects_file import stream_rows

MOST_QUERIES = 10_000
"""Maximum number of tracks or objects of a file that are searched for at once."""


def is_stored(path: Location) -> bool:
    """Returns whether a query names a file of objects, or a folder of its parts, rather than an image."""
    if str(path).lower().endswith(".parquet"):
        return True
    return is_folder(path) and any(str(file).endswith((".parquet", MANIFEST)) for file in list_files(path))


def read_stored_query(
    info: IndexInfo,
    path: Location,
    track: int | None = None,
    row: int | None = None,
    identity: Identity | None = None,
) -> tuple[pa.Table, list[str]]:
    """Reads the tracks of a file of objects, or its objects where it has no tracks.

    Args:
        info: metadata of the index.
        path: the file, or folder of parts.
        track: number of the track to read alone.
        row: the row to read alone, a single view of a track.
        identity: of the model that encoded, where the file no longer names it, see `read_info`.

    Returns:
        The entries, with the columns of stored objects, and the name of each.

    Raises:
        InputError: as `read_info` and `track_entries`; if the file is of another model, has no such track or row,
            holds nothing, or more than `MOST_QUERIES` entries of which none is chosen.
    """
    stored = read_info(path, identity)
    check_comparable(
        stored, f"'{path}' (model {quote(stored.model)})", info, f"the index (model {quote(info.model)})"
    )
    if row is not None:
        return _one_row(stored, row), [f"row {row}"]
    if track is not None or has_tracks(stored):
        table = _tracks(stored, track)
        return table, [f"track {each}" for each in table[TRACK].to_pylist()]
    _check_count(stored, stored.objects, "objects", "#5")
    return read_entries(path, identity).table, [f"row {each}" for each in range(stored.objects)]


def _tracks(stored: StoreInfo, track: int | None) -> pa.Table:
    spans = track_spans(stored)
    if track is None:
        _check_count(stored, len(spans), "tracks", "#track=5")
    else:
        chosen = spans[np.equal(spans.track_id, track)]
        if not len(chosen):
            has = f"numbers {spans.track_id[0]} ... {spans.track_id[-1]}" if len(spans) else "no tracks"
            raise InputError(f"'{stored.path}' has no track {track}: it has {has}")
        spans = chosen
    return pa.Table.from_batches(track_entries(stored, spans))


def _one_row(stored: StoreInfo, row: int) -> pa.Table:
    if row >= stored.objects:
        raise InputError(f"'{stored.path}' has rows 0 ... {stored.objects - 1}, not {row}")
    for batch in stream_rows(stored):
        if row < len(batch):
            return pa.Table.from_batches([batch.slice(row, 1)])
        row -= len(batch)
    raise InputError(f"'{stored.path}' has changed while it was read: start the command again")


def _check_count(stored: StoreInfo, count: int, entries: str, example: str) -> None:
    if not count:
        raise InputError(f"'{stored.path}' holds no {entries}: there is nothing to search by")
    if count > MOST_QUERIES:
        raise InputError(
            f"'{stored.path}' holds {count:,} {entries}, at most {MOST_QUERIES:,} can be searched for at once: "
            f"choose one, such as {stored.path}{example}"
        )
