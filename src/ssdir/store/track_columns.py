"""The columns that say which objects of a clip are views of one, checked: any tool may have written them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ssdir.errors import InputError
from ssdir.object_table import TRACK, VISIBLE
from ssdir.storage import Location
from ssdir.store.columns import numbers

if TYPE_CHECKING:
    from ssdir.store.info import StoreInfo


def check_one_clip(info: StoreInfo) -> None:
    """Checks that a folder with tracks is of one clip: the files of several number their tracks from 1 each.

    Raises:
        InputError: if files of the folder number their images, and so their tracks, from the start.
    """
    if TRACK in info.further.names and any(part.shift for part in info.parts):
        raise InputError(
            f"'{info.path}' holds the tracks of several clips, which have the same numbers: give each clip's file "
            "on its own"
        )


def track_ids(rows: pa.RecordBatch | pa.Table, path: Location, first: int = 0) -> NDArray[np.int64]:
    """Returns the number of each row's track, int64 (M,), 0 where it has none.

    Args:
        rows: rows with the column `track_id`.
        path: their file, for errors.
        first: number of the first row.

    Raises:
        InputError: if the column holds something other than whole numbers from 1.
    """
    ids = _numbers(rows, TRACK, path, 0)
    wrong = np.flatnonzero((ids % 1 != 0) | (ids < 0) | (ids > 2**53))
    if len(wrong):
        raise InputError(f"row {first + wrong[0]} of '{path}' has the {TRACK} {ids[wrong[0]]:g}, not 1, 2, …")
    return ids.astype(np.int64)


def visible_shares(rows: pa.RecordBatch | pa.Table, path: Location, first: int = 0) -> NDArray[np.float32]:
    """Returns the visible share of each object, float32 (M,), 1 where it is not known.

    Args:
        rows: rows, perhaps with the column `visible`.
        path: their file, for errors.
        first: number of the first row.

    Raises:
        InputError: if the column holds something other than numbers from 0 to 1.
    """
    if VISIBLE not in rows.schema.names:
        return np.ones(len(rows), dtype=np.float32)
    visible = _numbers(rows, VISIBLE, path, 1)
    wrong = np.flatnonzero((visible < 0) | (visible > 1))
    if len(wrong):
        row, share = first + wrong[0], visible[wrong[0]]
        raise InputError(f"row {row} of '{path}' is visible to {share:g}: it must be 0 … 1")
    return visible.astype(np.float32)


def _numbers(rows: pa.RecordBatch | pa.Table, name: str, path: Location, missing: float) -> NDArray[np.float64]:
    try:
        values = numbers(pc.fill_null(rows.column(name).cast(pa.float64()), missing))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise InputError(f"the column '{name}' of '{path}' holds something other than numbers") from None
    return np.where(np.isnan(values), missing, values)
