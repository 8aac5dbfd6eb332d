"""The tight boxes of COCO's segmentations: polygons, and run-length encoded masks, compressed or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

Corners: TypeAlias = tuple[float, float, float, float]


class _RunLengths(msgspec.Struct):
    size: tuple[int, int]
    counts: list[int] | str


_decode = msgspec.json.Decoder(list[list[float]] | _RunLengths).decode


def outline_box(segmentation: Any) -> Corners:
    """Returns the tight box of a segmentation, xyxy in pixels, half-open.

    Args:
        segmentation: JSON text: a list of polygons, each `[x1, y1, x2, y2, …]`; or an object with the `size`
            (height, width) of a mask and its `counts`, as numbers or as COCO's text.

    Raises:
        ValueError: if it is neither, or shows no pixel.
    """
    outline = _decode(segmentation)
    if isinstance(outline, _RunLengths):
        counts = _unpack(outline.counts) if isinstance(outline.counts, str) else outline.counts
        return _runs_box(counts, *outline.size)
    if not outline or any(len(polygon) < 6 or len(polygon) % 2 for polygon in outline):
        raise ValueError("a polygon needs pairs of x and y, at least three")
    points = np.concatenate([np.asarray(polygon).reshape(-1, 2) for polygon in outline])
    (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return x1, y1, x2, y2


def _runs_box(counts: Sequence[int], height: int, width: int) -> Corners:
    """Returns the box of a mask whose columns, one after the other, are runs of 0, 1, 0, 1, …"""
    lengths: NDArray[np.float64] = np.asarray(counts, dtype=np.float64)  # Any sum of them is finite.
    if min(height, width) < 1 or (lengths < 0).any() or lengths.sum() > height * width:
        raise ValueError("the runs do not fit the size of the mask")
    ends = np.cumsum(lengths).astype(np.int64)
    starts, stops = ends[0:-1:2], ends[1::2]
    shown = stops > starts
    if not shown.any():
        raise ValueError("the mask has no pixels")
    first, last = starts[shown], stops[shown] - 1
    columns, last_columns = first // height, last // height
    over_edge = (last_columns > columns).any()  # A run goes on at the top of the next column.
    top = 0 if over_edge else int((first % height).min())
    bottom = height if over_edge else int((last % height).max()) + 1
    return float(columns.min()), float(top), float(last_columns.max() + 1), float(bottom)


def _unpack(text: str) -> list[int]:
    """Decodes COCO's text to run lengths: groups of 5 bits, lowest first; from the fourth run on, differences.

    `rleFrString` of COCO's API: a character is 48 + 5 bits + 32 where the number goes on; the last group's highest
    bit is the sign.
    """
    counts: list[int] = []
    value = shift = 0
    for char in text.encode():
        bits = char - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("the counts are not COCO's text")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        value -= (1 << shift) if bits & 16 else 0
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("the counts are cut short")
    return counts
