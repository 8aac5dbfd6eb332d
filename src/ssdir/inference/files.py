"""Encoding of image files by any engine, in batches, without torch where the engine does without."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO, Generic, Literal, Protocol, TypeAlias, TypeGuard, TypeVar

import numpy as np

from ssdir.console import Advance, no_progress
from ssdir.data.frame_names import split_frame_name
from ssdir.data.images import Image8, ImageFile
from ssdir.data.letterbox import Letterbox, Resize, read_square
from ssdir.errors import InputError, UnreachableError
from ssdir.storage import Location, is_uri, read_bytes

if TYPE_CHECKING:
    import pyarrow as pa

    from ssdir.object_arrays import ObjectArrays
    from ssdir.objects import Objects

S = TypeVar("S")
T = TypeVar("T")
ObjectsT = TypeVar("ObjectsT", bound="Objects | ObjectArrays")
ObjectsT_co = TypeVar("ObjectsT_co", bound="Objects | ObjectArrays", covariant=True)

Precision: TypeAlias = Literal["single", "bf16"]

READERS = min(4, os.cpu_count() or 1)
"""Number of threads that read and decode image files, unless another is asked for."""

FETCHERS = 16
"""Number of threads that fetch images from elsewhere: they wait most of the time."""


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
class SkippedImage:
    """An image that couldn't be read.

    Attributes:
        location: the image.
        index: its position among all images given.
        reason: a sentence with its location.
    """

    location: Location
    index: int
    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True)
class RefusedBox:
    """A given box that was not encoded.

    Attributes:
        location: its image.
        index: the image's position among all images given.
        row: row of the box in its table.
        reason: a sentence with the row.
    """

    location: Location
    index: int
    row: int
    reason: str


@dataclass(frozen=True)
class EncodedBatch(Generic[ObjectsT]):
    """A batch of images and their objects.

    Attributes:
        paths: the images that could be read.
        indices: their positions among all images given.
        sizes: (height, width) of each in pixels, after EXIF orientation.
        objects: their objects; `batch_size` is the number of paths.
        skipped: the images that couldn't be read.
        given: where boxes were given, the further columns of those encoded, row-aligned with `objects`.
        refused: the given boxes that were not encoded.
    """

    paths: list[Location]
    indices: list[int]
    sizes: list[tuple[int, int]]
    objects: ObjectsT
    skipped: list[SkippedImage]
    given: pa.Table | None = None
    refused: Sequence[RefusedBox] = ()


def encode_files(
    encoder: Encoder[ObjectsT],
    paths: Sequence[Location],
    batch_size: int = 32,
    strict: bool = False,
    on_progress: Advance = no_progress,
    *,
    score_threshold: float | None = None,
    readers: int = READERS,
) -> Iterator[EncodedBatch[ObjectsT]]:
    """Encodes image files batch by batch; memory doesn't grow with their number.

    Args:
        encoder: the model.
        paths: image files, see `find_images`.
        batch_size: files per batch; while one is encoded, the next is read.
        strict: raise at the first unreadable image instead of skipping it.
        on_progress: called with (files done, all files) after each batch.
        score_threshold: minimum score, in [0, 1]; None takes the model's.
        readers: number of threads that read and decode; 0 decodes in the calling thread, for a process that has
            one core. Images elsewhere are fetched by threads in any case, because waiting needs no core.

    Yields:
        Batches in the order of `paths`; unreadable images are in `skipped`.

    Raises:
        InputError: for an option out of range; with `strict`, for the first unreadable image.
        UnreachableError: if the storage of an image can't be used at all: its images are not skipped.
    """
    check_threshold(score_threshold)
    how = encoder.image_size, encoder.resize
    for batch in read_image_batches(paths, *how, batch_size, strict, on_progress, readers):
        objects = batch.letterbox.to_image(encoder.encode_pixels(batch.pixels, score_threshold))
        yield EncodedBatch(batch.paths, batch.indices, batch.sizes, objects, batch.skipped)


def none_readable(images: int, reason: str) -> str:
    """Words the error where none of so many images could be read, with the reason for one of them."""
    return reason if images == 1 else f"none of the {images} images could be read, such as: {reason}"


@dataclass(frozen=True)
class ImageBatch:
    """A batch of images as the model's input.

    Attributes:
        paths: the images that could be read.
        indices: their positions among all images given.
        sizes: (height, width) of each in pixels, after EXIF orientation.
        pixels: uint8 (B, side, side, 3), RGB.
        letterbox: where the images lie in these squares.
        skipped: the images that couldn't be read.
    """

    paths: list[Location]
    indices: list[int]
    sizes: list[tuple[int, int]]
    pixels: Image8
    letterbox: Letterbox
    skipped: list[SkippedImage]


def read_image_batches(
    paths: Sequence[Location],
    side: int,
    resize: Resize = "stretch",
    batch_size: int = 32,
    strict: bool = False,
    on_progress: Advance = no_progress,
    readers: int = READERS,
) -> Iterator[ImageBatch]:
    """Reads image files batch by batch as squares, see `read_square`; for the others see `encode_files`."""
    if batch_size < 1:
        raise InputError(f"batch size must be at least 1, got {batch_size}")
    are_elsewhere = any(isinstance(path, str) for path in paths)
    fetched = map_ahead(_fetch, enumerate(paths), FETCHERS if are_elsewhere else 0, max(batch_size, FETCHERS))
    done = 0
    for chunk in chunks(map_ahead(partial(_read, side, resize), fetched, readers, batch_size), batch_size):
        skipped = [read for read in chunk if isinstance(read, SkippedImage)]
        if strict and skipped:
            raise InputError(skipped[0].reason)
        read = [read for read in chunk if isinstance(read, _Square)]
        pixels = np.zeros((len(read), side, side, 3), dtype=np.uint8)
        for square, image in zip(pixels, read, strict=True):
            square[:] = image.pixels
        sizes = [image.size for image in read]
        yield ImageBatch(
            [image.location for image in read],
            [image.index for image in read],
            sizes,
            pixels,
            Letterbox.of(sizes, side, resize),
            skipped,
        )
        done += len(chunk)
        on_progress(done, len(paths))


@dataclass(frozen=True)
class _Source:
    """What an image is decoded from: its path, or the content of a file elsewhere."""

    location: Location
    index: int
    file: ImageFile


@dataclass(frozen=True)
class _Square:
    """An image as the model's input."""

    location: Location
    index: int
    size: tuple[int, int]
    pixels: Image8


def _fetch(numbered: tuple[int, Location]) -> _Source | SkippedImage:
    """Fetches the content of an image that is elsewhere."""
    index, location = numbered
    if not is_fetched(location):
        return _Source(location, index, location)
    try:
        return _Source(location, index, fetch_content(location))
    except UnreachableError:
        raise
    except InputError as error:
        return SkippedImage(location, index, str(error))


def _read(side: int, resize: Resize, source: _Source | SkippedImage) -> _Square | SkippedImage:
    """Decodes and resizes an image."""
    if isinstance(source, SkippedImage):
        return source
    try:
        return _Square(source.location, source.index, *read_square(source.file, side, resize))
    except UnreachableError:
        raise
    except InputError as error:
        return SkippedImage(source.location, source.index, str(error))


class _Content(io.BytesIO):
    """The content of a file, which errors call by its name."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name


def is_fetched(source: object) -> TypeGuard[str]:
    """Returns whether an image is elsewhere and fetched as a whole; of a video, only the frame is read."""
    return isinstance(source, str) and is_uri(source) and split_frame_name(source) is None


def fetch_content(location: str) -> BinaryIO:
    """Reads the file of a URI; errors are those of `storage.read_bytes`."""
    return _Content(read_bytes(location), location)


def map_ahead(function: Callable[[S], T], items: Iterable[S], threads: int, ahead: int) -> Iterator[T]:
    """Applies a function in threads, in order, at most `ahead` items in advance; without threads, when asked."""
    if not threads:
        yield from map(function, items)
        return
    rest = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[T]] = deque()
        try:
            pending.extend(pool.submit(function, item) for item in islice(rest, ahead))
            while pending:
                result = pending.popleft().result()
                pending.extend(pool.submit(function, item) for item in islice(rest, 1))
                yield result
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Splits items into lists of `size`; the last may be shorter."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk
