"""Finds the images of each split of a YOLO folder, and the classes' names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from ssdir.data.folders import files_below, is_there, visible
from ssdir.data.image_files import is_image_name, only_images, unreadable_pictures
from ssdir.data.readers.faults import Faults, note_if_any
from ssdir.data.readers.file_names import PathEnds
from ssdir.data.readers.splits import SPLITS, divide, missing_split, standard_split
from ssdir.data.readers.table_builder import read_names
from ssdir.data.readers.yolo.darknet import Darknet, find_darknets, read_darknet
from ssdir.data.readers.yolo.data_yaml import SPLIT_KEYS, DataYaml, find_yamls, read_data_yaml
from ssdir.data.readers.yolo.labels import NAMES_FILES, label_file
from ssdir.documents import read_text
from ssdir.errors import EmptySplitError, InputError
from ssdir.formatting import counted, quote

# Paths in messages are useless if cut, but some entries are no paths at all.
_MAX_SHOWN = 300


@dataclass(frozen=True)
class Place:
    """A folder of images, or a text file that lists some.

    Attributes:
        path: its path, existing or not.
        named_by: the file and key that name it, for messages; empty if no file does.
        is_matched: whether it was matched by the end of its path only.
    """

    path: Path
    named_by: str = ""
    is_matched: bool = False


@dataclass(frozen=True)
class YoloFolder:
    """A YOLO data set before its labels are read.

    Attributes:
        root: its folder.
        described_by: the `data.yaml` or `obj.data`, if there is one.
        names: names of the classes, or None if they only have numbers.
        base: the folder that paths are relative to; labels are searched for within it.
        splits: the folders or lists of each split.
        undivided: the folder of all images, where there are no splits.
        keypoints: how many numbers follow the box in a label of poses; None if unknown.
        loose: images that lie beside the folders of splits.
    """

    root: Path
    described_by: Path | None
    names: list[str] | None
    base: Path
    splits: dict[str, list[Place]] = field(default_factory=dict)
    undivided: Path | None = None
    keypoints: int | None = None
    loose: Sequence[Path] = ()


def open_yolo_folder(root: Path) -> YoloFolder:
    """Reads the `data.yaml` or `obj.data`, or looks at the folders.

    Raises:
        InputError: if the `data.yaml`, `obj.data` or list of classes is broken, or there are several of them.
    """
    files = find_yamls(root) or find_darknets(root)
    if len(files) > 1:
        names = ", ".join(path.name for path in files)
        raise InputError(f"'{root}' is described by several files ({names}): keep one of them there")
    if not files:
        return _from_folders(root)
    if files[0].suffix == ".data":
        return _from_darknet(root, read_darknet(files[0]))
    return _from_yaml(root, read_data_yaml(files[0]))


def _from_yaml(root: Path, content: DataYaml) -> YoloFolder:
    ends, places = PathEnds(root), dict[str, list[Place]]()
    for key, entries in content.entries.items():
        several = [_resolve(content.base, entry, f"{content.file}: {key}", ends) for entry in entries]
        # Other keys that begin like a split may be anything.
        if key in SPLIT_KEYS or all(os.path.exists(place.path) for place in several):
            places[key] = several
    if not places:
        divided = _from_folders(root)
        return replace(divided, described_by=content.file, names=content.names, keypoints=content.keypoints)
    return YoloFolder(
        root, content.file, content.names, content.base, _by_split(places), keypoints=content.keypoints
    )


def _from_darknet(root: Path, content: Darknet) -> YoloFolder:
    ends = PathEnds(root)
    places = {
        key: [_resolve(root, entry, f"{content.file}: {key}", ends)] for key, entry in content.entries.items()
    }
    return YoloFolder(root, content.file, content.names, root, _by_split(places))


def _resolve(base: Path, entry: str, key: str, ends: PathEnds) -> Place:
    """Finds the folder or list that a key names: at that path, or by the end of the path."""
    named_by = f"{key} names {quote(entry)}"
    # A common exporter writes '../train/images' for what is in 'train/images'.
    above, inside = base / entry, base / entry.removeprefix("../")
    if os.path.exists(inside):
        return Place(inside, named_by, is_matched=inside != above and os.path.exists(above))
    if os.path.exists(above):
        return Place(above, named_by)
    matched = ends.find_folder(entry) or ends.find_file(entry)
    return Place(base / entry, named_by) if matched is None else Place(matched, named_by, is_matched=True)


def _by_split(places: dict[str, list[Place]]) -> dict[str, list[Place]]:
    """Groups places by the split that a name stands for; names that stand for the same one are kept.

    `train2014` beside `train2017` are two splits, but `val` and `valid` that lead to the same images are one.
    """
    splits: dict[str, list[Place]] = {}
    for name, several in places.items():
        split = standard_split(name)
        others = [other for other in places if standard_split(other) == split]
        paths = [place.path for place in several]
        if all([place.path for place in places[other]] == paths for other in others):
            splits[split] = several
        else:
            splits[name] = several
    return splits


# Folders --------------------------------------------------------------------------------------------------


def _from_folders(root: Path) -> YoloFolder:
    images = root / "images"
    above = images if images.is_dir() else root
    folders = {path.name: path for path in _subfolders(above)}
    if not images.is_dir():
        inner = {name: folder / "images" for name, folder in folders.items() if (folder / "images").is_dir()}
        folders = inner or {name: folder for name, folder in folders.items() if standard_split(name) in SPLITS}
    is_divided = bool(folders) and (not images.is_dir() or any(standard_split(name) in SPLITS for name in folders))
    places = {name: [Place(folder)] for name, folder in folders.items()} if is_divided else {}
    described_by = _names_file(root, [above, *folders.values()])
    names = None if described_by is None else read_names(described_by)
    if not is_divided:
        return YoloFolder(root, described_by, names, root, undivided=above)
    loose = [path for path in _sorted_files(above) if is_image_name(path)]
    return YoloFolder(root, described_by, names, root, _by_split(places), loose=loose)


def _names_file(root: Path, image_folders: Sequence[Path]) -> Path | None:
    """Finds the file of the classes' names in the root, or where labels are; several must have the same names.

    Raises:
        InputError: if they don't.
    """
    labels = [label_file(folder / "any", root).parent for folder in image_folders]
    folders = dict.fromkeys([root, root / "labels", *labels, *image_folders])
    files = [folder / name for folder in folders for name in NAMES_FILES if is_there(folder / name)]
    for other in files[1:]:
        if read_names(other) != read_names(files[0]):
            raise InputError(f"{files[0]} and {other} name other classes: keep one of them")
    return files[0] if files else None


def _subfolders(root: Path) -> list[Path]:
    return sorted(path for path in visible(root.iterdir()) if path.is_dir())


def _sorted_files(folder: Path) -> list[Path]:
    return sorted(path for path in visible(folder.iterdir()) if path.is_file())


def label_folders(root: Path) -> list[Path]:
    """Lists the folders of labels of a data set without a `data.yaml`."""
    if not root.is_dir():
        return []
    if (root / "images").is_dir():
        return [root / "labels"]
    return [path / "labels" for path in _subfolders(root) if (path / "images").is_dir()]


def _folder_name(place: Place) -> str:
    """Returns the name of a split's folder: `train` for `train/images`."""
    return (place.path.parent if place.path.name == "images" else place.path).name


# Images ---------------------------------------------------------------------------------------------------


def all_images(yolo: YoloFolder) -> Iterator[Path]:
    """Yields the images of all splits that can be read."""
    places = (
        [Place(yolo.undivided)] if yolo.undivided else [p for several in yolo.splits.values() for p in several]
    )
    for place in places:
        faults = Faults(str(yolo.root))  # Faults of other splits are reported when those are read.
        with faults.collecting():
            yield from _images_of(place, yolo.root, faults, [])


def split_images(yolo: YoloFolder, split: str, notes: list[str]) -> list[Path]:
    """The images of a split, each once; adds to the notes.

    Raises:
        InputError: if there is no such split, or a folder, list or image is missing, or has no images.
    """
    if yolo.undivided is not None:
        images = _images_of(Place(yolo.undivided), yolo.root, Faults(""), notes)
        by_name = {relative_name(image, yolo.root): image for image in images}
        return [by_name[name] for name in divide(list(by_name), split, f"'{yolo.root}'")]
    places = yolo.splits.get(split) or [
        place for several in yolo.splits.values() for place in several if _folder_name(place) == split
    ]
    if not places:
        is_yaml = yolo.described_by is not None and yolo.described_by.suffix in (".yaml", ".yml")
        where = "name its folder in data.yaml" if is_yaml else "give it a folder, or a data.yaml"
        raise missing_split(yolo.root, split, list(yolo.splits), where)
    paths = [place.path for place in places]
    same = [name for name, others in yolo.splits.items() if name != split and [p.path for p in others] == paths]
    if same:
        notes.append(f"{split} and {same[0]} are the same images: what is measured on one is known from the other")
    loose = [relative_name(path, yolo.root) for path in yolo.loose]
    notes += note_if_any("images beside the folders of the splits, passed over", loose)
    return _images_once(yolo, split, places, notes)


def _images_once(yolo: YoloFolder, split: str, places: Sequence[Place], notes: list[str]) -> list[Path]:
    """Lists the images of places, each once."""
    faults = Faults(f"'{yolo.root}', split {split}")
    listed = list[Path]()
    for place in places:
        if place.is_matched:
            notes.append(f"{place.named_by}, matched with '{place.path}' by the end of the path")
        # The only place of a split may be empty, which is an error of its own kind.
        with faults.collecting() if len(places) > 1 else nullcontext():
            listed += _images_of(place, yolo.root, faults, notes)
    faults.stop_at_any()
    once: dict[str, Path] = {}
    for path in listed:
        once.setdefault(os.path.abspath(path), path)
    images = list(once.values())
    if len(images) < len(listed):
        notes.append(f"images that are in {split} more than once, taken once: {len(listed) - len(images)}")
    inside = [os.path.abspath(folder) for folder in (yolo.root, yolo.base)]
    outside = [path for path in images if not any(Path(os.path.abspath(path)).is_relative_to(at) for at in inside)]
    notes += note_if_any("images outside of the data set's folder, read all the same", outside)
    return images


def list_images(place: Path) -> list[Path]:
    """Lists the images in a folder and its subfolders, sorted.

    Raises:
        InputError: if there is no such folder, or it has no images.
    """
    return _images_of(Place(place), place, Faults(""), [])


def _images_of(place: Place, root: Path, faults: Faults, notes: list[str]) -> list[Path]:
    """Lists the images in a folder, sorted, or in a text file; adds to the faults and the notes."""
    path = place.path
    if os.path.isfile(path):
        return _listed_images(path, root, faults, notes)
    if not os.path.isdir(path):
        shown = quote(str(path), _MAX_SHOWN)
        what = f"{place.named_by}, but {shown}" if place.named_by else shown
        raise InputError(f"{what} does not exist: it should be a folder of images, or a text file that lists some")
    files = files_below(path)
    images, others = only_images(files), unreadable_pictures(files)
    if not images:
        detail = f", only {counted(len(others), 'picture')} of a kind that is not read" if others else ""
        raise EmptySplitError(f"'{path}' has no images{detail}")
    notes += note_if_any("pictures of a kind that is not read, passed over", others)
    return images


def _listed_images(path: Path, root: Path, faults: Faults, notes: list[str]) -> list[Path]:
    images, ends, moved, num_missing = list[Path](), PathEnds(root), list[str](), 0
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        listed = line.strip()
        if not listed:
            continue
        # A name may begin or end with a blank, but more likely the line does.
        here = next((name for name in (listed, line) if os.path.isfile(path.parent / name)), None)
        if here is not None:
            images.append(path.parent / here)
        elif (match := ends.find_file(listed)) is not None:
            images.append(match)
            moved.append(f"{path}: line {number}, {quote(listed)} is '{relative_name(match, root)}'")
        else:
            faults.add(f"{path}: line {number} lists image {quote(listed)}, which does not exist")
            num_missing += 1
    if not images and not num_missing:
        raise EmptySplitError(f"{path} lists no images")
    if moved:
        notes.append(
            f"listed images that are elsewhere, matched by the end of their paths: {len(moved)} ({moved[0]})"
        )
    return images


def places_of(yolo: YoloFolder, split: str) -> list[Path]:
    """Returns the folders of images, or lists, of a split."""
    return [yolo.undivided] if yolo.undivided is not None else [place.path for place in yolo.splits.get(split, [])]


def relative_name(path: Path, root: Path) -> str:
    """Returns the name of an image in the table; absolute, where it is not below the root."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path.absolute())
