"""Encoding of image files by any engine, in batches, without torch where the engine does without."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, Protocol, TypeAlias, TypeVar

import numpy as np

from ssdir.console import Advance, no_progress
from ssdir.data.images import Image8
from ssdir.data.letterbox import Letterbox, Resize, read_square
from ssdir.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from ssdir.object_arrays import ObjectArrays
    from ssdir.objects import Objects

T = TypeVar("T")
ObjectsT = TypeVar("ObjectsT", bound="Objects | ObjectArrays")
ObjectsT_co = TypeVar("ObjectsT_co", bound="Objects | ObjectArrays", covariant=True)

Precision: TypeAlias = Literal["single", "bf16"]

READERS = min(4, os.cpu_count() or 1)


class Encoder(Protocol[ObjectsT_co]):
    """A model on any engine."""

    @property
    def class_names(self) -> list[str]:
        """Names of the classes that `labels` index."""

    @property
    def image_size(self) -> int:
        """Side of the square that the model sees, in pixels."""

    @property
    def resize(self) -> Resize:
        """How images become square."""

    @property
    def latent_dim(self) -> int:
        """Size D of `z_what`; 0 for a detector."""

    @property
    def fingerprint(self) -> str:
        """Digest of the weights: embeddings of models with different ones can't be compared."""

    @property
    def device_name(self) -> str:
        """The device that it runs on: a GPU's product name, or a kind of device."""

    def encode_pixels(self, pixels: Image8, score_threshold: float | None = None) -> ObjectsT_co:
        """Encodes squares uint8 (B, image_size, image_size, 3), RGB, as one batch; B may be 0.

        Boxes are relative to the square, padding included.
        """


def check_threshold(score_threshold: float | None) -> None:
    """Raises InputError unless a threshold is None or within [0, 1]."""
    if score_threshold is not None and not 0 <= score_threshold <= 1:
        raise InputError(f"score threshold must be within 0 ... 1, got {score_threshold:g}")


@dataclass(frozen=True)
class EncodedBatch(Generic[ObjectsT]):
    """A batch of images and their objects.

    Attributes:
        paths: the images that could be read.
        sizes: (height, width) of each in pixels, after EXIF orientation.
        objects: their objects; `batch_size` is the number of paths.
        skipped: for each image that couldn't be read, a sentence with its path and the reason.
        given: where boxes were given, the further columns of those encoded, row-aligned with `objects`.
        refused: for each box that was not encoded, a sentence with its row and the reason.
    """

    paths: list[Path]
    sizes: list[tuple[int, int]]
    objects: ObjectsT
    skipped: list[str]
    given: pa.Table | None = None
    refused: Sequence[str] = ()


def encode_files(
    encoder: Encoder[ObjectsT],
    paths: Sequence[Path],
    batch_size: int = 32,
    strict: bool = False,
    on_progress: Advance = no_progress,
    *,
    score_threshold: float | None = None,
) -> Iterator[EncodedBatch[ObjectsT]]:
    """Encodes image files batch by batch; memory doesn't grow with their number.

    Args:
        encoder: the model.
        paths: image files, see `find_images`.
        batch_size: files per batch; while one is encoded, the next is read.
        strict: raise at the first unreadable image instead of skipping it.
        on_progress: called with (files done, all files) after each batch.
        score_threshold: minimum score, in [0, 1]; None takes the model's.

    Yields:
        Batches in the order of `paths`; unreadable images are in `skipped`.

    Raises:
        InputError: for an option out of range; with `strict`, for the first unreadable image.
    """
    check_threshold(score_threshold)
    for chunk in read_image_batches(paths, encoder.image_size, encoder.resize, batch_size, strict, on_progress):
        objects = chunk.letterbox.to_image(encoder.encode_pixels(chunk.pixels, score_threshold))
        yield EncodedBatch(chunk.paths, chunk.sizes, objects, chunk.skipped)


def none_readable(problems: Sequence[str]) -> str:
    """Words the error where no image could be read, from the reason for each."""
    if len(problems) == 1:
        return problems[0]
    return f"none of the {len(problems)} images could be read; the last: {problems[-1]}"


@dataclass(frozen=True)
class ImageBatch:
    """A batch of images as the model's input.

    Attributes:
        paths: the images that could be read.
        sizes: (height, width) of each in pixels, after EXIF orientation.
        pixels: uint8 (B, side, side, 3), RGB.
        letterbox: where the images lie in these squares.
        skipped: for each image that couldn't be read, a sentence with its path and the reason.
    """

    paths: list[Path]
    sizes: list[tuple[int, int]]
    pixels: Image8
    letterbox: Letterbox
    skipped: list[str]


def read_image_batches(
    paths: Sequence[Path],
    side: int,
    resize: Resize = "stretch",
    batch_size: int = 32,
    strict: bool = False,
    on_progress: Advance = no_progress,
) -> Iterator[ImageBatch]:
    """Reads image files batch by batch as squares, see `read_square`; for the others see `encode_files`."""
    if batch_size < 1:
        raise InputError(f"batch size must be at least 1, got {batch_size}")
    done = 0
    for chunk in chunks(_read_ahead(paths, side, resize, batch_size), batch_size):
        skipped = [read.problem for read in chunk if read.pixels is None]
        if strict and skipped:
            raise InputError(skipped[0])
        readable = [read for read in chunk if read.pixels is not None]
        seen = [read.pixels for read in readable if read.pixels is not None]
        pixels = np.stack(seen) if seen else np.zeros((0, side, side, 3), dtype=np.uint8)
        sizes = [read.size for read in readable]
        letterbox = Letterbox.of(sizes, side, resize)
        yield ImageBatch([read.path for read in readable], sizes, pixels, letterbox, skipped)
        done += len(chunk)
        on_progress(done, len(paths))


@dataclass(frozen=True)
class _Read:
    """An image file as the model's input, or the reason why it can't be read."""

    path: Path
    size: tuple[int, int] = (0, 0)
    pixels: Image8 | None = None
    problem: str = ""


def _read(path: Path, side: int, resize: Resize) -> _Read:
    try:
        return _Read(path, *read_square(path, side, resize))
    except InputError as error:
        return _Read(path, problem=str(error))


def _read_ahead(paths: Iterable[Path], side: int, resize: Resize, ahead: int) -> Iterator[_Read]:
    """Reads files in threads, in order, at most `ahead` in advance."""
    rest = iter(paths)
    with ThreadPoolExecutor(READERS) as pool:
        pending: deque[Future[_Read]] = deque()
        try:
            pending.extend(pool.submit(_read, path, side, resize) for path in islice(rest, ahead))
            while pending:
                read = pending.popleft().result()
                pending.extend(pool.submit(_read, path, side, resize) for path in islice(rest, 1))
                yield read
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Splits items into lists of `size`; the last may be shorter."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk
