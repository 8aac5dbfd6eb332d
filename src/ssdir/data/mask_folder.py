"""Folders of images with index masks: `images/<split>/`, `masks/<split>/`, and optionally `objects/<split>.jsonl`.

A mask has the name of its image, as PNG. The objects' file has a line per image, and tells what a mask can't:

    {"image": "000000.png", "objects": [{"value": 1, "category": "cube", "attributes": {"colour": "red"},
                                         "depth": 9.3, "box": [10, 20, 30, 40]}]}

Of an object only `value` is necessary. Without the file, each value of a mask is an object "object". Images that
lie in `images/` itself are divided into splits (see `table_builder.divide`); their file is `objects/all.jsonl`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ssdir.data.annotations import AnnotationTable
from ssdir.data.folders import files_below, find_folder, visible
from ssdir.data.masked_images import Box, MaskedImage, MaskedObject, Names, build_table
from ssdir.data.split_files import missing_split
from ssdir.data.table_builder import SPLITS, divide
from ssdir.data.yolo_folder import list_images
from ssdir.errors import InputError


def is_mask_folder(root: str | Path) -> bool:
    """Whether a folder has images with masks."""
    folder = Path(root)
    return (folder / "images").is_dir() and (folder / "masks").is_dir()


def mask_folder_splits(root: str | Path) -> list[str]:
    """The folders in `images/`; train, val and test where the images are to be divided."""
    return _folders(Path(root)) or list(SPLITS)


def read_mask_folder(root: str | Path, split: str) -> AnnotationTable:
    """Reads a split. The names of categories and attributes are those of all splits, in natural order.

    Raises:
        InputError: if there is no such split; an image, mask or line is missing or broken (see `build_table`).
    """
    folder = Path(root)
    found = _folders(folder)
    if found and split not in found:
        raise missing_split(root, split, found, f"images/{split} is missing")
    names, kept = Names(), []
    notes: list[str] = []
    for part in found or [""]:
        for image in _images(folder, part, notes if part in ("", split) else []):
            names.add(image)
            if part in ("", split):
                kept.append(image)
    if not found:
        wanted = {*divide([image.name for image in kept], split, f"'{root}'")}
        kept = [image for image in kept if image.name in wanted]
    path = _objects_path(folder, split if found else "")
    return build_table(folder, [path] if path.is_file() else [], kept, names, notes)


def line_of(name: str, objects: list[MaskedObject]) -> str:
    """An image's line of the objects' file."""
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
    return json.dumps({"image": name, "objects": entries}, ensure_ascii=False) + "\n"


def _folders(root: Path) -> list[str]:
    images = find_folder(root) / "images"
    if not images.is_dir():
        raise InputError(f"'{root}' has no folder images/")
    return sorted(path.name for path in visible(images.iterdir()) if path.is_dir())


def _objects_path(root: Path, split: str) -> Path:
    return root / "objects" / f"{split or 'all'}.jsonl"


def _images(root: Path, split: str, notes: list[str]) -> Iterator[MaskedImage]:
    """The images of a split with what is told of their objects; adds to the notes."""
    base, masks = root / "images" / split, root / "masks" / split
    names = [image.relative_to(base).as_posix() for image in list_images(base)]
    path = _objects_path(root, split)
    told = dict(_lines(path)) if path.is_file() else None
    unknown = sorted({*(told or {})} - {*names})
    if unknown:
        raise InputError(f"{path} is about image '{unknown[0]}', which '{base}' does not have")
    image_of: dict[str, str] = {}
    for name in names:
        mask = Path(name).with_suffix(".png").as_posix()
        if image_of.setdefault(mask, name) != name:
            raise InputError(f"{base}: {image_of[mask]} and {name} would share a mask: rename one of them")
        if told is not None and name not in told:
            raise InputError(f"{path} has no line for image '{name}': if it has no objects, say \"objects\": []")
        image_name, mask_name = (base / name).relative_to(root), (masks / mask).relative_to(root)
        yield MaskedImage(image_name.as_posix(), mask_name.as_posix(), None if told is None else told[name])
    found = (mask for mask in visible(files_below(masks)) if mask.suffix == ".png")
    lone = sum(mask.relative_to(masks).as_posix() not in image_of for mask in found)
    if lone:
        notes.append(f"masks without an image, passed over: {lone}")


def _lines(path: Path) -> Iterator[tuple[str, list[MaskedObject]]]:
    """The images' names and objects that a file tells of."""
    seen: set[str] = set()
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                where = f"{path}: line {number}"
                name, objects = _parse_line(line, where)
                if name in seen:
                    raise InputError(f"{where} is about image '{name}', as an earlier line: remove one of them")
                seen.add(name)
                yield name, objects
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable ({error})") from None


def _parse_line(line: str, where: str) -> tuple[str, list[MaskedObject]]:
    try:
        content = json.loads(line)
        name, entries = content["image"], content["objects"]
        if not (isinstance(name, str) and isinstance(entries, list)):
            raise TypeError
        objects = [_parse_object(entry, f"{where}, object {i}") for i, entry in enumerate(entries)]
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f'{where} is not of the form {{"image": "name", "objects": [...]}}') from None
    values = [item.value for item in objects]
    if len({*values}) < len(values):
        raise InputError(f"{where}: two objects have the same value")
    return name, objects


def _parse_object(entry: Any, where: str) -> MaskedObject:
    if not isinstance(entry, dict):
        raise InputError(f"{where} must be an object with 'value', got {entry!r:.60}")
    value, category = entry.get("value"), entry.get("category", "object")
    attributes, depth = entry.get("attributes", {}), entry.get("depth")
    # In Python, true is the number 1.
    if type(value) is not int or value < 1:
        raise InputError(f"{where}: 'value' must be a whole number from 1 on, got {value!r:.60}")
    if not isinstance(category, str) or not category:
        raise InputError(f"{where}: 'category' must be a name, got {category!r:.60}")
    if not (isinstance(attributes, dict) and all(isinstance(name, str) for name in attributes.values())):
        raise InputError(f"{where}: 'attributes' must be names by name, got {attributes!r:.60}")
    if depth is not None and not _is_number(depth):
        raise InputError(f"{where}: 'depth' must be a number, got {depth!r:.60}")
    return MaskedObject(value, category, attributes, depth, _parse_box(entry.get("box"), where))


def _parse_box(box: Any, where: str) -> Box | None:
    if box is None:
        return None
    if not (isinstance(box, list) and len(box) == 4 and all(_is_number(side) for side in box)):
        raise InputError(f"{where}: 'box' must be four numbers, x1, y1, x2, y2, got {box!r:.60}")
    x1, y1, x2, y2 = (float(side) for side in box)
    return x1, y1, x2, y2


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
