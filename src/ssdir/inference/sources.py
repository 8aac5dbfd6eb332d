"""The images that a `Predictor` is given: one or many, of any kind, or folders, patterns and lists of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from ssdir.data.image_files import find_images
from ssdir.data.images import ImageSource, image_size, read_image
from ssdir.inference.files import FETCHERS, fetch_content, is_fetched, map_ahead

Images: TypeAlias = "ImageSource | Sequence[ImageSource] | Iterator[ImageSource]"


def image_sources(images: Images) -> list[ImageSource]:
    """Returns one image or several as a list; batches are split, paths and URIs resolved by `find_images`.

    A file object is read here, from where it is, because an image may be needed twice.

    Raises:
        InputError: as `find_images`.
    """
    if isinstance(images, (Tensor, np.ndarray)):
        return list(images) if images.ndim == 4 else [images]
    is_several = isinstance(images, (Sequence, Iterator)) and not (
        isinstance(images, (str, bytes)) or hasattr(images, "read")
    )
    several: Any = images if is_several else [images]
    return [source for given in several for source in _found(given)]


def _found(given: Any) -> Sequence[ImageSource]:
    if hasattr(given, "read"):
        return [given.read()]
    return find_images([given]) if isinstance(given, (str, Path)) else [given]


def source_size(source: ImageSource) -> tuple[int, int]:
    """Reads (height, width) of an image in pixels, after EXIF orientation."""
    if isinstance(source, Tensor):
        return int(source.shape[-2]), int(source.shape[-1])
    if isinstance(source, (str, Path, bytes)):
        return image_size(source)
    height, width = read_image(source).shape[:2]
    return height, width


def fetch_sources(sources: Sequence[ImageSource]) -> Iterator[ImageSource]:
    """Yields sources in their order, with the content of those that are URIs, which threads fetch ahead."""
    are_elsewhere = any(map(is_fetched, sources))
    return map_ahead(_fetch, sources, FETCHERS if are_elsewhere else 0, FETCHERS)


def _fetch(source: ImageSource) -> ImageSource:
    return fetch_content(source) if is_fetched(source) else source
