"""Bounds of the sizes in configs, so that no config asks for more memory than a computer has."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from ssdir.errors import InputError
from ssdir.formatting import quote

MAX_WIDTH = 1 << 14
"""Most channels, or latents, of one layer."""

MAX_STAGES = 32
"""Most layers of one kind in a row."""

MAX_SIDE = 4096
"""Largest side of the images, in pixels."""

MAX_DECODED_SIDE = 1024
"""Largest side of a decoded object, in pixels."""

MAX_MAP = 1 << 28
"""Most values of one feature map of one image: 1 GiB in single precision."""

MAX_CLASSES, MAX_CLASS_NAME = 1 << 16, 1000

Width: TypeAlias = Annotated[int, Field(ge=1, le=MAX_WIDTH)]
Widths: TypeAlias = Annotated[tuple[Width, ...], Field(min_length=1, max_length=MAX_STAGES)]
HiddenWidths: TypeAlias = Annotated[tuple[Width, ...], Field(max_length=MAX_STAGES)]


def check_map(channels: int, side: float, image_size: int) -> None:
    """Raises ValueError if a feature map of `channels` × `side` × `side` values is too large for one image."""
    if channels * side**2 > MAX_MAP:
        raise ValueError(
            f"{channels} channels at {side:g} × {side:g} cells of an image of {image_size} pixels are more than "
            f"{MAX_MAP:,} values: use fewer channels or smaller images"
        )


def check_class_names(names: list[str]) -> None:
    """Raises InputError unless there are names, all different, of which each is text that can be written."""
    if not 1 <= len(names) <= MAX_CLASSES:
        raise InputError(f"there must be from 1 to {MAX_CLASSES:,} class names, got {len(names):,}")
    seen: set[str] = set()
    for name in names:
        if not name or len(name) > MAX_CLASS_NAME:
            raise InputError(f"class names must have from 1 to {MAX_CLASS_NAME:,} characters, got {quote(name)}")
        if any("\ud800" <= char <= "\udfff" for char in name):
            raise InputError(f"the class name {quote(name)} holds half of a surrogate pair, which is no text")
        if name in seen:
            raise InputError(f"two classes are called {quote(name)}: rename one of them")
        seen.add(name)
