"""From any images to `Objects` and back: a loaded model that takes what users have."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from ssdir.data.images import ImageSource, image_size, read_image, to_tensor
from ssdir.errors import InputError
from ssdir.models.base import GenerativeModel, ObjectModel
from ssdir.models.inference_form import inference_form
from ssdir.models.zoo import choose_device, load_model
from ssdir.objects import Objects, Scene

Images: TypeAlias = "ImageSource | Sequence[ImageSource]"

T = TypeVar("T")

READERS = min(4, os.cpu_count() or 1)


def load(name_or_dir: str | Path, device: str | torch.device | None = None) -> Predictor:
    """Loads a model by the name of a shipped one, or from a folder.

    Args:
        name_or_dir: see `ssdir models`; a folder that `ssdir train` or `save_model` wrote.
        device: None takes the accelerator, if there is one.

    Raises:
        InputError: for an unknown name, damaged files, or a device that isn't there.
    """
    return Predictor(load_model(name_or_dir, choose_device(device)))


class Predictor:
    """A model in evaluation mode, for images of any kind and size.

    Images are squashed to the model's square; `z_where` is relative to the image, so it needs no converting
    back. Results are on the CPU.

    Args:
        model: where its parameters are is where it runs. Encoding uses a copy of it as it is now, see
            `inference_form`: load or train first.
        batch_size: most images that go through the model at once.
    """

    def __init__(self, model: ObjectModel, batch_size: int = 32) -> None:
        self.model = model.eval()
        self.batch_size = batch_size
        self._encoder = inference_form(self.model)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes that `labels` index."""
        return self.model.class_names

    @property
    def image_size(self) -> int:
        """Side of the square that the model sees, in pixels."""
        return self.model.image_size

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.model.device

    def encode(self, images: Images, score_threshold: float | None = None) -> Objects:
        """Finds the objects of one or several images, and what they look like.

        Args:
            images: a path, PIL image, array (H, W[, C]) or tensor (C, H, W), see `read_image`; a sequence of
                these, sizes and kinds mixed; or a batch: tensor (B, 3, H, W), array (B, H, W, C).
            score_threshold: least score, in [0, 1]; None takes the model's.

        Raises:
            InputError: if an image cannot be read, or there is none.
        """
        check_threshold(score_threshold)
        return Objects.cat([self.encode_batch(batch, score_threshold) for batch in self._batches(images)])

    @torch.no_grad()
    def decode(self, objects: Objects) -> Scene:
        """Draws the objects: reconstructions (B, 3, image_size, image_size), and each object alone.

        Raises:
            InputError: if the model has no decoder.
        """
        return _to_cpu(check_draws(self.model).decode(objects.to(self.device)))

    def reconstruct(self, images: Images) -> Scene:
        """Encodes and decodes: what the model makes of the images."""
        return self.decode(self.encode(images))

    def prepare(self, images: Images) -> Tensor:
        """What the model sees of the images: float (B, 3, image_size, image_size) in [0, 1]."""
        return torch.cat(list(self._batches(images)))

    def encode_batch(self, batch: Tensor, score_threshold: float | None = None) -> Objects:
        """Like `encode`, for a float tensor (B, 3, image_size, image_size) in [0, 1], in one go."""
        images = batch.to(self._encoder.device, memory_format=torch.channels_last)
        return self._encoder.encode(images, score_threshold).to("cpu")

    def _batches(self, images: Images) -> Iterator[Tensor]:
        sources = _sources(images)
        if not len(sources):
            raise InputError("there are no images to encode")
        for chunk in _chunks(sources, self.batch_size):
            yield torch.stack([self._see(source) for source in chunk])

    def _see(self, source: ImageSource) -> Tensor:
        size = self.image_size
        if isinstance(source, Tensor) and source.is_floating_point() and source.shape == (3, size, size):
            return _checked(source.detach().float().cpu())
        if isinstance(source, (str, Path)):
            return _read_file(Path(source), size)[1]
        return to_tensor(read_image(source), size)


def check_draws(model: ObjectModel) -> GenerativeModel:
    """The model as one that decodes; raises InputError if it can't."""
    if not isinstance(model, GenerativeModel):
        raise InputError(
            f"a {model.config.kind} model has no decoder, so nothing can be drawn: "
            "its codes are for ssdir encode and ssdir evaluate; take another model for pictures"
        )
    return model


def check_threshold(score_threshold: float | None) -> None:
    """Raises InputError unless a threshold is None or within [0, 1]."""
    if score_threshold is not None and not 0 <= score_threshold <= 1:
        raise InputError(f"score threshold must be within 0 ... 1, got {score_threshold:g}")


@dataclass(frozen=True)
class EncodedBatch:
    """Some images of a larger run.

    Attributes:
        paths: the images that could be read.
        sizes: the (height, width) of each, upright, in pixels.
        objects: theirs; `batch_size` is the number of paths.
        skipped: why each of the others couldn't be read, a sentence with its path.
    """

    paths: list[Path]
    sizes: list[tuple[int, int]]
    objects: Objects
    skipped: list[str]


def encode_files(
    predictor: Predictor,
    paths: Sequence[Path],
    batch_size: int = 32,
    strict: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    *,
    score_threshold: float | None = None,
) -> Iterator[EncodedBatch]:
    """Encodes image files batch by batch; memory doesn't grow with their number.

    Args:
        predictor: the model.
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
    if batch_size < 1:
        raise InputError(f"batch size must be at least 1, got {batch_size}")
    check_threshold(score_threshold)
    done = 0
    for chunk in _chunks(_read_ahead(paths, predictor.image_size, batch_size), batch_size):
        batch = _encode_chunk(predictor, chunk, strict, score_threshold)
        yield batch
        done += len(chunk)
        if on_progress is not None:
            on_progress(done, len(paths))


@dataclass(frozen=True)
class _Read:
    """A file as the model sees it, or why not."""

    path: Path
    size: tuple[int, int] = (0, 0)
    pixels: Tensor | None = None
    problem: str = ""


def _read(path: Path, size: int) -> _Read:
    try:
        return _Read(path, *_read_file(path, size))
    except InputError as error:
        return _Read(path, problem=str(error))


def _read_file(path: Path, size: int) -> tuple[tuple[int, int], Tensor]:
    """A file's upright (height, width), and what the model sees of it; large JPEGs are decoded reduced."""
    height, width = image_size(path)
    longer, shorter = max(height, width), max(min(height, width), 1)
    # As in ObjectDataset: the shorter side must not fall below the model's while decoding.
    return (height, width), to_tensor(read_image(path, max_side=-(-size * longer // shorter)), size)


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


def _encode_chunk(
    predictor: Predictor, chunk: Sequence[_Read], strict: bool, score_threshold: float | None
) -> EncodedBatch:
    skipped = [read.problem for read in chunk if read.pixels is None]
    if strict and skipped:
        raise InputError(skipped[0])
    readable = [read for read in chunk if read.pixels is not None]
    pixels = [read.pixels for read in readable if read.pixels is not None]
    objects = predictor.encode_batch(torch.stack(pixels), score_threshold) if pixels else Objects.empty(0)
    return EncodedBatch([read.path for read in readable], [read.size for read in readable], objects, skipped)


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


def _sources(images: Images) -> Sequence[ImageSource]:
    """One image or several as a sequence; batches fall apart into images."""
    if isinstance(images, (Tensor, np.ndarray)):
        return list(images) if images.ndim == 4 else [images]
    return list(images) if isinstance(images, Sequence) and not isinstance(images, str) else [images]


def _checked(image: Tensor) -> Tensor:
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= 1):
        raise InputError(f"tensor: float images must be within [0, 1], got {low:g} ... {high:g}")
    return image


def _to_cpu(scene: Scene) -> Scene:
    return Scene(
        scene.reconstructions.cpu(),
        scene.appearances.cpu(),
        None if scene.alpha is None else scene.alpha.cpu(),
        None if scene.background is None else scene.background.cpu(),
    )


__all__ = ["EncodedBatch", "Predictor", "choose_device", "encode_files", "load"]
