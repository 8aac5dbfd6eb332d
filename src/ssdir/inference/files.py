"""Encoding of image files by any engine, in batches, without torch where the engine does without."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, Protocol, TypeAlias, TypeVar

import numpy as np

from ssdir.data.images import Image8, read_square
from ssdir.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from ssdir.object_arrays import ObjectArrays
    from ssdir.objects import Objects

T = TypeVar("T")
Found = TypeVar("Found", bound="Objects | ObjectArrays")
Found_co = TypeVar("Found_co", bound="Objects | ObjectArrays", covariant=True)

Precision: TypeAlias = Literal["single", "bf16"]

READERS = min(4, os.cpu_count() or 1)


class Encoder(Protocol[Found_co]):
    """A model on some engine."""

    @property
    def class_names(self) -> list[str]:
        """Names of the classes that `labels` index."""

    @property
    def image_size(self) -> int:
        """Side of the square that the model sees, in pixels."""

    @property
    def latent_dim(self) -> int:
        """Size D of `z_what`."""

    @property
    def fingerprint(self) -> str:
        """Digest of the weights: codes of different ones can't be compared. Empty where it isn't known."""

    def encode_pixels(self, pixels: Image8, score_threshold: float | None = None) -> Found_co:
        """Finds the objects of images uint8 (B, image_size, image_size, 3), RGB, in one go; B may be 0."""


def check_threshold(score_threshold: float | None) -> None:
    """Raises InputError unless a threshold is None or within [0, 1]."""
    if score_threshold is not None and not 0 <= score_threshold <= 1:
        raise InputError(f"score threshold must be within 0 ... 1, got {score_threshold:g}")


@dataclass(frozen=True)
class EncodedBatch(Generic[Found]):
    """Some images of a larger run.

    Attributes:
        paths: the images that could be read.
        sizes: the (height, width) of each, upright, in pixels.
        objects: theirs; `batch_size` is the number of paths.
        skipped: why each of the others couldn't be read, a sentence with its path.
        given: where boxes were given, the further columns of those described, row-aligned with `objects`.
        refused: why each of the other boxes was not described, a sentence with its row.
    """

    paths: list[Path]
    sizes: list[tuple[int, int]]
    objects: Found
    skipped: list[str]
    given: pa.Table | None = None
    refused: Sequence[str] = ()


def encode_files(
    encoder: Encoder[Found],
    paths: Sequence[Path],
    batch_size: int = 32,
    strict: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    *,
    score_threshold: float | None = None,
) -> Iterator[EncodedBatch[Found]]:
    """Encodes image files batch by batch; memory doesn't grow with their number.

    Args:
        encoder: the model.
        paths: image files, see `find_images`.
        batch_size: files per batch; while one is encoded, the next is read.
        strict: raise at the first unreadable image instead of skipping it.
        on_progress: called with (files done, all files) after each batch.
        score_threshold: least score, in [0, 1]; None takes the model's.

    Yields:
        Batches in the order of `paths`; unreadable images are in `skipped`.

    Raises:
        InputError: for an option out of range; with `strict`, for the first unreadable image.
    """
    check_threshold(score_threshold)
    for chunk in read_batches(paths, encoder.image_size, batch_size, strict, on_progress):
        objects = encoder.encode_pixels(chunk.pixels, score_threshold)
        yield EncodedBatch(chunk.paths, chunk.sizes, objects, chunk.skipped)


def none_readable(problems: Sequence[str]) -> str:
    """The error where no image of several could be read, or of one: what was wrong with each."""
    if len(problems) == 1:
        return problems[0]
    return f"none of the {len(problems)} images could be read; the last: {problems[-1]}"


@dataclass(frozen=True)
class ReadBatch:
    """Some images of a larger run, as a model sees them.

    Attributes:
        paths: the images that could be read.
        sizes: the (height, width) of each, upright, in pixels.
        pixels: uint8 (B, side, side, 3), RGB.
        skipped: why each of the others couldn't be read, a sentence with its path.
    """

    paths: list[Path]
    sizes: list[tuple[int, int]]
    pixels: Image8
    skipped: list[str]


def read_batches(
    paths: Sequence[Path],
    side: int,
    batch_size: int = 32,
    strict: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[ReadBatch]:
    """Reads image files batch by batch as squares of a side in pixels; the rest as in `encode_files`."""
    if batch_size < 1:
        raise InputError(f"batch size must be at least 1, got {batch_size}")
    done = 0
    for chunk in chunks(_read_ahead(paths, side, batch_size), batch_size):
        skipped = [read.problem for read in chunk if read.pixels is None]
        if strict and skipped:
            raise InputError(skipped[0])
        readable = [read for read in chunk if read.pixels is not None]
        seen = [read.pixels for read in readable if read.pixels is not None]
        pixels = np.stack(seen) if seen else np.zeros((0, side, side, 3), dtype=np.uint8)
        yield ReadBatch([read.path for read in readable], [read.size for read in readable], pixels, skipped)
        done += len(chunk)
        if on_progress is not None:
            on_progress(done, len(paths))


@dataclass(frozen=True)
class _Read:
    """A file as the model sees it, or why not."""

    path: Path
    size: tuple[int, int] = (0, 0)
    pixels: Image8 | None = None
    problem: str = ""


def _read(path: Path, size: int) -> _Read:
    try:
        return _Read(path, *read_square(path, size))
    except InputError as error:
        return _Read(path, problem=str(error))


def _read_ahead(paths: Iterable[Path], size: int, ahead: int) -> Iterator[_Read]:
    """Reads files in threads, in order, at most `ahead` before they are asked for."""
    rest = iter(paths)
    with ThreadPoolExecutor(READERS) as pool:
        pending: deque[Future[_Read]] = deque()
        try:
            pending.extend(pool.submit(_read, path, size) for path in islice(rest, ahead))
            while pending:
                read = pending.popleft().result()
                pending.extend(pool.submit(_read, path, size) for path in islice(rest, 1))
                yield read
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last of what is left."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk
