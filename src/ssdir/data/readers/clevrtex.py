"""The layout of CLEVRTEX: `CLEVRTEX_<variant>_<number>.png`, mask `..._flat.png` and metadata `....json`.

Each thousand images have a folder, such as `clevrtex_full/0/`. Splits are those of the
publisher's loader (github.com/karazijal/clevrtex-generation, clevrtex_eval.py): in the order of
their numbers, the first tenth is test, the second val, the rest train; the variant outd is all test.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ssdir.config import Record, parse
from ssdir.data.annotations import AnnotationTable
from ssdir.data.folders import find_folder
from ssdir.data.readers.faults import Faults
from ssdir.data.readers.layout import Layout
from ssdir.data.readers.masked_images import (
    MAX_VALUE,
    Coordinate,
    MaskedImage,
    MaskedObject,
    Name,
    Names,
    build_table,
)
from ssdir.data.readers.splits import missing_split
from ssdir.documents import read_json
from ssdir.errors import EmptySplitError, InputError

# Other files, such as depth and normals, don't match.
_NAME = re.compile(r"CLEVRTEX_([a-z]+)_(\d{6})(\.png|_flat\.png|\.json)")
# The root is a folder of a thousand images, a variant's, or the one above it.
_PLACES = ("", "*/", "*/*/")
_UNDIVIDED = "outd"
# Other variants' metadata have colours too, but textures hide them.
_COLOURED = "vbg"


class _ObjectEntry(Record):
    """An object of the metadata; without an index, its place in the list is its value in the mask."""

    size: Name
    material: Name
    shape: Name
    color: Name | None = None
    index: int | None = Field(None, ge=1, le=MAX_VALUE)
    pixel_coords: Annotated[list[Coordinate], Field(min_length=3, max_length=3)]


class _Metadata(Record):
    """The metadata beside an image."""

    objects: list[_ObjectEntry] = Field(max_length=MAX_VALUE)


def is_clevrtex(root: Path) -> bool:
    """Returns whether a folder has CLEVRTEX's layout."""
    masks = (root.glob(f"{place}CLEVRTEX_*_flat.png") for place in _PLACES)
    return any(next(files, None) is not None for files in masks)


def clevrtex_splits(root: Path) -> list[str]:
    """Lists train, val and test; for the variant outd, only test."""
    variant, _, _ = _find_images(root)
    return ["test"] if variant == _UNDIVIDED else ["train", "val", "test"]


def read_clevrtex(root: Path, split: str) -> AnnotationTable:
    """Reads a split, or `all`: shapes as categories, tight boxes of visible pixels, depth, attributes and masks.

    The names of categories and attributes are those of all images, whatever the split; so all metadata are read.

    Raises:
        InputError: if there is no such split; an image, mask or metadata file is missing or broken (it names the
            first ten, and counts all); images of more than one variant are there.
    """
    variant, images, notes = _find_images(root)
    wanted = {*_divide(sorted(images), variant, split, root)}
    names, kept, faults = Names(), [], Faults(f"'{root}'")
    for number, path in sorted(images.items()):
        with faults.collecting():
            image = _read_image(root, path, variant)
            names.add(image)
            if number in wanted:
                kept.append(image)
    faults.stop_at_any()
    sources = [_beside(root / image.name, ".json") for image in kept]
    return build_table(root, sources, kept, names, notes)


def _find_images(root: Path) -> tuple[str, dict[int, Path], list[str]]:
    """Returns the variant, the images by number, and notes."""
    find_folder(root)
    files: dict[tuple[str, str], dict[int, Path]] = {}
    for path in (path for place in _PLACES for path in root.glob(f"{place}CLEVRTEX_*")):
        match = _NAME.fullmatch(path.name)
        if match is None:
            continue
        earlier = files.setdefault((match[1], match[3]), {}).setdefault(int(match[2]), path)
        if earlier != path:
            raise InputError(f"'{earlier}' and '{path}' are of the same image: remove one of them")
    variants = sorted({variant for variant, suffix in files if suffix == ".png"})
    if not variants:
        raise InputError(f"'{root}' has no images CLEVRTEX_<variant>_<six digits>.png")
    if len(variants) > 1:
        raise InputError(f"'{root}' has several variants ({', '.join(variants)}): name the folder of one")
    images, notes = files[variants[0], ".png"], []
    for suffix, what in ((".json", "metadata"), ("_flat.png", "masks")):
        lone = sorted({*files.get((variants[0], suffix), {})} - {*images})
        if lone:
            notes.append(f"{what} without an image, passed over: {len(lone)}, the first of number {lone[0]}")
    if len(images) != max(images) + 1:
        counts = f"{len(images)} images, though the last is number {max(images)}"
        notes.append(f"{counts}: a part of the data set, whose splits are not those of the whole")
    return variants[0], images, notes


def _divide(numbers: list[int], variant: str, split: str, root: Path) -> list[int]:
    """Returns the numbers of a split's images. Sizes are rounded down, as in the publisher's loader."""
    tenth, fifth = int(0.1 * len(numbers)), int(0.2 * len(numbers))
    parts = {"train": numbers[fifth:], "val": numbers[tenth:fifth], "test": numbers[:tenth]}
    if variant == _UNDIVIDED:
        parts = {"test": numbers}
    parts["all"] = numbers
    if split not in parts:
        raise missing_split(root, split, list(parts), f"CLEVRTEX, variant {variant}, is divided into these")
    if not parts[split]:
        raise EmptySplitError(
            f"'{root}' has only {len(numbers)} images, none of them in split {split}: ask for all"
        )
    return parts[split]


def _read_image(root: Path, path: Path, variant: str) -> MaskedImage:
    """Reads an image's metadata: its objects."""
    metadata, mask = _beside(path, ".json"), _beside(path, "_flat.png")
    for file, what in ((metadata, "metadata"), (mask, "mask")):
        if not file.is_file():
            raise InputError(f"image '{path}' has no {what} '{file.name}' beside it: unpack the archive again")
    entries = parse(_Metadata, read_json(metadata), source=str(metadata)).objects
    objects = [
        _parse_object(entry, position, variant, f"{metadata}: object {position - 1}")
        for position, entry in enumerate(entries, start=1)
    ]
    if len({item.value for item in objects}) < len(objects):
        raise InputError(f"{metadata}: two objects have the same index")
    return MaskedImage(path.relative_to(root).as_posix(), mask.relative_to(root).as_posix(), objects)


def _parse_object(entry: _ObjectEntry, position: int, variant: str, where: str) -> MaskedObject:
    attributes = {"size": entry.size, "material": entry.material, "shape": entry.shape}
    if variant == _COLOURED:
        if entry.color is None:
            raise InputError(f"{where} has no 'color', as the objects of this variant do")
        attributes["colour"] = entry.color
    value = position if entry.index is None else entry.index
    return MaskedObject(value, entry.shape, attributes, entry.pixel_coords[2])


def _beside(image: Path, suffix: str) -> Path:
    return image.with_name(image.name.removesuffix(".png") + suffix)


LAYOUT = Layout("CLEVRTEX", is_clevrtex, clevrtex_splits, read_clevrtex)
