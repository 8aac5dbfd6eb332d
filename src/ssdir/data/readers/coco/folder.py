"""The files of a COCO folder: the JSON of each split, and the images that it names."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath

from ssdir.console import reading
from ssdir.data.folders import visible
from ssdir.data.readers.file_names import PathEnds, is_whole_path, path_parts
from ssdir.data.readers.splits import SPLITS, list_splits, standard_split
from ssdir.formatting import quote

NAMED_BY_SPLIT = "annotations/instances_*.json"
BESIDE_PICTURES = "_annotations.coco.json"

_KEYS = re.compile(rb'"(images|annotations|categories)"\s*:\s*\[')
_MOST_FILES = 100
"""The most JSON files of a COCO folder; one with more has a file per image, as other formats do."""

_LOOKED_AT = 1 << 20
"""The bytes of a JSON file that are searched for COCO's keys at once."""

_LONGEST_KEY = 64
"""The most bytes of a key, with the blanks around its colon."""


def split_files(root: Path) -> dict[str, Path]:
    """Finds the COCO files with standard names, by split: in `annotations/`, or beside each split's images."""
    named = {name: root / NAMED_BY_SPLIT.replace("*", name) for name in list_splits(root, NAMED_BY_SPLIT)}
    return named or {path.parent.name: path for path in sorted(root.glob(f"*/{BESIDE_PICTURES}"))}


def loose_files(root: Path) -> dict[str, Path]:
    """Finds COCO files of any name, by split: in the folder, in `annotations/`, or in a folder for each split.

    The folder `annotations/` of a data set is not itself a data set.
    """
    if root.resolve().name == "annotations" and split_files(root.resolve().parent):
        return {}
    for folder in (root, root / "annotations"):
        if files := _coco_in(folder):
            return _by_split(files)
    below = [path for folder in sorted(visible(root.iterdir())) if folder.is_dir() for path in _coco_in(folder)]
    folders = [path.parent.name for path in below]
    return {
        path.parent.name if folders.count(path.parent.name) == 1 else f"{path.parent.name}-{path.stem}": path
        for path in below
    }


def _coco_in(folder: Path) -> list[Path]:
    files = sorted(visible(folder.glob("*.json")))
    return [path for path in files if holds_coco(path)] if len(files) <= _MOST_FILES else []


def _by_split(files: Sequence[Path]) -> dict[str, Path]:
    """Groups files by the split that a word of their name stands for; a single file of another name is `all`."""
    words = [re.split(r"[^a-z0-9]+", path.stem.lower()) for path in files]
    splits = [next((word for word in each if standard_split(word) in SPLITS), "") for each in words]
    if splits == [""]:
        return {"all": files[0]}
    return {
        split if split and splits.count(split) == 1 else path.stem: path
        for split, path in zip(splits, files, strict=True)
    }


def holds_coco(path: Path) -> bool:
    """Returns whether a JSON file has two of COCO's keys.

    They are searched at either end first, and in all of the file only if one is there: a large file of another
    kind is not read.
    """
    found = set[bytes]()
    try:
        with reading(path) as file:
            found |= _keys(file.read(_LOOKED_AT))
            file.seek(-min(_LOOKED_AT, path.stat().st_size), os.SEEK_END)
            found |= _keys(file.read(_LOOKED_AT))
            file.seek(0)
            before = b""
            while len(found) == 1 and (part := file.read(_LOOKED_AT)):
                found |= _keys(before + part)
                before = part[-_LONGEST_KEY:]
    except OSError:
        return False
    return len(found) > 1


def _keys(part: bytes) -> set[bytes]:
    return {match[1] for match in _KEYS.finditer(part)}


@dataclass
class ImageFinder:
    """Finds the images that a COCO file names, within the data set.

    Attributes:
        root: folder of the data set.
        annotations: the COCO file.
        split: name of its split.
        elsewhere: names that were matched by their end alone.
        outside: names of files that are not in the folder of the data set.
    """

    root: Path
    annotations: Path
    split: str
    elsewhere: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def find(self, names: Sequence[str]) -> list[str]:
        """Returns names relative to the root, or absolute paths; a missing image gets its expected path."""
        there = (place for name in names for place in self._places if os.path.isfile(self.root / place / name))
        place = next(there, self._places[0])
        return [self._find(name, place) for name in names]

    @cached_property
    def _places(self) -> list[str]:
        """The folders that may contain images, relative to the root, in the order in which they are tried."""
        beside = os.path.relpath(self.annotations.parent, self.root)
        places = [self.split, f"images/{self.split}", "images", "", "data"]
        normal = map(os.path.normpath, [*places, *(f"{beside}/{each}" for each in ("", "images", "data"))])
        return list(dict.fromkeys("" if place == "." else place for place in normal))

    def _find(self, name: str, place: str) -> str:
        usual = name if is_whole_path(name) else os.path.join(place, name)
        if os.path.isfile(self.root / usual):
            return self._checked(usual, name)
        if is_whole_path(name) or "\\" in name:
            return self._find_by_end(name) or (name if is_whole_path(name) else self._checked(usual, name))
        return self._checked(usual, name)

    def _find_by_end(self, name: str) -> str | None:
        """Finds the file with the longest end of a name that was written on another machine."""
        parts = path_parts(name)
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        tried = (os.path.join(place, end) for end in ends for place in self._places)
        path = next((path for path in tried if os.path.isfile(self.root / path)), None)
        if path is None and (match := self._ends.find_file(name)) is not None:
            path = match.relative_to(self.root).as_posix()
        if path is not None:
            self.elsewhere.append(f"{quote(name)} is {path}")
        return path

    def _checked(self, path: str, name: str) -> str:
        """Notes a file that is not in the folder of the data set; links within it may lead anywhere."""
        if ".." not in path and not is_whole_path(path):
            return path
        root = os.path.abspath(self.root)
        whole = os.path.normpath(os.path.join(root, path))
        if not (
            PurePath(whole).is_relative_to(root)
            or (is_whole_path(name) and Path(whole).resolve().is_relative_to(self.root.resolve()))
        ):
            self.outside.append(name)
        return path

    @cached_property
    def _ends(self) -> PathEnds:
        return PathEnds(self.root)
