"""File names that a data set contains: checks that they stay inside it, and matches those written elsewhere."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, Field

from ssdir.data.folders import files_below

# These folders are in every split, so they don't identify one.
_IN_EVERY_SPLIT = frozenset({"images", "labels"})


class PathEnds:
    """The files and folders of a data set by the ends of their paths.

    For example, `/home/ann/pets/train/images/a.png` has the same end as `train/images/a.png` below the root. The
    two match if no other file has as long an end in common with the path, and if that end contains a folder that
    distinguishes splits, not just `images`.
    """

    def __init__(self, root: Path) -> None:
        """Stores the root; its files are listed when they are first needed."""
        self.root = root

    def find_file(self, name: str) -> Path | None:
        """Returns the file that a path written elsewhere means; None if none matches, or several match equally."""
        parts = path_parts(name)
        match = _longest_end(parts, self._files)
        if match is None:
            return None
        path, length = match
        lies_in_root = path.parts[:-1] in ((), ("images",))
        whole = length == len(parts)
        return self.root / path if whole or lies_in_root or _tells_apart(parts[-length:-1]) else None

    def find_folder(self, name: str) -> Path | None:
        """Returns the folder that a path written elsewhere means; None as in `find_file`."""
        parts = path_parts(name)
        match = _longest_end(parts, self._folders)
        if match is None:
            return None
        path, length = match
        return self.root / path if length == len(parts) or _tells_apart(parts[-length:]) else None

    @cached_property
    def _files(self) -> dict[str, list[PurePosixPath]]:
        """The files relative to the root, by name."""
        return _by_name({PurePosixPath(path.relative_to(self.root)) for path in files_below(self.root)})

    @cached_property
    def _folders(self) -> dict[str, list[PurePosixPath]]:
        """The folders that hold files, relative to the root, by name."""
        files = [path for several in self._files.values() for path in several]
        return _by_name({folder for path in files for folder in path.parents if folder.parts})


def path_parts(name: str) -> tuple[str, ...]:
    """Returns the parts of a relative or absolute path of any system, without drive, `.` and `..`."""
    path = PureWindowsPath(name) if "\\" in name else PurePosixPath(name)
    return tuple(part for part in path.parts if part not in (path.anchor, ".", ".."))


def is_whole_path(name: str) -> bool:
    """Returns whether a path is absolute, on any system."""
    return PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute()


def _by_name(paths: set[PurePosixPath]) -> dict[str, list[PurePosixPath]]:
    by_name = defaultdict(list)
    for path in paths:
        by_name[path.name].append(path)
    return dict(by_name)


def _longest_end(
    parts: tuple[str, ...], by_name: dict[str, list[PurePosixPath]]
) -> tuple[PurePosixPath, int] | None:
    """Finds the only path that agrees with the most last parts, and their number."""
    candidates = by_name.get(parts[-1], []) if parts else []
    lengths = [common_end(parts, path.parts) for path in candidates]
    longest = max(lengths, default=0)
    if lengths.count(longest) != 1:
        return None
    return candidates[lengths.index(longest)], longest


def common_end(one: Sequence[str], other: Sequence[str]) -> int:
    """Returns the number of parts that two paths share at their ends."""
    length = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        length += 1
    return length


def _tells_apart(folders: tuple[str, ...]) -> bool:
    return any(name.lower() not in _IN_EVERY_SPLIT for name in folders)


_LONGEST_PART = 255
"""The longest name of a file or folder on common file systems, in bytes."""


def is_inside(name: str) -> bool:
    """Returns whether a name leads to a file below the folder that it is relative to, without leaving it."""
    parts = re.split(r"[/\\]", name)
    short = all(len(part.encode("utf-8", "surrogateescape")) <= _LONGEST_PART for part in parts)
    return bool(name) and "\0" not in name and ".." not in parts and not is_whole_path(name) and short


def _check_inside(name: str) -> str:
    if not is_inside(name):
        raise ValueError("must be a file in the folder of the data set")
    return name


InsideName: TypeAlias = Annotated[str, Field(max_length=1000), AfterValidator(_check_inside)]
"""The name of a file below a folder of the data set; files elsewhere are not read."""
