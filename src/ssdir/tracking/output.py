"""Files of tracks: a table of objects, MOTChallenge's text, a video with boxes; each whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO

import pyarrow as pa

from ssdir.errors import InputError
from ssdir.identity import Identity
from ssdir.object_table import track_schema
from ssdir.objects import Objects
from ssdir.outputs import atomic_file, claim
from ssdir.store.writer import ObjectWriter

if TYPE_CHECKING:
    from ssdir.data.video import FrameSource
    from ssdir.tracking.clip_boxes import ClipBoxes
    from ssdir.tracking.frames import TrackedFrame

TABLE_SUFFIXES, MOT_SUFFIXES, VIDEO_SUFFIXES = (".parquet",), (".txt",), (".mp4", ".mkv", ".mov")

_BUFFERED_FRAMES = 64
"""Number of frames whose objects are written at once."""


@dataclass(frozen=True)
class TrackFiles:
    """The files to write; at least one.

    Attributes:
        table: `.parquet`, a row per object: the columns of `ObjectWriter`, then `TRACK_COLUMNS`. `image` is
            the name of the frame, and `image_index` its number.
        mot: `.txt`, MOTChallenge's format: frame (see `FrameSource.number` and `ClipBoxes.number`), track, left,
            top, width, height, score, -1, -1, -1.
        video: `.mp4`, `.mkv` or `.mov`: the frames with the boxes, tracks and paths of objects.
        force: replace existing files.
    """

    table: Path | None = None
    mot: Path | None = None
    video: Path | None = None
    force: bool = False

    def check(self) -> None:
        """Checks, before any work is done, that the files can be written.

        Raises:
            InputError: if there are none; as `claim`.
        """
        suffixes = {"table": TABLE_SUFFIXES, "mot": MOT_SUFFIXES, "video": VIDEO_SUFFIXES}
        given = {name: path for name in suffixes if (path := getattr(self, name)) is not None}
        if not given:
            raise InputError("there is nothing to write: give a table (--out), --mot or --video")
        for name, path in given.items():
            claim(path, self.force, suffixes[name])


class _Writer(Protocol):
    """Writes frames to one file, to be used in a `with` block."""

    def write(self, frame: TrackedFrame) -> None:
        """Adds a frame."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class TrackWriters:
    """Writes frames to all files that are asked for, to be used in a `with` block.

    Args:
        files: the files.
        clip: the clip, for its frame rate and the numbers of its frames.
        identity: the model, for the table.
        boxes: the boxes that were given, for the numbers of their frames and their further columns.

    Raises:
        InputError: as `atomic_file`.
    """

    def __init__(
        self,
        files: TrackFiles,
        clip: FrameSource,
        identity: Identity | None = None,
        boxes: ClipBoxes | None = None,
    ) -> None:
        self._files, self._clip, self._identity, self._boxes = files, clip, identity, boxes
        self._writers: list[_Writer] = []
        self._stack = ExitStack()

    def write(self, frame: TrackedFrame) -> None:
        """Adds a frame to each file."""
        for writer in self._writers:
            writer.write(frame)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            # Of what is entered first the end comes last: all files are complete before the first is renamed.
            made = {
                name: stack.enter_context(atomic_file(path, self._files.force))
                for name in ("table", "mot", "video")
                if (path := getattr(self._files, name)) is not None
            }
            if "table" in made and self._identity is not None:
                self._writers.append(_TableWriter(made["table"], self._identity, self._boxes))
            if "mot" in made:
                self._writers.append(_MotWriter(made["mot"], (self._boxes or self._clip).number))
            if "video" in made:
                from ssdir.tracking.annotated_video import AnnotatedVideo

                self._writers.append(AnnotatedVideo(made["video"], self._clip.frame_rate))
            for writer in self._writers:
                stack.enter_context(writer)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


class _TableWriter:
    """Writes the table of objects."""

    def __init__(self, path: Path, identity: Identity, boxes: ClipBoxes | None) -> None:
        schema = pa.schema([*track_schema(), *(() if boxes is None else boxes.schema)])
        about = (identity.model, identity.class_names, identity.latent_dim, identity.fingerprint, schema)
        self._writer, self._buffer = ObjectWriter(path, *about), list["TrackedFrame"]()

    def write(self, frame: TrackedFrame) -> None:
        self._buffer.append(frame)
        if len(self._buffer) >= _BUFFERED_FRAMES:
            self._flush()

    def _flush(self) -> None:
        frames, self._buffer = self._buffer, []
        if not frames:
            return
        objects = Objects.cat([frame.objects for frame in frames])
        given = None
        if objects.track_id is not None and objects.visible is not None:
            tracks = pa.Table.from_arrays(
                [pa.array(objects.track_id.numpy()), pa.array(objects.visible.float().numpy())],
                schema=track_schema(),
            )
            others = [frame.given for frame in frames if frame.given is not None]
            columns = [*tracks.columns, *(pa.concat_tables(others).columns if others else ())]
            schema = pa.schema([*track_schema(), *(others[0].schema if others else ())])
            given = pa.table(columns, schema=schema)
        names, sizes = [frame.name for frame in frames], [frame.size for frame in frames]
        self._writer.write(objects, names, sizes, given, [frame.index for frame in frames])

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
        except BaseException as failed:
            self._writer.__exit__(type(failed), failed, failed.__traceback__)
            raise
        self._writer.__exit__(kind, error, trace)


class _MotWriter:
    """Writes MOTChallenge's text."""

    def __init__(self, path: Path, number: Callable[[int], int]) -> None:
        self._path, self._number = path, number
        self._file: TextIO | None = None

    def write(self, frame: TrackedFrame) -> None:
        assert self._file is not None
        self._file.writelines(mot_lines(self._number(frame.index), frame.objects, frame.size))

    def __enter__(self) -> Self:
        self._file = self._path.open("w", encoding="utf-8", newline="\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


def mot_lines(number: int, objects: Objects, size: tuple[int, int]) -> list[str]:
    """Returns the lines of one frame in MOTChallenge's text format.

    Args:
        number: of the frame, see `FrameSource.number`.
        objects: its M objects, with `track_id`.
        size: its (height, width) in pixels.
    """
    if objects.track_id is None:
        return []
    scores = [1.0] * len(objects) if objects.scores is None else objects.scores.tolist()
    rows = zip(objects.track_id.tolist(), objects.boxes_px(size).tolist(), scores, strict=True)
    return [
        f"{number},{track},{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f},{score:.4f},-1,-1,-1\n"
        for track, (x1, y1, x2, y2), score in rows
    ]
