"""Folders of images and labels, and the files in them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn

from ssdir.errors import InputError

_MAX_LISTED = 8


def find_folder(root: str | Path) -> Path:
    """Returns the path of a data set's folder.

    Raises:
        InputError: if it does not exist, or is a file.
    """
    folder = Path(root)
    if not folder.is_dir():
        what = "is a file, not the folder of a data set" if folder.is_file() else "does not exist"
        raise InputError(f"data folder '{root}' {what}")
    return folder


def is_there(path: Path) -> bool:
    """Returns whether a path exists; a broken link counts, because it must raise an error and not be ignored."""
    return os.path.lexists(path)


def visible(paths: Iterable[Path]) -> Iterator[Path]:
    """Leaves out hidden files: macOS puts a `._name` beside each name on foreign disks."""
    return (path for path in paths if not path.name.startswith("."))


def files_below(folder: Path) -> list[Path]:
    """Lists the files in a folder and its subfolders, sorted; the list is empty if there is no such folder.

    Hidden subfolders, such as `.ipynb_checkpoints`, are left out.
    Links to folders outside the tree are followed, each folder is searched once, and those inside the tree under
    their own names only, so that no file is listed twice and a link to a parent folder does not recurse for ever.

    Raises:
        InputError: if one of the folders can't be read, which `Path.rglob` would silently leave out.
    """

    def refuse(error: OSError) -> NoReturn:
        raise InputError(f"folder '{error.filename}' can't be read ({(error.strerror or str(error)).lower()})")

    if not folder.is_dir():
        return []
    files, root, searched = list[Path](), folder.resolve(), set[str]()

    def leads_back(path: Path) -> bool:
        if not path.is_symlink():
            return False
        target = path.resolve()
        return target.is_relative_to(root) or root.is_relative_to(target)

    for at, names, own in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(at)
        if real in searched:
            names.clear()
            continue
        searched.add(real)
        files += [Path(at, name) for name in own]
        names[:] = sorted(name for name in names if name[0] != "." and not leads_back(Path(at, name)))
    return sorted(files)


def listing(folder: Path, root: Path) -> str:
    """Lists the first names in a folder below the root, for an error message."""
    name = "it" if folder == root else f"{folder.relative_to(root).as_posix()}/"
    if not folder.is_dir():
        return f"{name} does not exist"
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return f"{name} has {', '.join(names[:_MAX_LISTED]) or 'nothing'}{more}"
