"""Reads Darknet's `obj.data`, which names lists of images (`train.txt`) and a file of class names (`obj.names`).

Lists name images relative to Darknet's own folder, such as `data/obj_train_data/a.png`; they are matched by
the end of their paths. The labels are YOLO's, beside the images.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ssdir.data.readers.file_names import PathEnds
from ssdir.data.readers.table_builder import read_names
from ssdir.documents import read_lines
from ssdir.errors import InputError
from ssdir.formatting import quote

# A file of keys and values has a few lines, unlike other files with the suffix .data.
_MAX_BYTES = 1 << 16
_SPLIT_KEYS = ("train", "valid", "val", "test")


@dataclass(frozen=True)
class Darknet:
    """The content of an `obj.data`.

    Attributes:
        file: the file.
        names: names of the classes.
        entries: the list of a split's images, by key.
    """

    file: Path
    names: list[str]
    entries: dict[str, str]


def find_darknets(root: Path) -> list[Path]:
    """Finds the files `*.data` of a folder that name classes and a split."""
    files = []
    for path in sorted(root.glob("*.data")):
        try:
            values = dict(_read_pairs(path))
        except InputError:  # Other tools use the suffix .data for anything.
            continue
        if "names" in values and values.keys() & {*_SPLIT_KEYS}:
            files.append(path)
    return files


def read_darknet(path: Path) -> Darknet:
    """Reads an `obj.data` and the names that it leads to.

    Raises:
        InputError: if it or the file of names can't be read, a key stands twice, or the number of classes differs.
    """
    pairs = _read_pairs(path)
    values = dict(pairs)
    if len(values) < len(pairs):
        repeated = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise InputError(f"{path} has the key {quote(repeated)} twice: keep one")
    names_file = _names_file(path, values["names"])
    names = read_names(names_file)
    count = values.get("classes", "")
    if count and count != str(len(names)):
        raise InputError(
            f"{path}: classes is {quote(count)}, but {names_file} has {len(names)}: correct one of them"
        )
    return Darknet(path, names, {key: values[key] for key in _SPLIT_KEYS if values.get(key)})


def _names_file(path: Path, entry: str) -> Path:
    """Finds the file of names: relative to the folder of `obj.data`, or by the end of its path."""
    names = path.parent / entry
    file = names if os.path.isfile(names) else PathEnds(path.parent).find_file(entry)
    if file is None:
        raise InputError(f"{path}: names is {quote(entry)}, but '{names}' does not exist")
    return file


def _read_pairs(path: Path) -> list[tuple[str, str]]:
    lines = read_lines(path, _MAX_BYTES)
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return [(key.strip(), value.strip()) for key, equals, value in pairs if equals]
