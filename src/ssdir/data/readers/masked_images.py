"""Tables of images with index masks, whose objects are given by their value in the mask."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ssdir.data.annotations import AnnotationTable
from ssdir.data.images import image_size
from ssdir.data.masks import draw_order, mask_boxes, read_mask
from ssdir.data.pixel_budget import DECODING
from ssdir.data.readers.faults import Faults
from ssdir.errors import InputError

Box: TypeAlias = tuple[float, float, float, float]

Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=1000)]
Coordinate: TypeAlias = Annotated[float, Field(ge=-1e9, le=1e9)]

MAX_VALUE = 65_535
"""The largest value of an index mask, which has at most 16 bits."""


@dataclass(frozen=True)
class MaskedObject:
    """An object of an image.

    Attributes:
        value: value of its visible pixels in the mask, from 1 on.
        category: name of its category.
        attributes: name of the value, by attribute.
        depth: distance along the viewing direction: smaller is nearer.
        box: xyxy in whole pixels; read from the mask where it is not known.
    """

    value: int
    category: str = "object"
    attributes: Mapping[str, str] = field(default_factory=dict)
    depth: float | None = None
    box: Box | None = None


@dataclass(frozen=True)
class MaskedImage:
    """An image: its name and its mask's, relative to the root; its objects, or None for one per mask value."""

    name: str
    mask_name: str
    objects: Sequence[MaskedObject] | None = None


class Names:
    """Collects the names of categories, and of the attributes that every object has."""

    def __init__(self) -> None:
        """Starts without names."""
        self._categories: set[str] = set()
        self._values: dict[str, set[str]] = {}
        self._counts: dict[str, int] = {}
        self._objects = 0

    def add(self, image: MaskedImage) -> None:
        """Adds the names of an image's objects."""
        if image.objects is None:
            self._categories.add("object")
            self._objects += 1  # What a mask alone shows are objects without attributes.
            return
        for item in image.objects:
            self._objects += 1
            self._categories.add(item.category)
            for name, value in item.attributes.items():
                self._values.setdefault(name, set()).add(value)
                self._counts[name] = self._counts.get(name, 0) + 1

    @property
    def categories(self) -> list[str]:
        """The categories in natural order: "shape 2" before "shape 10"; "object" if there is no object at all."""
        return sorted(self._categories or {"object"}, key=_natural)

    @property
    def attributes(self) -> dict[str, list[str]]:
        """The values of the attributes that every object has, in natural order."""
        kept = [name for name, count in self._counts.items() if count == self._objects]
        return {name: sorted(self._values[name], key=_natural) for name in kept}

    @property
    def notes(self) -> list[str]:
        """Returns a note on the attributes that were left out, if there are any."""
        lost = sorted(name for name, count in self._counts.items() if count < self._objects)
        return [f"attributes that only some objects have, left out: {', '.join(lost)}"] if lost else []


def build_table(
    root: Path, sources: Iterable[Path], images: Sequence[MaskedImage], names: Names, notes: Iterable[str] = ()
) -> AnnotationTable:
    """Builds the table of images. Missing boxes are computed from the masks, tight around the visible pixels.

    A wholly hidden object keeps its row and has a box without area. `depth` is there if every object
    has one, and then `draw_order` ranks an image's objects by it, farthest first. `visible` is None, because
    masks don't show how much of an object is hidden.

    Raises:
        InputError: if an image or a mask that is needed is missing or damaged, they differ in size, or a mask has
            a value for which there is no object; it names the first ten of these faults, and counts all.
    """
    read = _read_all(root, images)
    objects = [item for _, own in read for item in own]
    counts = [len(own) for _, own in read]
    categories, attributes = names.categories, names.attributes
    depths = [item.depth for item in objects if item.depth is not None]
    depth = np.array(depths, dtype=np.float64) if objects and len(depths) == len(objects) else None
    return AnnotationTable(
        root=root,
        sources=tuple(sources),
        category_names=categories,
        image_names=[image.name for image in images],
        image_sizes=np.array([size for size, _ in read], dtype=np.int64).reshape(-1, 2),
        image=np.repeat(np.arange(len(images)), counts),
        category=_indices([item.category for item in objects], categories),
        boxes_px=np.array([item.box for item in objects], dtype=np.float64).reshape(-1, 4),
        ignored=np.zeros(len(objects), dtype=np.bool_),
        draw_order=None if depth is None else _draw_order(depth, counts),
        depth=depth,
        attributes={
            name: _indices([item.attributes[name] for item in objects], values)
            for name, values in attributes.items()
        }
        or None,
        attribute_names=attributes or None,
        mask_names=[image.mask_name for image in images],
        mask_value=np.array([item.value for item in objects], dtype=np.int64),
        notes=(*names.notes, *notes),
    )


def _read_all(root: Path, images: Sequence[MaskedImage]) -> list[tuple[tuple[int, int], list[MaskedObject]]]:
    def attempt(image: MaskedImage) -> tuple[tuple[int, int], list[MaskedObject]] | InputError:
        try:
            return _read(root, image)
        except InputError as error:
            return error

    faults = Faults(f"'{root}'")
    read = []
    with ThreadPoolExecutor() as pool:
        for result in pool.map(attempt, images):
            if isinstance(result, InputError):
                faults.add(str(result))
            else:
                read.append(result)
    faults.stop_at_any()
    return read


def _read(root: Path, image: MaskedImage) -> tuple[tuple[int, int], list[MaskedObject]]:
    """Returns an image's height and width, and its objects with their boxes."""
    with DECODING.until_the_end():
        return _read_counted(root, image)


def _read_counted(root: Path, image: MaskedImage) -> tuple[tuple[int, int], list[MaskedObject]]:
    size = image_size(root / image.name)
    if image.objects is not None and all(item.box is not None for item in image.objects):
        if not (root / image.mask_name).is_file():
            raise InputError(f"mask '{root / image.mask_name}' of {image.name} does not exist")
        return size, list(image.objects)
    mask = read_mask(root / image.mask_name, size, image.name)
    boxes, pixels = mask_boxes(mask, int(mask.max()))
    values = (np.flatnonzero(pixels) + 1).tolist()
    objects = [MaskedObject(value) for value in values] if image.objects is None else image.objects
    unknown = sorted({*values} - {item.value for item in objects})
    if unknown:
        raise InputError(
            f"mask '{root / image.mask_name}' has a value {unknown[0]}, for which {image.name} has no object"
        )
    return size, [_boxed(item, boxes) for item in objects]


def _boxed(item: MaskedObject, boxes: NDArray[np.float64]) -> MaskedObject:
    if item.box is not None:
        return item
    x1, y1, x2, y2 = boxes[item.value - 1].tolist() if item.value <= len(boxes) else (0.0, 0.0, 0.0, 0.0)
    return MaskedObject(item.value, item.category, item.attributes, item.depth, (x1, y1, x2, y2))


def _draw_order(depth: NDArray[np.float64], counts: list[int]) -> NDArray[np.int64]:
    return np.concatenate([draw_order(part) for part in np.split(depth, np.cumsum(counts)[:-1])])


def _indices(values: list[str], names: list[str]) -> NDArray[np.int64]:
    place = {name: i for i, name in enumerate(names)}
    return np.array([place[value] for value in values], dtype=np.int64)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(digits or -1), text) for text, digits in re.findall(r"(\D*)(\d*)", name)]
