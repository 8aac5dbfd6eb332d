"""Reads DeepMind's multi-object data sets (github.com/google-deepmind/multi_object_datasets) from TFRecord.

A record has an image, a mask for each of a fixed number of entities, of which the first are background, and (not
in Objects Room) the attributes of each. `visibility` marks the entities that are in the image. Shapes, sizes,
materials and CLEVR's colours stay numbers, because no names are published.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ssdir.data.masks import mask_boxes
from ssdir.data.readers.masked_images import MaskedObject
from ssdir.data.readers.tfrecord.records import Example, parse_example, read_records
from ssdir.errors import InputError

_MAX_ENTITIES = 255
"""Masks are written with 8 bits; the data sets have up to 11 entities."""

Attributes: TypeAlias = dict[str, list[str]]
"""The name of each entity's value, by attribute."""


@dataclass(frozen=True, eq=False)
class MultiObjectImage:
    """An image and its objects.

    Attributes:
        image: uint8 (H, W, 1 or 3).
        mask: uint8 (H, W), the objects' values.
        objects: the visible objects, with tight boxes; the box of a wholly covered one has no area.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    objects: list[MaskedObject]


@dataclass(frozen=True)
class _Source:
    """One of the data sets.

    Attributes:
        name: the beginning of its file's name.
        size: height and width of the images.
        background: the number of entities, the first ones, that are background.
        entities_last: whether masks are (H, W, entities) instead of (entities, H, W).
        attributes: reads the attributes of all entities from a record.
    """

    name: str
    size: tuple[int, int]
    background: int
    entities_last: bool
    attributes: Callable[[Example, int, str], Attributes]


def read_multi_object_images(path: str | Path) -> Iterator[MultiObjectImage]:
    """Yields the images of a file, in its order, one at a time.

    Raises:
        InputError: if the file's name is not that of one of the data sets, it is missing, damaged or cut short, or
            a record lacks something or holds something of another size.
    """
    path = Path(path)
    source = _find_source(path)
    for number, record in enumerate(read_records(path)):
        where = f"{path}: record {number}"
        yield _parse_image(parse_example(record, where), source, where)


def is_record_file(path: str | Path) -> bool:
    """Returns whether a file has a TFRecord file's suffix."""
    return Path(path).suffix.lower() in (".tfrecord", ".tfrecords") and Path(path).is_file()


def _find_source(path: Path) -> _Source:
    source = next((source for source in _SOURCES if path.name.startswith(source.name)), None)
    if source is None:
        known = ", ".join(f"{source.name}*.tfrecords" for source in _SOURCES)
        raise InputError(f"'{path}' is not called as any known data set ({known}): give it its published name")
    return source


def _parse_image(example: Example, source: _Source, where: str) -> MultiObjectImage:
    pixels = source.size[0] * source.size[1]
    image = _pixels(example, "image", where)
    if image.size not in (pixels, 3 * pixels):
        raise InputError(f"{where}: {_sizes('image', image, source)}")
    masks = _pixels(example, "mask", where)
    count = masks.size // pixels
    if masks.size % pixels or not source.background <= count <= _MAX_ENTITIES:
        raise InputError(f"{where}: {_sizes('mask', masks, source)}")
    masks = masks.reshape(*source.size, count).transpose(2, 0, 1) if source.entities_last else masks
    masks = masks.reshape(count, *source.size)
    visible = np.asarray(masks.any(axis=(1, 2)))
    if "visibility" in example:
        visible = np.asarray(_column(example, "visibility", count, where) > 0.5)
    mask = _index_mask(masks, visible, source.background)
    boxes, _ = mask_boxes(mask, count)
    attributes = source.attributes(example, count, where)
    depth = _vectors(example, "pixel_coords", count, where)[:, 2] if "pixel_coords" in example else None
    objects = [
        MaskedObject(
            value=i - source.background + 1,
            category=f"shape {attributes['shape'][i]}" if "shape" in attributes else "object",
            attributes={name: values[i] for name, values in attributes.items()},
            depth=None if depth is None else round(float(depth[i]), 6),
            box=_box(boxes[i - source.background]),
        )
        for i in range(source.background, count)
        if visible[i]
    ]
    return MultiObjectImage(image.reshape(*source.size, -1), mask, objects)


def _index_mask(masks: NDArray[np.uint8], visible: NDArray[np.bool_], background: int) -> NDArray[np.uint8]:
    """Returns each pixel's object, from 1 on: the entity with the strongest mask, or 0 for background and none."""
    masks = np.where(visible[:, None, None], masks, 0)
    # Where no mask is above 0, `argmax` returns 0, which is background.
    owner = np.asarray(masks.argmax(axis=0), dtype=np.int64)
    return np.maximum(owner - background + 1, 0).astype(np.uint8)


def _box(corners: NDArray[np.float64]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = corners.tolist()
    return x1, y1, x2, y2


# What a record has ------------------------------------------------------------------------------------------


def _pixels(example: Example, name: str, where: str) -> NDArray[np.uint8]:
    values = example.get(name)
    if values is None or values.dtype != np.uint8:
        raise InputError(f"{where} has no bytes '{name}' (it has {', '.join(sorted(example)) or 'nothing'})")
    return values.astype(np.uint8, copy=False)


def _sizes(name: str, values: NDArray[np.uint8], source: _Source) -> str:
    height, width = source.size
    return f"'{name}' has {values.size:,} bytes, which are not {source.name}'s {width} x {height} pixels"


def _column(example: Example, name: str, count: int, where: str) -> NDArray[np.float64]:
    """Returns a number per entity."""
    values = example.get(name)
    if values is None or values.size != count or not np.isfinite(values).all():
        got = "it is missing" if values is None else f"got {values.size:,}"
        raise InputError(f"{where} must have {count} numbers '{name}', as many as masks ({got})")
    return values.astype(np.float64)


def _vectors(example: Example, name: str, count: int, where: str) -> NDArray[np.float64]:
    """Returns three numbers per entity, (count, 3)."""
    return _column({name: example.get(name, np.zeros(0, np.float32))}, name, 3 * count, where).reshape(count, 3)


def _codes(*names: str) -> Callable[[Example, int, str], Attributes]:
    """Returns a reader of attributes that are one number per entity; `colour` is spelt `color` in the file."""

    def read(example: Example, count: int, where: str) -> Attributes:
        keys = {name: "color" if name == "colour" else name for name in names}
        return {name: [f"{v:g}" for v in _column(example, key, count, where)] for name, key in keys.items()}

    return read


def _tetrominoes(example: Example, count: int, where: str) -> Attributes:
    """Reads shapes as numbers, and the six colours, of which each channel is full or empty, as names."""
    colours = _vectors(example, "color", count, where)
    full = colours > colours.max(axis=1, keepdims=True) / 2
    names = ["black", "blue", "green", "cyan", "red", "magenta", "yellow", "white"]
    return {**_codes("shape")(example, count, where), "colour": [names[i] for i in full @ np.array([4, 2, 1])]}


_SOURCES = (
    _Source("clevr_with_masks", (240, 320), 1, False, _codes("size", "colour", "material", "shape")),
    # Colour, orientation and scale are continuous.
    _Source("multi_dsprites", (64, 64), 1, True, _codes("shape")),
    _Source("tetrominoes", (35, 35), 1, False, _tetrominoes),
    # Sky, floor and two halves of the wall.
    _Source("objects_room", (64, 64), 4, False, _codes()),
)
