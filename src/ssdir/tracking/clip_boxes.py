"""Boxes of another detector for the frames of a clip: MOTChallenge's det.txt, or the tables of `ssdir encode`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ssdir.data.frame_names import frame_name, split_frame_name
from ssdir.data.video import FrameSource, ImageFrames
from ssdir.encoding.options import BoxFile
from ssdir.encoding.placed_boxes import PlacedBoxes, boxes_of, place
from ssdir.errors import InputError, InputWarning
from ssdir.formatting import counted, quote
from ssdir.inference.files import ImageBatch
from ssdir.object_table import TRACK, VISIBLE
from ssdir.objects import Objects
from ssdir.storage import Location, absolute
from ssdir.store.box_files import BOX_ROW, NO_CLASS, BoxTable, read_boxes

MOT_SUFFIX = ".txt"
_FEWEST, _CONFIDENCE = 6, 6
"""Fewest numbers of a line of MOTChallenge's text: frame, id, left, top, width, height; then the confidence."""


@dataclass(eq=False)
class ClipBoxes:
    """The boxes of a file, by the frames of a clip.

    Attributes:
        placed: the boxes by frame.
        refused: reasons for boxes that were not encoded so far, the first few.
        num_refused: number of these boxes.
    """

    placed: PlacedBoxes
    refused: list[str] = field(default_factory=list)
    num_refused: int = 0

    @classmethod
    def read(cls, file: BoxFile, clip: FrameSource) -> Self:
        """Reads a file of boxes.

        Args:
            file: `.txt` in MOTChallenge's format, whose frames count from 1; or a file that `read_boxes` reads,
                whose images are named as frames are: a path, or `clip.mp4#frame=12`.
            clip: the clip.

        Raises:
            InputError: as `read_boxes` and `place`; if a line of text is not of the format.
        """
        if file.path.suffix.lower() == MOT_SUFFIX:
            table = read_mot_boxes(file.path, clip)
        else:
            table = read_boxes(file.path, file.annotations, file.unit)
        placed = place(table, _frames(clip, table))
        if placed.unknown:
            images = counted(len(placed.unknown), "frame")
            _warn(f"'{file.path}' has boxes of {images} not in the clip, left out: {quote(placed.unknown[0])} ...")
        if placed.imageless:
            rows = counted(len(placed.imageless), "row")
            _warn(f"'{file.path}' has {rows} without an image, left out: row {placed.imageless[0]} ...")
        return cls(placed)

    @property
    def class_names(self) -> list[str]:
        """The classes that labels of the boxes index."""
        return self.placed.table.class_names

    @property
    def schema(self) -> pa.Schema:
        """The further columns of the file, which keep clear of those of tracks."""
        return self._given.schema

    @property
    def _given(self) -> pa.Table:
        given = self.placed.table.given
        names = [f"given_{name}" if name in (TRACK, VISIBLE) else name for name in given.column_names]
        return given.rename_columns(names)

    def of(self, batch: ImageBatch) -> tuple[Objects, pa.Table]:
        """Returns the boxes of a batch of frames, with scores and labels, and their further columns."""
        objects, rows, refused = boxes_of(self.placed, batch)
        self.num_refused += len(refused)
        self.refused = (self.refused + [box.reason for box in refused])[:1]
        return objects, self._given.take(pa.array(rows))

    def warn_of_refused(self) -> int:
        """Warns of the boxes that were not encoded, and returns their number."""
        if self.num_refused:
            boxes = counted(self.num_refused, "box", "boxes")
            _warn(f"{boxes} of '{self.placed.table.source}' left out, such as {self.refused[0]}")
        return self.num_refused


def _frames(clip: FrameSource, table: BoxTable) -> list[Location]:
    """Returns the names of a clip's frames; of a video, those that the table may mean."""
    if isinstance(clip, ImageFrames):
        return list(clip.files)
    video = absolute(clip.location)
    numbers = {split[1] for image in set(table.images) if (split := split_frame_name(image)) is not None}
    if not numbers:
        raise InputError(
            f"'{table.source}' names no frames of '{clip.location}': frames of a video are called "
            f"'{frame_name(Path(clip.location).name, 0)}', '…#frame=1', …"
        )
    return [_named(video, number) for number in sorted(numbers)]


def _named(video: Location, number: int) -> Location:
    name = frame_name(video, number)
    return Path(name) if isinstance(video, Path) else name


def read_mot_boxes(path: Path, clip: FrameSource) -> BoxTable:
    """Reads boxes in MOTChallenge's text format: frame, id, left, top, width, height, confidence, …

    Confidences outside [0, 1], as those of margins, are scaled to it; -1 alone means that there are none.

    Args:
        path: the file.
        clip: the clip, whose first frame has the number 1.

    Raises:
        InputError: if the file is missing or empty, or a line is not of the format.
    """
    if not path.is_file():
        raise InputError(f"boxes '{path}' is {'a folder, not a file' if path.is_dir() else 'not there'}")
    lines = [line for line in path.read_text("utf-8", "replace").splitlines() if line.strip()]
    if not lines:
        raise InputError(f"boxes '{path}' is empty")
    rows = [_numbers(line, number, path) for number, line in enumerate(lines, 1)]
    values = np.array([row[:_FEWEST] for row in rows])
    names = _frame_names(values[:, 0].astype(np.int64), clip)
    corners = np.concatenate([values[:, 2:4], values[:, 2:4] + values[:, 4:6]], axis=1)
    return BoxTable(
        source=path,
        images=names,
        boxes=corners,
        unit="pixels",
        scores=_scores(rows, path),
        labels=np.zeros(len(rows), dtype=np.int64),
        class_names=[NO_CLASS],
        given=pa.table({BOX_ROW: pa.array(np.arange(len(rows)))}),
        sizes=np.zeros((len(rows), 2), dtype=np.int64),
    )


def _numbers(line: str, number: int, path: Path) -> list[float]:
    try:
        row = [float(text) for text in line.replace(",", " ").split()]
    except ValueError:
        row = []
    if len(row) < _FEWEST or not np.isfinite(row[:_FEWEST]).all() or row[0] < 1 or row[0] % 1:
        raise InputError(
            f"line {number} of '{path}' is not in MOTChallenge's format (frame, id, left, top, width, height, "
            f"confidence; frames count from 1): {quote(line)}"
        )
    return row


def _scores(rows: Sequence[Sequence[float]], path: Path) -> NDArray[np.float32]:
    scores = np.array([row[_CONFIDENCE] if len(row) > _CONFIDENCE else -1.0 for row in rows])
    low, high = float(scores.min()), float(scores.max())
    if low == high == -1 or not np.isfinite(scores).all():
        return np.ones(len(rows), np.float32)
    if low < 0 or high > 1:
        _warn(f"confidences of '{path}' reach from {low:g} to {high:g}: they are scaled to 0 … 1")
        scores = (scores - low) / (high - low) if high > low else np.ones(len(rows))
    return scores.astype(np.float32)


def _frame_names(numbers: NDArray[np.int64], clip: FrameSource) -> list[str]:
    """Returns the name of each frame, counted from 1; frames that a folder doesn't have keep their number."""
    if not isinstance(clip, ImageFrames):
        return [frame_name(absolute(clip.location), number - 1) for number in numbers.tolist()]
    files = [str(file) for file in clip.files]
    return [files[number - 1] if number <= len(files) else f"frame {number}" for number in numbers.tolist()]


def _warn(text: str) -> None:
    warnings.warn(text, InputWarning, stacklevel=3)
