"""Reads images with index masks: `images/<split>/`, `masks/<split>/`, and optionally `objects/<split>.jsonl`.

A mask has the name of its image, as PNG. The objects' file has a line per image, with what a mask can't hold:

    {"image": "000000.png", "objects": [{"value": 1, "category": "cube", "attributes": {"colour": "red"},
                                         "depth": 9.3, "box": [10, 20, 30, 40]}]}

Only `value` is necessary. Without the file, each value of a mask is an object "object". Images that
lie in `images/` itself are divided into splits (see `splits.divide`); their file is `objects/all.jsonl`.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ssdir.config import Record, parse
from ssdir.console import reading
from ssdir.data.annotations import AnnotationTable
from ssdir.data.folders import files_below, find_folder, visible
from ssdir.data.image_files import is_image_name
from ssdir.data.readers.faults import Faults, note_if_any
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
from ssdir.data.readers.splits import SPLITS, divide, missing_split
from ssdir.data.readers.yolo.folder import list_images
from ssdir.documents import json_text, parse_json
from ssdir.errors import EmptySplitError, InputError
from ssdir.formatting import quote


def is_mask_folder(root: Path) -> bool:
    """Returns whether a folder has images with masks."""
    return (root / "images").is_dir() and (root / "masks").is_dir()


def mask_folder_splits(root: Path) -> list[str]:
    """Lists the folders in `images/`; train, val and test where the images are to be divided."""
    return _folders(root) or list(SPLITS)


def read_mask_folder(root: Path, split: str) -> AnnotationTable:
    """Reads a split. The names of categories and attributes are those of all splits, in natural order.

    Raises:
        InputError: if there is no such split; an image, mask or line is missing or broken (see `build_table`).
    """
    folders = _folders(root)
    if folders and split not in folders:
        raise missing_split(root, split, folders, f"images/{split} is missing")
    names, kept = Names(), []
    loose = sorted(path.name for path in visible((root / "images").iterdir()) if is_image_name(path))
    notes = note_if_any("images beside the folders of the splits, passed over", loose if folders else [])
    for part in folders or [""]:
        is_read = part in ("", split)
        with nullcontext() if is_read else suppress(EmptySplitError):
            for image in _images(root, part, notes if is_read else []):
                names.add(image)
                if is_read:
                    kept.append(image)
    if not folders:
        wanted = {*divide([image.name for image in kept], split, f"'{root}'")}
        kept = [image for image in kept if image.name in wanted]
    path = _objects_path(root, split if folders else "")
    return build_table(root, [path] if path.is_file() else [], kept, names, notes)


def line_of(name: str, objects: list[MaskedObject]) -> str:
    """Formats an image's line of the objects' file."""
    entries = [
        {
            "value": item.value,
            "category": item.category,
            **({"attributes": dict(item.attributes)} if item.attributes else {}),
            **({} if item.depth is None else {"depth": item.depth}),
            **({} if item.box is None else {"box": list(item.box)}),
        }
        for item in objects
    ]
    return json_text({"image": name, "objects": entries}, indent=None)


def _folders(root: Path) -> list[str]:
    images = find_folder(root) / "images"
    if not images.is_dir():
        raise InputError(f"'{root}' has no folder images/")
    return sorted(path.name for path in visible(images.iterdir()) if path.is_dir())


def _objects_path(root: Path, split: str) -> Path:
    return root / "objects" / f"{split or 'all'}.jsonl"


def _images(root: Path, split: str, notes: list[str]) -> list[MaskedImage]:
    """Lists the images of a split with the given objects; adds to the notes."""
    base, masks = root / "images" / split, root / "masks" / split
    names = [image.relative_to(base).as_posix() for image in list_images(base)]
    path = _objects_path(root, split)
    faults = Faults(str(path if path.is_file() else base), of_one_file=True)
    known = _read_objects(path, faults) if path.is_file() else None
    faults.stop_at_any()
    for name in sorted({*(known or {})} - {*names}):
        faults.add(f"it is about image {quote(name)}, which '{base}' does not have")
    images, image_of = [], dict[str, str]()
    for name in names:
        mask = Path(name).with_suffix(".png").as_posix()
        if image_of.setdefault(mask, name) != name:
            faults.add(f"{image_of[mask]} and {name} would share a mask: rename one of them")
        if known is not None and name not in known:
            faults.add(f"it has no line for image '{name}': if it has no objects, say \"objects\": []")
            continue
        image_name, mask_name = (base / name).relative_to(root), (masks / mask).relative_to(root)
        objects = None if known is None else known[name]
        images.append(MaskedImage(image_name.as_posix(), mask_name.as_posix(), objects))
    faults.stop_at_any()
    files = (mask for mask in visible(files_below(masks)) if mask.suffix == ".png")
    lone = sum(mask.relative_to(masks).as_posix() not in image_of for mask in files)
    if lone:
        notes.append(f"masks without an image, passed over: {lone}")
    return images


# The file of objects ---------------------------------------------------------------------------------------

_MAX_LINE_BYTES = 1 << 26


class _ObjectEntry(Record):
    """An object as the file has it."""

    value: int = Field(ge=1, le=MAX_VALUE)
    category: Name = "object"
    attributes: dict[Name, Name] = Field(default_factory=dict)
    depth: Coordinate | None = None
    box: Annotated[list[Coordinate], Field(min_length=4, max_length=4)] | None = None

    def as_object(self) -> MaskedObject:
        """Returns the object with its box as a tuple."""
        box = None if self.box is None else (self.box[0], self.box[1], self.box[2], self.box[3])
        return MaskedObject(self.value, self.category, self.attributes, self.depth, box)


class _LineEntry(Record):
    """An image's line of the objects' file."""

    image: str
    objects: list[_ObjectEntry] = Field(max_length=MAX_VALUE)


def _read_objects(path: Path, faults: Faults) -> dict[str, list[MaskedObject]]:
    """Reads the objects of a file, by the name of their image."""
    known: dict[str, list[MaskedObject]] = {}
    for number, line in enumerate(_raw_lines(path), start=1):
        if not line.strip():
            continue
        where = f"line {number}"
        with faults.collecting():
            entry = parse(_LineEntry, parse_json(_decode(line, where), where), source=where)
            if entry.image in known:
                raise InputError(
                    f"{where} is about image {quote(entry.image)}, as an earlier line: remove one of them"
                )
            known[entry.image] = [item.as_object() for item in entry.objects]
            if len({item.value for item in entry.objects}) < len(entry.objects):
                raise InputError(f"{where}: two objects have the same value")
    return known


def _raw_lines(path: Path) -> Iterator[bytes]:
    """Yields the lines of a file, without a byte order mark."""
    try:
        with reading(path) as file:
            if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
                file.seek(0)
            while line := file.readline(_MAX_LINE_BYTES + 1):
                if len(line) > _MAX_LINE_BYTES:
                    raise InputError(f"{path}: a line has more than {_MAX_LINE_BYTES:,} bytes, as no image needs")
                yield line
    except OSError as error:
        raise InputError(f"'{path}' can't be read ({(error.strerror or str(error)).lower()})") from None


def _decode(line: bytes, where: str) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise InputError(f"{where} is not UTF-8 text: save the file as UTF-8") from None


LAYOUT = Layout("index masks", is_mask_folder, mask_folder_splits, read_mask_folder)
