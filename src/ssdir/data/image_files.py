"""Image files, recognised by their names among the files, folders and patterns that a user gives."""

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
"""The suffixes of pictures that are not read: phones' and cameras' formats, drawings, files of image editors."""


def find_images(paths: Sequence[str | Path]) -> list[Path]:
    """Resolves files, folders and glob patterns to image files, each once, in the order given.

    Folders, and those that a pattern matches, are searched with their subfolders, sorted, for `IMAGE_SUFFIXES`; so
    are a pattern's other matches. Hidden files are skipped. A file that is named itself is taken whatever its
    suffix. Pictures of `UNREADABLE_SUFFIXES` are passed over with an `InputWarning` that counts them.

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
        found, others = only_images(matches), unreadable_pictures(matches)
        if not found:
            detail = ", such as .jpg, .png, .tif or .webp"
            if others:
                detail = f"; {counted(len(others), 'picture')} of a kind that is not read, such as '{others[0]}'"
            raise InputError(f"{problem}{detail}")
        for group, files in ((images, found), (unreadable, others)):
            for file in files:
                group.setdefault(os.path.abspath(file), file)
    if unreadable:
        _warn_of_unreadable([*unreadable.values()])
    return [*images.values()]


def _warn_of_unreadable(pictures: Sequence[Path]) -> None:
    """Warns, with their number, that pictures of a kind that is not read are passed over."""
    kinds = ", ".join(sorted({path.suffix.lower() for path in pictures}))
    message = (
        f"{counted(len(pictures), 'picture')} passed over, of a kind that is not read ({kinds}; the first is "
        f"'{pictures[0]}'): convert to JPEG or PNG"
    )
    warnings.warn(message, InputWarning, stacklevel=3)


def _matches(pattern: str) -> Iterator[Path]:
    """The files that match a pattern, and those in the folders that do."""
    for match in sorted(glob.glob(pattern, recursive=True)):
        path = Path(match)
        # `**` matches each folder and file below by itself.
        if path.is_dir() and "**" not in pattern:
            yield from files_below(path)
        else:
            yield path


def only_images(paths: Iterable[Path]) -> list[Path]:
    """The image files among some paths, by their names; a link to nothing is one, so that reading it says so."""
    return [path for path in paths if is_image_name(path) and not path.is_dir()]


def unreadable_pictures(paths: Iterable[Path]) -> list[Path]:
    """The pictures of a kind that is not read, by their names; not hidden ones."""
    return [path for path in paths if path.suffix.lower() in UNREADABLE_SUFFIXES and path.name[0] != "."]


def is_image_name(path: Path) -> bool:
    """Tells whether a file has an image's suffix, and is not hidden."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
