"""Boxes of another detector for the frames of a clip: MOTChallenge's det.txt, or the tables of `ssdir encode`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ssdir.data.frame_names import frame_name, split_frame_name
from ssdir.data.readers.motchallenge.lines import read_mot_boxes
from ssdir.data.readers.motchallenge.reader import CLASS_NAMES, mot_categories, mot_class_names
from ssdir.data.video import FrameSource, ImageFrames
from ssdir.encoding.options import BoxFile
from ssdir.encoding.placed_boxes import PlacedBoxes, boxes_of, place
from ssdir.errors import InputError, InputWarning
from ssdir.formatting import counted, quote
from ssdir.inference.files import ImageBatch
from ssdir.object_table import TRACK, VISIBLE
from ssdir.objects import Objects
from ssdir.storage import Location, absolute
from ssdir.store.box_files import BOX_ROW, BoxTable, free_name, read_boxes

MOT_SUFFIX = ".txt"


@dataclass(eq=False)
class ClipBoxes:
    """The boxes of a file, by the frames of a clip.

    Attributes:
        placed: the boxes by frame.
        number: returns the number that a frame of the clip has in MOTChallenge's text; if the file is such a text,
            the number there.
        refused: reasons for boxes that were not encoded so far, the first few.
        num_refused: number of these boxes.
        unread: the frames with boxes that were not encoded so far.
    """

    placed: PlacedBoxes
    number: Callable[[int], int]
    refused: list[str] = field(default_factory=list)
    num_refused: int = 0
    unread: set[Location] = field(init=False)

    def __post_init__(self) -> None:
        self.unread = {*self.placed.rows}

    @classmethod
    def read(cls, file: BoxFile, clip: FrameSource) -> Self:
        """Reads a file of boxes.

        Args:
            file: `.txt` in MOTChallenge's format, whose frames are those of `FrameSource.number`; or a file that
                `read_boxes` reads, whose images are named as frames are: a path, or `clip.mp4#frame=12`.
            clip: the clip.

        Raises:
            InputError: as `read_boxes` and `place`; if a line of text is not of the format.
        """
        number: Callable[[int], int] = clip.number
        if file.path.suffix.lower() == MOT_SUFFIX:
            table, number = _read_mot(file.path, clip)
        else:
            table = read_boxes(file.path, file.annotations, file.unit)
        placed = place(table, _frames(clip, table))
        if placed.unknown:
            images = counted(len(placed.unknown), "frame")
            _warn(f"'{file.path}' has boxes of {images} not in the clip, left out: {quote(placed.unknown[0])} ...")
        if placed.imageless:
            rows = counted(len(placed.imageless), "row")
            _warn(f"'{file.path}' has {rows} without an image, left out: row {placed.imageless[0]} ...")
        return cls(placed, number)

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
        taken = {*given.column_names, TRACK, VISIBLE}
        names = [free_name(name, taken) if name in (TRACK, VISIBLE) else name for name in given.column_names]
        return given.rename_columns(names)

    def of(self, batch: ImageBatch) -> tuple[Objects, pa.Table]:
        """Returns the boxes of a batch of frames, with scores and labels, and their further columns."""
        objects, rows, refused = boxes_of(self.placed, batch)
        self.unread.difference_update(batch.paths)
        self.num_refused += len(refused)
        self.refused = (self.refused + [box.reason for box in refused])[:1]
        return objects, self._given.take(pa.array(rows))

    def warn_of_left_out(self) -> int:
        """Warns, at the end of the clip, of boxes that were not encoded; returns the number of those refused."""
        if self.unread:
            table, frames = self.placed.table, counted(len(self.unread), "frame")
            first = quote(min(map(str, self.unread)))
            _warn(f"'{table.source}' has boxes of {frames} that were not read, left out: {first} ...")
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


def _read_mot(path: Path, clip: FrameSource) -> tuple[BoxTable, Callable[[int], int]]:
    """Reads boxes in MOTChallenge's text format, and which number a frame of the clip has there.

    Confidences outside [0, 1], as those of margins, are scaled to it; -1 alone means that there are none. Of boxes
    with tracks, a confidence of 0 marks ignored objects, which are no boxes. Classes are those of the sequence in
    which the file lies, see `CLASS_NAMES`, else MOT16's.

    Raises:
        InputError: as `read_mot_boxes` and `mot_categories`; if there are no boxes, or frames count from 0.
    """
    boxes = read_mot_boxes(path)
    count = len(boxes.frame)
    if not count:
        raise InputError(f"boxes '{path}' is empty")
    if not boxes.frame.all():
        raise InputError(f"{path}: line {boxes.line[boxes.frame == 0][0]} has frame 0, but frames count from 1")
    listed = path.absolute().parent.parent / CLASS_NAMES
    class_names = mot_class_names({listed: {*boxes.category.tolist()}})
    ignored = np.flatnonzero((boxes.track >= 0) & (boxes.conf == 0))
    images, number = _frame_names(boxes.frame.tolist(), clip)
    table = BoxTable(
        source=path,
        images=images,
        boxes=boxes.boxes_px,
        unit="pixels",
        scores=_scores(boxes.conf, path),
        labels=mot_categories(boxes, path, listed, class_names),
        class_names=class_names,
        given=pa.table({BOX_ROW: pa.array(np.arange(count))}),
        sizes=np.zeros((count, 2), dtype=np.int64),
        missing=dict.fromkeys(ignored.tolist(), "conf above 0, which marks an ignored object"),
    )
    return table, number


def _scores(confidences: NDArray[np.float64], path: Path) -> NDArray[np.float32]:
    low, high = float(confidences.min()), float(confidences.max())
    if low == high == -1:
        return np.ones(len(confidences), np.float32)
    if low < 0 or high > 1:
        _warn(f"confidences of '{path}' reach from {low:g} to {high:g}: they are scaled to 0 … 1")
        confidences = (confidences - low) / (high - low) if high > low else np.ones(len(confidences))
    return confidences.astype(np.float32)


def _frame_names(frames: Sequence[int], clip: FrameSource) -> tuple[list[str], Callable[[int], int]]:
    """Returns the names of frames by their numbers in MOTChallenge's text, and which number a frame has there.

    Frames that are not in the clip keep their number.
    """
    if not isinstance(clip, ImageFrames):
        return [frame_name(absolute(clip.location), frame - 1) for frame in frames], clip.number
    numbers = clip.numbers({*frames})
    names = dict(zip(numbers, map(str, clip.files), strict=True))
    return [names.get(frame, f"frame {frame}") for frame in frames], numbers.__getitem__


def _warn(text: str) -> None:
    warnings.warn(text, InputWarning, stacklevel=3)
