"""Frames of a clip: in batches of a model's input, which a thread reads ahead, and with their tracked objects."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING

import numpy as np

from ssdir.data.images import Image8
from ssdir.data.letterbox import Letterbox, Resize, fit_image, pad_image
from ssdir.data.video import Frame
from ssdir.errors import InputWarning
from ssdir.formatting import counted
from ssdir.inference.files import ImageBatch, map_ahead
from ssdir.objects import Objects
from ssdir.storage import Location, to_location

if TYPE_CHECKING:
    import pyarrow as pa

KEPT_BYTES = 64_000_000
"""Size of the frames of a batch, where they are kept, above which it takes no more."""


@dataclass(frozen=True)
class FrameBatch:
    """Some successive frames.

    Attributes:
        images: the model's input; `indices` are the numbers of the frames.
        names: name of each frame, see `Frame`.
        pixels: each frame as it was read; None where it isn't kept.
    """

    images: ImageBatch
    names: list[str]
    pixels: list[Image8] | None


@dataclass(frozen=True, eq=False)
class TrackedFrame:
    """A frame and its objects that have a track.

    Attributes:
        index: number of the frame in its clip, from 0.
        name: what reads it again, see `Frame`.
        size: its (height, width) in pixels.
        objects: the objects, batch size 1, with `track_id` and `visible`.
        pixels: uint8 (H, W, 3), RGB, if they were asked for.
        given: where boxes were given, the further columns of their file, row-aligned with `objects`.
    """

    index: int
    name: str
    size: tuple[int, int]
    objects: Objects
    pixels: Image8 | None = None
    given: pa.Table | None = None


def frame_batches(
    frames: Iterable[Frame], side: int, resize: Resize, batch_size: int, keep_pixels: bool = False
) -> Iterator[FrameBatch]:
    """Reads frames in batches; a thread reads the next batch while the caller uses one.

    Args:
        frames: the frames; `Frame.index` increases.
        side: side of the model's square input, in pixels.
        resize: how images become square.
        batch_size: most frames of a batch.
        keep_pixels: keep the frames as they were read; then a batch ends where they exceed `KEPT_BYTES`.

    Yields:
        The batches. At the end, an `InputWarning` counts the frames of another size than the first.

    Raises:
        InputError: as the frames.
    """
    batches = _batches(iter(frames), side, resize, batch_size, keep_pixels)
    for batch in map_ahead(lambda _: next(batches, None), repeat(None), 1, 1):
        if batch is None:
            return
        yield batch


def _batches(
    frames: Iterator[Frame], side: int, resize: Resize, batch_size: int, keep_pixels: bool
) -> Iterator[FrameBatch]:
    first: tuple[int, int] | None = None
    others = 0
    chunk = _Chunk(side, resize, keep_pixels)
    for frame in frames:
        first = first or frame.size
        others += frame.size != first
        chunk.add(frame)
        if len(chunk.names) == batch_size or chunk.kept_bytes > KEPT_BYTES:
            yield chunk.batch()
            chunk = _Chunk(side, resize, keep_pixels)
    if chunk.names:
        yield chunk.batch()
    if first is not None and others:
        warnings.warn(
            f"{counted(others, 'frame')} of another size than the first ({first[1]}×{first[0]} px): an object's "
            "place in one frame is compared with that in another relative to the size of each",
            InputWarning,
            stacklevel=2,
        )


class _Chunk:
    """A batch that is being filled."""

    def __init__(self, side: int, resize: Resize, keep_pixels: bool) -> None:
        self.side, self.resize = side, resize
        self.names, self.indices = list[str](), list[int]()
        self.sizes, self.squares = list[tuple[int, int]](), list[Image8]()
        self.pixels: list[Image8] | None = [] if keep_pixels else None
        self.kept_bytes = 0

    def add(self, frame: Frame) -> None:
        self.names.append(frame.name)
        self.indices.append(frame.index)
        self.sizes.append(frame.size)
        self.squares.append(pad_image(fit_image(frame.pixels, self.side, self.resize), self.side))
        if self.pixels is not None:
            self.pixels.append(frame.pixels)
            self.kept_bytes += frame.pixels.nbytes

    def batch(self) -> FrameBatch:
        paths: list[Location] = [to_location(name) for name in self.names]
        letterbox = Letterbox.of(self.sizes, self.side, self.resize)
        squares = np.stack(self.squares)
        images = ImageBatch(paths, self.indices, self.sizes, squares, letterbox, [])
        return FrameBatch(images, self.names, self.pixels)
