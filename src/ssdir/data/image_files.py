"""Finds images among the files, folders, patterns and lists that a user gives, on this machine and elsewhere."""

from __future__ import annotations

import glob
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

from ssdir.data.folders import files_below
from ssdir.data.frame_names import file_of
from ssdir.data.image_lists import is_list, read_image_list
from ssdir.errors import InputError, InputWarning
from ssdir.formatting import counted
from ssdir.storage import (
    Location,
    exists,
    is_file,
    is_folder,
    is_web,
    list_below,
    matches,
    pure_path,
    to_location,
)

LocationT = TypeVar("LocationT", bound=Location)

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


def find_images(paths: Sequence[str | Path]) -> list[Location]:
    """Returns the images that `stream_locations` yields."""
    return [*stream_locations(paths)]


def stream_locations(paths: Sequence[str | Path]) -> Iterator[Location]:
    """Resolves files, folders, glob patterns and lists, here or by URI, to images, in the order given.

    Folders, and folders that a pattern matches, are searched with their subfolders, in sorted order, for files
    with `IMAGE_SUFFIXES`; other matches of a pattern need these suffixes too. What is hidden is skipped, and
    so are links to images that are listed with them. A file that is given by its own name is accepted with any
    suffix, and so is a web address. Files with `UNREADABLE_SUFFIXES` are skipped, and an `InputWarning` counts
    them. Of these images, each is named once.

    A file with one of `LIST_SUFFIXES`, and a pattern that ends in one, are lists, see `read_image_list`: those
    are read while images are asked for, so that memory doesn't grow with them.

    Raises:
        InputError: for a path that does not exist, a folder that can't be read or has no images, a pattern
            without matches, a list that can't be read; all before the first image, but for faults within lists.
        UnreachableError: if a storage can't be used, see `storage.filesystem_of`.
    """
    unreadable: dict[str, Location] = {}
    groups = [_Group(given, unreadable) for given in paths]
    if unreadable:
        _warn_of_unreadable([*unreadable.values()])
    return _each_once(groups)


def images_in(folder: Path) -> list[Path]:
    """Lists the images in a local folder and its subfolders, as `find_images` does."""
    return [Path(image) for image in find_images([folder])]


class _Group:
    """What one argument names: the images of lists, or else images that are known."""

    def __init__(self, given: str | Path, unreadable: dict[str, Location]) -> None:
        location = to_location(given)
        self.lists: list[Iterator[Location]] = []
        self.images: list[Location] = []
        if _is_pattern(location):
            files, problem = _matches(location), f"no image matches the pattern '{given}'"
            if is_list(location) and files:
                self.lists = [read_image_list(file) for file in files]
                return
        elif is_list(location):
            self.lists = [read_image_list(location)]
            return
        elif _is_one_image(location):
            self.images = [location]
            return
        elif is_folder(location):
            files, problem = _files_below(location), f"folder '{given}' contains no images"
        else:
            raise InputError(f"'{given}' does not exist")
        self.images, others = _without_aliases(only_images(files)), unreadable_pictures(files)
        unreadable.update({_key(file): file for file in others})
        if not self.images:
            detail = ", such as .jpg, .png, .tif or .webp"
            if others:
                detail = f"; {counted(len(others), 'picture')} of a kind that is not read, such as '{others[0]}'"
            raise InputError(f"{problem}{detail}")


def _each_once(groups: Sequence[_Group]) -> Iterator[Location]:
    named: set[str] = set()
    for group in groups:
        for image in group.images:
            if (key := _key(image)) not in named:
                named.add(key)
                yield image
        for images in group.lists:
            yield from images


def _key(location: Location) -> str:
    return location if isinstance(location, str) else os.path.abspath(location)


def _is_pattern(location: Location) -> bool:
    """Returns whether a location is a glob pattern, and not the name of a file or folder."""
    if is_web(location):  # whose queries begin with `?`
        return "*" in str(location)
    return glob.has_magic(str(location)) and not exists(location)


def _is_one_image(location: Location) -> bool:
    """Returns whether a location is a file; elsewhere, the name of an image is enough."""
    location = file_of(location)
    if isinstance(location, str) and (is_web(location) or is_image_name(location)):
        return True
    return is_file(location)


def _warn_of_unreadable(pictures: Sequence[Location]) -> None:
    """Warns that pictures in unreadable formats are skipped, and how many there are."""
    kinds = ", ".join(sorted({pure_path(picture).suffix.lower() for picture in pictures}))
    message = (
        f"{counted(len(pictures), 'picture')} passed over, of a kind that is not read ({kinds}; the first is "
        f"'{pictures[0]}'): convert to JPEG or PNG"
    )
    warnings.warn(message, InputWarning, stacklevel=3)


def _files_below(folder: Location) -> list[Location]:
    if isinstance(folder, Path):
        return [*files_below(folder)]
    return [uri for uri in list_below(folder) if "/." not in uri.removeprefix(folder.rstrip("/"))]


def _matches(pattern: Location) -> list[Location]:
    """Lists the files that match a pattern, and the files in folders that match it."""
    files: list[Location] = []
    if isinstance(pattern, str):
        for uri, is_dir in matches(pattern):
            # `**` already matches each folder and file below.
            files += _files_below(uri) if is_dir and "**" not in pattern else [uri]
        return files
    for match in sorted(glob.glob(str(pattern), recursive=True)):
        path = Path(match)
        files += files_below(path) if path.is_dir() and "**" not in str(pattern) else [path]
    return files


def only_images(paths: Iterable[LocationT]) -> list[LocationT]:
    """Selects image files by their names; a broken link counts as one, so that reading it raises an error."""
    return [path for path in paths if is_image_name(path) and not (isinstance(path, Path) and path.is_dir())]


def _without_aliases(images: list[Location]) -> list[Location]:
    """Leaves out links to images that are listed too, such as `latest.jpg`; broken links remain."""
    files = [image for image in images if isinstance(image, Path)]
    links = {file for file in files if file.is_symlink()}
    if not links:
        return images
    real_folder = cache(os.path.realpath)
    listed = {os.path.join(real_folder(file.parent), file.name) for file in files if file not in links}
    return [image for image in images if image not in links or os.path.realpath(image) not in listed]


def unreadable_pictures(paths: Iterable[LocationT]) -> list[LocationT]:
    """Selects the files that are not hidden and have one of `UNREADABLE_SUFFIXES`."""
    return [path for path in paths if _has_suffix(path, UNREADABLE_SUFFIXES)]


def is_image_name(path: Location) -> bool:
    """Returns whether a file has one of `IMAGE_SUFFIXES` and is not hidden."""
    return _has_suffix(path, IMAGE_SUFFIXES)


def _has_suffix(location: Location, suffixes: frozenset[str]) -> bool:
    path = pure_path(location)
    return path.suffix.lower() in suffixes and not path.name.startswith(".")
