"""Reads MOTChallenge's text files of boxes: a line per box, with frame and track."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssdir.data.readers.faults import Faults
from ssdir.documents import read_lines

_MAX_BYTES = 1 << 30
_FIELDS = ("frame", "track", "left", "top", "width", "height", "conf", "class", "visibility")
_FEWEST = 6
# Lines of MOT15 have ten fields, of which the last three are a place in the world.
_WITH_PLACE = 10


@dataclass(frozen=True, eq=False)
class MotBoxes:
    """The N boxes of a file, in its order.

    Attributes:
        line: int64 (N,), from 1.
        frame: int64 (N,), as written: usually from 1.
        track: int64 (N,), -1 for detections.
        boxes_px: float64 (N, 4), xyxy in pixels, with the image's left border at 0.
        conf: float64 (N,), the score of a detection; 0 marks a true object as ignored; 1 where it is missing.
        category: int64 (N,), from 1; 0 where it is missing or -1.
        visible: float64 (N,), NaN where it is missing or -1.
    """

    line: NDArray[np.int64]
    frame: NDArray[np.int64]
    track: NDArray[np.int64]
    boxes_px: NDArray[np.float64]
    conf: NDArray[np.float64]
    category: NDArray[np.int64]
    visible: NDArray[np.float64]


def read_mot_boxes(path: Path) -> MotBoxes:
    """Reads `frame,track,left,top,width,height[,conf[,class[,visibility]]]`; empty lines are skipped.

    Lines of ten fields, as in MOT15, have no class: their last three are a place in the world.

    Raises:
        InputError: if it can't be read, or lines are not as they should be: names up to ten, and counts them.
    """
    faults = Faults(str(path), of_one_file=True)
    rows = []
    for number, text in enumerate(read_lines(path, _MAX_BYTES), start=1):
        if text:
            values = _numbers(text)
            problem = _problem(values, text)
            if problem:
                faults.add(f"line {number} {problem}")
            else:
                rows.append([number, *values])
    faults.stop_at_any()
    table = np.array([_complete(row) for row in rows], dtype=np.float64).reshape(-1, 1 + len(_FIELDS))
    line, frame, track, left, top, width, height, conf, category, visible = table.T
    return MotBoxes(
        line=line.astype(np.int64),
        frame=frame.astype(np.int64),
        track=track.astype(np.int64),
        boxes_px=np.stack([left, top, left + width, top + height], axis=1),
        conf=conf,
        category=np.maximum(category, 0).astype(np.int64),
        visible=np.where(visible < 0, np.nan, visible),
    )


def _numbers(text: str) -> list[float]:
    """Returns the numbers of a line; an empty list if something else is in it."""
    try:
        return [float(part) for part in text.rstrip(",").split(",")]
    except ValueError:
        return []


def _problem(values: list[float], text: str) -> str:
    """Returns what is wrong with a line, or nothing."""
    if not _FEWEST <= len(values) <= _WITH_PLACE:
        return f"is not {_FEWEST} to {_WITH_PLACE} numbers with commas between them (got '{text[:60]}')"
    for name, value in zip(_FIELDS, values, strict=False):
        if not math.isfinite(value):
            return f"has {name} {value}"
        if name in {"frame", "track"} and (value != int(value) or abs(value) >= 1 << 53):
            return f"has {name} {value:g}, expected a whole number"
    if values[0] < 0:
        return f"has frame {values[0]:g}, but frames count from 1"
    if len(values) in {8, 9} and values[7] != -1 and not (values[7] >= 1 and values[7] == int(values[7])):
        return f"has class {values[7]:g}, but classes count from 1"
    if len(values) == len(_FIELDS) and values[8] != -1 and not 0 <= values[8] <= 1:
        return f"has visibility {values[8]:g}, expected a share within 0 ... 1"
    return ""


def _complete(row: list[float]) -> list[float]:
    """Returns line number and all fields, with the values of those that are missing."""
    given = row[: 1 + _FIELDS.index("class")] if len(row) == 1 + _WITH_PLACE else row
    return given + [1.0, -1.0, -1.0][len(given) - 1 - _FEWEST :]
