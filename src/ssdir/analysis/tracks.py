"""Tracks as entries: one row for an object that was followed through a clip, instead of one for each view of it.

`ssdir track` writes a row for each view: the object in one frame. The weight of a view is its score times the
visible share of the object, and the clear views of a track are those with at least half of its largest weight. The
embedding of a track is the mean of its clear views by weight: its direction is the mean of their directions, its
length the mean of their lengths, so that no view counts more because its embedding is longer, and the mean can be
decoded. All else of an entry is that of the clearest view, the one with the largest weight.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ssdir.data.frame_names import file_of, frame_name, split_frame_name
from ssdir.errors import InputError, InputWarning
from ssdir.formatting import counted
from ssdir.identity import Identity
from ssdir.object_table import SPAN_COLUMNS, TRACK, to_array
from ssdir.storage import pure_path, to_location
from ssdir.store.columns import numbers
from ssdir.store.info import StoreInfo, read_info
from ssdir.store.objects_file import StoredObjects, read_stored, rows_schema, stream_rows
from ssdir.store.parts import Part
from ssdir.store.track_columns import check_one_clip, track_ids, visible_shares
from ssdir.store.writer import ROW_GROUP

CLEAR_SHARE = 0.5
"""Least weight of a clear view, as a share of the largest weight of its track."""

_BYTES_AT_ONCE = 1 << 26
"""Memory for sums of embeddings: of more tracks, the file is read once for each group of tracks."""
_MERGED_AT = 1 << 20
"""Number of views that are collected before they are reduced to one row for each track."""


@dataclass(frozen=True, eq=False)
class TrackSpans:
    """What is known of the tracks of a file without their embeddings, row-aligned, by rising number.

    Attributes:
        track_id: int64 (T,).
        weight: weight of the clearest view, float32 (T,).
        clearest: its row in the file, int64 (T,), the first of equal ones.
        views: number of views, int64 (T,).
        first_frame: least `image_index`, int64 (T,).
        last_frame: largest `image_index`, int64 (T,).
    """

    track_id: NDArray[np.int64]
    weight: NDArray[np.float32]
    clearest: NDArray[np.int64]
    views: NDArray[np.int64]
    first_frame: NDArray[np.int64]
    last_frame: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.track_id)

    def __getitem__(self, rows: slice | NDArray[np.bool_]) -> TrackSpans:
        """Selects tracks by slice or mask (T,)."""
        return TrackSpans(*(values[rows] for values in vars(self).values()))


def has_tracks(info: StoreInfo) -> bool:
    """Returns whether a file or folder of objects says which objects are of one track."""
    return TRACK in info.further.names


def entries_schema(info: StoreInfo) -> pa.Schema:
    """Returns the columns of a file of tracks, but `track_id` as int64, then `SPAN_COLUMNS`."""
    counts = {name: pa.field(name, pa.int64()) for name in (TRACK, *SPAN_COLUMNS)}
    kept = [counts.get(field.name, field) for field in rows_schema(info) if field.name not in SPAN_COLUMNS]
    return pa.schema([*kept, *(counts[name] for name in SPAN_COLUMNS)])


def track_spans(info: StoreInfo) -> TrackSpans:
    """Reads which tracks a file has; see the module for the weight of a view.

    An `InputWarning` counts objects without a track, which are in no entry, and another one tracks with images of
    several folders: those may be one clip, but also several whose tracks have the same numbers.

    Raises:
        InputError: as `stream_rows` and `check_one_clip`; if the file has no tracks, a column of them holds
            something else, or a track has frames of several videos, or two views in one frame, as far as those are
            in one piece of the file or a track has more views than frames.
    """
    if not has_tracks(info):
        raise InputError(f"'{info.path}' has no tracks: make a file that has with ssdir track")
    check_one_clip(info)
    pending, first, without = [_merged([])], 0, 0
    clips = defaultdict[int, set[str]](set)
    for batch in stream_rows(info):
        ids, weights = track_ids(batch, info.path, first), _weights(batch, info, first)
        rows, frames = np.arange(first, first + len(batch)), numbers(batch.column("image_index"))
        order = np.lexsort((frames, ids))
        repeats = (np.diff(ids[order]) == 0) & (np.diff(frames[order]) == 0)
        _check_single_views(ids[order][1:][repeats], info)
        spans = TrackSpans(ids, weights, rows, *_spans_of_rows(batch, frames))
        pending.append(spans[ids > 0])
        for track, clip in _tracks_by_clip(ids, batch.column("image")):
            clips[track].add(clip)
        without += int((ids < 1).sum())
        first += len(batch)
        if sum(map(len, pending[1:])) > max(_MERGED_AT, len(pending[0])):
            pending = [_merged(pending)]
    if without:
        text = f"{counted(without, 'object')} of '{info.path}' are of no track, and left out"
        warnings.warn(InputWarning(text), stacklevel=2)
    _check_clips(clips, info)
    spans = _merged(pending)
    _check_single_views(spans.track_id[spans.views > spans.last_frame - spans.first_frame + 1], info)
    return spans


def _check_single_views(repeated: NDArray[np.int64], info: StoreInfo) -> None:
    """Raises an error for the first of the tracks that have several views in a frame."""
    repeated = repeated[repeated > 0]
    if len(repeated):
        raise InputError(
            f"track {repeated[0]} of '{info.path}' has two views in one frame: keep the tracks of each clip in a "
            "file of its own"
        )


def _tracks_by_clip(ids: NDArray[np.int64], images: pa.Array) -> list[tuple[int, str]]:
    """Returns each pair of a track and a clip that some views have."""
    named = images.dictionary_encode()
    clips = pa.array([_clip_of(name) for name in named.dictionary.to_pylist()], pa.string()).take(named.indices)
    pairs = pa.table({TRACK: ids, "clip": clips}).group_by([TRACK, "clip"]).aggregate([]).to_pydict()
    return [pair for pair in zip(pairs[TRACK], pairs["clip"], strict=True) if pair[0] > 0]


def _clip_of(image: str) -> str:
    """Returns what the images of a clip have in common: the name of the video's first frame, else their folder."""
    frame = split_frame_name(image)
    return str(pure_path(to_location(image)).parent) if frame is None else frame_name(frame[0], 0)


def _check_clips(clips: Mapping[int, set[str]], info: StoreInfo) -> None:
    """Raises an error for the first track with frames of several videos, and counts those of several folders."""
    several = {track: sorted(names)[:2] for track, names in sorted(clips.items()) if len(names) > 1}
    for track, (one, other) in several.items():
        if split_frame_name(one) or split_frame_name(other):
            raise InputError(
                f"track {track} of '{info.path}' has views in '{file_of(to_location(one))}' and "
                f"'{file_of(to_location(other))}': keep the tracks of each clip in a file of its own"
            )
    if several:
        track, (one, other) = next(iter(several.items()))
        text = (
            f"'{info.path}' has {counted(len(several), 'track')} with images of several folders, such as track "
            f"{track} in '{one}' and '{other}': if these are several clips, keep the tracks of each in a file of "
            "its own"
        )
        warnings.warn(InputWarning(text), stacklevel=3)


def track_entries(info: StoreInfo, spans: TrackSpans | None = None) -> Iterator[pa.RecordBatch]:
    """Yields one row for each track of a file, by rising number, with the columns of `entries_schema`.

    `z_what` is the mean of the clear views, see the module; `z_what_scale`, which is not known of a mean, is null;
    all else is that of the clearest view. Memory depends on the number of tracks alone, not on that of the views:
    embeddings are summed for a group of tracks, and the file is read once for each group.

    Args:
        info: the metadata of the file, or folder of parts.
        spans: its tracks, or some of them, see `track_spans`; None reads them.

    Raises:
        InputError: as `track_spans`.
    """
    spans = track_spans(info) if spans is None else spans
    schema, at_once = entries_schema(info), max(1, _BYTES_AT_ONCE // (8 * info.latent_dim))
    for start in range(0, len(spans), at_once):
        group = spans[start : start + at_once]
        views, z_what = _mean_views(info, group)
        columns: dict[str, Any] = {name: views[name] for name in views.column_names}
        columns |= {name: pa.array(getattr(group, name)) for name in (TRACK, *SPAN_COLUMNS)}
        columns["z_what"] = to_array(z_what, schema.field("z_what").type)
        columns["z_what_scale"] = pa.nulls(len(group), schema.field("z_what_scale").type)
        table = pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)
        yield from table.combine_chunks().to_batches(ROW_GROUP)


def read_entries(
    path: str | Path, identity: Identity | None = None, at_least: int = 0, per_view: bool = False
) -> StoredObjects:
    """Reads a file of objects as `read_stored` does, but one row for each track where the file has tracks.

    Args:
        path: the file or folder.
        identity: see `read_info`.
        at_least: how many objects or tracks it must hold.
        per_view: read every view of a track instead.

    Raises:
        InputError: as `read_stored` and `track_entries`.
    """
    info = read_info(path, identity)
    if per_view or not has_tracks(info):
        return read_stored(path, identity, at_least)
    table = pa.Table.from_batches(track_entries(info), entries_schema(info))
    if len(table) < at_least:
        raise InputError(f"'{path}' holds {counted(len(table), 'track')}, at least {at_least} are needed")
    # The rows are not those of the file, so its images without objects are not known of them.
    part = Part(info.path, len(table), None, range(0))
    further = pa.schema([field for field in table.schema if field.name in SPAN_COLUMNS or field in info.further])
    return StoredObjects(table, replace(info, parts=[part], further=further))


def _mean_views(info: StoreInfo, spans: TrackSpans) -> tuple[pa.Table, NDArray[np.float64]]:
    """Returns the clearest view of each track as it is stored, and the mean of its clear views, float64 (T, D)."""
    sums, lengths, total = np.zeros((len(spans), info.latent_dim)), np.zeros(len(spans)), np.zeros(len(spans))
    clearest, first = [], 0
    for batch in stream_rows(info):
        ids, weights = track_ids(batch, info.path, first), _weights(batch, info, first)
        rows = np.flatnonzero(np.isin(ids, spans.track_id))
        place = np.searchsorted(spans.track_id, ids[rows])
        clearest.append(batch.take(pa.array(rows[spans.clearest[place] == first + rows])))
        clear = weights[rows] >= CLEAR_SHARE * spans.weight[place]
        rows, place = rows[clear], place[clear]
        z_what = numbers(batch.column("z_what"))[rows].astype(np.float64)
        length = np.linalg.norm(z_what, axis=1)
        # A track all of whose views have a score of 0 has the plain mean.
        weight = np.where(spans.weight[place] > 0, weights[rows], 1).astype(np.float64)
        np.add.at(sums, place, z_what * (weight / np.maximum(length, 1e-30))[:, None])
        np.add.at(lengths, place, weight * length)
        np.add.at(total, place, weight)
        first += len(batch)
    views = pa.Table.from_batches(clearest, rows_schema(info))
    views = views.take(np.argsort(numbers(views[TRACK])))
    direction = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-30)
    return views, direction * (lengths / np.maximum(total, 1e-30))[:, None]


def _merged(spans: list[TrackSpans]) -> TrackSpans:
    """Reduces views, or what is known of parts of tracks, to one row for each track."""
    kinds = (np.int64, np.float32, np.int64, np.int64, np.int64, np.int64)
    columns = zip(*(vars(each).values() for each in spans), strict=True) if spans else [()] * len(kinds)
    joined = [np.concatenate([np.empty(0, kind), *values]) for kind, values in zip(kinds, columns, strict=True)]
    ids, weight, clearest, *_ = joined
    order = np.lexsort((clearest, -weight, ids))
    ids, weight, clearest, views, first, last = (values[order] for values in joined)
    starts = np.flatnonzero(np.diff(ids, prepend=0))  # Numbers of tracks start from 1.
    if not len(starts):
        return TrackSpans(ids, weight, clearest, views, first, last)
    spanned = (
        np.add.reduceat(views, starts),
        np.minimum.reduceat(first, starts),
        np.maximum.reduceat(last, starts),
    )
    return TrackSpans(ids[starts], weight[starts], clearest[starts], *spanned)


def _weights(batch: pa.RecordBatch, info: StoreInfo, first: int) -> NDArray[np.float32]:
    """Returns the weight of each view, its score times its visible share; of an unknown share, the score."""
    return np.asarray(numbers(batch.column("score")) * visible_shares(batch, info.path, first), dtype=np.float32)


def _spans_of_rows(batch: pa.RecordBatch, frames: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Returns `SPAN_COLUMNS` of each row: where they are in the file, its rows are tracks already, else views."""
    given = [batch.column(name) for name in SPAN_COLUMNS if name in batch.schema.names]
    if len(given) == len(SPAN_COLUMNS) and all(each.type == pa.int64() and not each.null_count for each in given):
        return [numbers(each) for each in given]
    return [np.ones_like(frames), frames, frames]
