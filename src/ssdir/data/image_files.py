"""Finds image files, by their suffixes, among the files, folders and patterns that a user gives."""

from __future__ import annotations

import glob
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ssdir.data.folders import files_below
from ssdir.errors import InputError, InputWarning
from ssdir.formatting import counted

_READ = """
    .apng .avif .bmp .dib .gif .j2c .j2k .jfif .jp2 .jpc .jpe .jpeg .jpf .jpg .jpx .pbm .pfm .pgm .png .pnm .ppm
    .qoi .tga .tif .tiff .webp
"""
_NOT_READ = """
    .3fr .arw .cr2 .cr3 .dng .emf .eps .erf .exr .hdr .heic .heics .heif .heifs .hif .jxl .jxr .mrw .nef .nrw .orf
    .pef .psb .psd .raf .raw .rw2 .sr2 .srw .svg .svgz .wdp .wmf .x3f .xcf
"""

IMAGE_SUFFIXES = frozenset(_READ.split())
"""The suffixes of images that Pillow decodes; `.avif` needs Pillow 11.3."""

UNREADABLE_SUFFIXES = frozenset(_NOT_READ.split())
"""The suffixes of pictures that can't be read: raw and phone formats, vector graphics, files of image editors."""


def find_images(paths: Sequence[str | Path]) -> list[Path]:
    """Resolves files, folders and glob patterns to image files, each once, in the order given.

    Folders, and folders that a pattern matches, are searched with their subfolders, in sorted order, for files
    with `IMAGE_SUFFIXES`; other matches of a pattern need these suffixes too. Hidden files are skipped. A file
    that is given by its own name is accepted with any suffix. Files with `UNREADABLE_SUFFIXES` are skipped, and an
    `InputWarning` counts them.

    Raises:
        InputError: for a path that does not exist, a folder that can't be read or has no images, a pattern
            without matches.
    """
    images: dict[str, Path] = {}
    unreadable: dict[str, Path] = {}
    for given in paths:
        path = Path(given)
        if os.path.isfile(path):  # Path.is_file raises where a name is too long.
            images.setdefault(os.path.abspath(path), path)
            continue
        if os.path.isdir(path):
            matches, problem = files_below(path), f"folder '{path}' contains no images"
        elif glob.has_magic(str(given)):
            matches = list(_matches(str(given)))
            problem = f"no image matches the pattern '{given}'"
        else:
            raise InputError(f"'{given}' does not exist")
        readable, others = only_images(matches), unreadable_pictures(matches)
        if not readable:
            detail = ", such as .jpg, .png, .tif or .webp"
            if others:
                detail = f"; {counted(len(others), 'picture')} of a kind that is not read, such as '{others[0]}'"
            raise InputError(f"{problem}{detail}")
        for group, files in ((images, readable), (unreadable, others)):
            for file in files:
                group.setdefault(os.path.abspath(file), file)
    if unreadable:
        _warn_of_unreadable([*unreadable.values()])
    return [*images.values()]


def _warn_of_unreadable(pictures: Sequence[Path]) -> None:
    """Warns that pictures in unreadable formats are skipped, and how many there are."""
    kinds = ", ".join(sorted({path.suffix.lower() for path in pictures}))
    message = (
        f"{counted(len(pictures), 'picture')} passed over, of a kind that is not read ({kinds}; the first is "
        f"'{pictures[0]}'): convert to JPEG or PNG"
    )
    warnings.warn(message, InputWarning, stacklevel=3)


def _matches(pattern: str) -> Iterator[Path]:
    """Yields the files that match a pattern, and the files in folders that match it."""
    for match in sorted(glob.glob(pattern, recursive=True)):
        path = Path(match)
        # `**` already matches each folder and file below.
        if path.is_dir() and "**" not in pattern:
            yield from files_below(path)
        else:
            yield path


def only_images(paths: Iterable[Path]) -> list[Path]:
    """Selects image files by their names; a broken link counts as one, so that reading it raises an error."""
    return [path for path in paths if is_image_name(path) and not path.is_dir()]


def unreadable_pictures(paths: Iterable[Path]) -> list[Path]:
    """Selects the files that are not hidden and have one of `UNREADABLE_SUFFIXES`."""
    return [path for path in paths if path.suffix.lower() in UNREADABLE_SUFFIXES and path.name[0] != "."]


def is_image_name(path: Path) -> bool:
    """Returns whether a file has one of `IMAGE_SUFFIXES` and is not hidden."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
