"""The Parquet files that hold objects: one alone, or the parts of a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ssdir.errors import InputError
from ssdir.storage import Location, is_file, is_folder, join, list_below
from ssdir.store.folder import EncodingManifest, part_name, read_manifest

_SUFFIX = ".parquet"
_IGNORED = ("_", ".")
"""First characters of names that pandas, Arrow, Spark and Ray ignore too."""


@dataclass(frozen=True, slots=True)
class Part:
    """A Parquet file of objects: one alone, or one of a folder.

    Attributes:
        path: the file.
        objects: number of its rows.
        images: number of the images that were encoded; None where rows were left out or added since.
        numbers: from the least `image_index` in the file to the largest, skipped images included; empty where
            there are no images, or where they are not known.
        shift: what is added to `image_index` so that it counts the images of all parts.
    """

    path: Location
    objects: int
    images: int | None
    numbers: range
    shift: int = 0


def part_files(path: Location) -> tuple[list[Location], EncodingManifest | None]:
    """Returns the files of objects at a path, sorted by name, and the manifest of the folder if it has one.

    Of a folder these are the `.parquet` files whose names begin neither with `_` nor with `.`.

    Args:
        path: a file, or a folder of parts, which `ssdir encode` or another tool wrote.

    Raises:
        InputError: if there is no such file, or the folder holds none, folders, too few parts or other files.
    """
    if not is_folder(path):
        if not is_file(path):
            raise InputError(f"'{path}' does not exist")
        return [path], None
    entries = {name: inside for name, inside in _entries(path) if not name.startswith(_IGNORED)}
    names = sorted(name for name, inside in entries.items() if name.endswith(_SUFFIX) and not inside)
    manifest = read_manifest(path)
    if manifest is not None:
        _check_complete(path, manifest, names)
    folders = sorted(name for name, inside in entries.items() if inside)
    if folders:
        raise InputError(
            f"'{path}' has a folder '{folders[0]}' inside: give a folder that holds {_SUFFIX} files alone"
        )
    if not names:
        raise InputError(f"'{path}' is a folder without {_SUFFIX} files of objects")
    return [join(path, name) for name in names], manifest


def _entries(folder: Location) -> Iterator[tuple[str, bool]]:
    """Yields the names in a folder, and whether each is a folder."""
    if isinstance(folder, Path):
        with os.scandir(folder) as entries:
            yield from ((entry.name, entry.is_dir()) for entry in entries)
        return
    for uri in list_below(folder):
        name, slash, _ = uri[len(folder.rstrip("/")) + 1 :].partition("/")
        yield name, bool(slash)


def _check_complete(folder: Location, manifest: EncodingManifest, names: Sequence[str]) -> None:
    """Raises an error if parts are missing, or there are files that the manifest does not count."""
    expected = {part_name(number) for number in range(manifest.parts)}
    if missing := len(expected - {*names}):
        raise InputError(
            f"'{folder}' is not complete, {manifest.parts - missing:,} of {manifest.parts:,} parts are encoded: "
            "the same ssdir encode command goes on"
        )
    if others := sorted({*names} - expected):
        raise InputError(f"'{folder}' holds '{others[0]}', which is no part of its encoding: move it elsewhere")


def number_images(parts: Sequence[Part], manifest: EncodingManifest | None) -> list[Part]:
    """Returns parts with shifts, so that no two images of different parts have the same `image_index`.

    Parts of one encoding number their images together. Files of several encodings in a folder may each count from
    0: then the images of each follow those of the files before it. Where images of a part are not known,
    `image_index` stays as it is.

    Raises:
        InputError: if a part has images that are those of another by the manifest.
    """
    if manifest is not None:
        for number, part in enumerate(parts):
            images = manifest.images_of(number)
            if part.numbers and not (part.numbers[0] in images and part.numbers[-1] in images):
                raise InputError(
                    f"'{part.path}' has images {part.numbers[0]} ... {part.numbers[-1]}, expected "
                    f"{images[0]} ... {images[-1]} by its name: encode the images again"
                )
        return list(parts)
    if any(part.images is None for part in parts):
        return list(parts)
    shifted, following = [], 0
    for part in parts:
        shift = max(0, following - part.numbers[0]) if part.numbers else 0
        shifted.append(replace(part, shift=shift))
        following = max(following, part.numbers[-1] + shift + 1 if part.numbers else 0)
    return shifted
