"""Finds the images, XML files and splits of a Pascal VOC folder, or of images with XML files beside them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ssdir.data.folders import files_below, find_folder, visible
from ssdir.data.image_files import only_images, unreadable_pictures
from ssdir.data.readers.faults import note_if_any
from ssdir.data.readers.splits import SPLITS, divide, find_split_file, list_splits, missing_split, standard_split
from ssdir.documents import read_lines, read_text
from ssdir.errors import EmptySplitError, InputError
from ssdir.formatting import quote

LISTS = "ImageSets/Main/*.txt"

# The list of a class has a flag after each image's name, which says whether the image shows one.
_FLAG = re.compile(r"\s+-?[01]$")


@dataclass(frozen=True)
class VocFolder:
    """A data set before its XML files are read. Images go by their path, without suffix, in the folder of images.

    Attributes:
        root: its folder.
        images_in: the folder of images.
        images: all files of a name, by name.
        annotations: the XML file, by name.
        has_lists: whether the splits are lists in `ImageSets/Main/`.
        folders: the names of the images in each split that is a folder.
        notes: what is ignored.
    """

    root: Path
    images_in: Path
    images: Mapping[str, Sequence[Path]]
    annotations: Mapping[str, Path]
    has_lists: bool
    folders: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def open_voc_folder(root: Path) -> VocFolder:
    """Lists the images and XML files.

    Raises:
        InputError: if there is no such folder, or it can't be read.
    """
    folder = find_folder(root)
    apart = (folder / "JPEGImages").is_dir()
    images_in, annotations_in = (folder / "JPEGImages", folder / "Annotations") if apart else (folder, folder)
    files = files_below(images_in)
    images: dict[str, list[Path]] = {}
    for path in only_images(files):
        images.setdefault(_name(path, images_in), []).append(path)
    xml = [path for path in visible(files_below(annotations_in)) if path.suffix.lower() == ".xml"]
    annotations: dict[str, Path] = {}
    for path in xml:
        if (other := annotations.setdefault(_name(path, annotations_in), path)) != path:
            raise InputError(f"'{other}' and '{path}' are both of the image '{path.stem}': keep one")
    folders, loose = ({}, []) if apart else _folders(images)
    lone = [path for name, path in annotations.items() if name not in images]
    texts = [path for path in visible(files) if path.suffix.lower() == ".txt" and _name(path, images_in) in images]
    passed_over = {
        "pictures of a kind that is not read": unreadable_pictures(files),
        "images beside the folders of the splits": [images[name][0] for name in loose],
        "XML files without an image": lone,
        "text files beside images": texts,
    }
    notes = [note for what, paths in passed_over.items() for note in note_if_any(f"{what}, passed over", paths)]
    has_lists = apart and bool(list_splits(folder, LISTS))
    return VocFolder(folder, images_in, images, annotations, has_lists, folders, tuple(notes))


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _folders(names: Iterable[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Groups images by split, where folders have names of splits; also returns those in no such folder."""
    by_folder: dict[str, list[str]] = {}
    for name in names:
        by_folder.setdefault(PurePosixPath(name).parts[0] if "/" in name else "", []).append(name)
    called = [standard_split(folder) for folder in by_folder]
    if not {*called} & {*SPLITS}:
        return {}, []
    splits = {
        split if called.count(split) == 1 else folder: by_folder[folder]
        for folder, split in zip(by_folder, called, strict=True)
        if folder
    }
    return splits, by_folder.get("", [])


def voc_splits(root: Path) -> list[str]:
    """Lists the splits that have a list of all images: not those of a class, nor trainval where train and val are.

    Where there are none, the folders; where the images are to be divided, train, val and test.
    """
    names = list[str]()
    if not (root / "JPEGImages").is_dir():
        return list(open_voc_folder(root).folders) or list(SPLITS)
    for name in list_splits(root, LISTS):
        first = next((line for line in read_lines(root / LISTS.replace("*", name)) if line), "")
        # A name may end like a class list's flag.
        if not _FLAG.search(first) or os.path.isfile(root / "Annotations" / f"{first}.xml"):
            names.append(name)
    if {"train", "val"} <= {*names}:
        names = [name for name in names if name != "trainval"]
    return names or list(SPLITS)


def split_images(voc: VocFolder, split: str, notes: list[str]) -> list[str]:
    """Lists the names of the images of a split, each once; adds to the notes.

    Raises:
        MissingSplitError: if there is no such split.
        EmptySplitError: if it lists no images.
        InputError: if the images can't be divided.
    """
    if voc.folders:
        if split not in voc.folders:
            raise missing_split(voc.root, split, list(voc.folders), "it needs a folder")
        return list(voc.folders[split])
    if not voc.has_lists:
        return divide(list(voc.images), split, f"'{voc.root}'")
    path = find_split_file(voc.root, LISTS, split, existing=voc_splits(voc.root))
    listed = [name for line in read_text(path).split("\n") if (name := _listed(line, voc))]
    if not listed:
        raise EmptySplitError(f"{path}: the split is empty, it lists no images")
    unique = list(dict.fromkeys(listed))
    if len(unique) < len(listed):
        notes.append(f"{path}: images listed more than once, taken once: {len(listed) - len(unique)}")
    return unique


def _listed(line: str, voc: VocFolder) -> str:
    """Returns the name of the image that a line of a list means; the line itself, if there is no such image."""
    name = line.strip()
    without_flag = _FLAG.sub("", name)
    # Some lists have the image's suffix, or its folder.
    path = PurePosixPath(without_flag.removeprefix("JPEGImages/"))
    spellings = (
        line.removesuffix("\r"),
        name,
        without_flag,
        str(path),
        str(path.with_suffix("")) if path.name else "",
    )
    return next((spelling for spelling in spellings if spelling in voc.images), without_flag)


def unlisted_note(voc: VocFolder) -> list[str]:
    """Counts the images that are in none of the lists."""
    if not voc.has_lists:
        return []
    listed = {
        _listed(line, voc)
        for split in list_splits(voc.root, LISTS)
        for line in read_text(voc.root / LISTS.replace("*", split)).split("\n")
    }
    unlisted = [name for name in voc.images if name not in listed]
    return note_if_any("images in none of the lists, passed over", unlisted)


def find_image(voc: VocFolder, name: str, file_name: str) -> Path:
    """Finds the only image of a name; among several, the one with the annotation's `file_name`.

    Raises:
        InputError: if there is none, or several are left.
    """
    candidates = voc.images.get(name, [])
    if len(candidates) == 1:
        return candidates[0]
    named = [path for path in candidates if path.name == file_name]
    if named:
        return named[0]
    if candidates:
        names = ", ".join(path.name for path in candidates)
        raise InputError(f"'{voc.images_in}' has several images called {quote(name)} ({names}): keep one")
    raise InputError(f"'{voc.images_in}' has no image {quote(name)}, which its list or annotation names")
