"""What a YOLO folder says of itself: where the images of each split are, their labels, and the classes' names."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ssdir.data.folders import files_below, visible
from ssdir.data.images import only_images
from ssdir.data.split_files import missing_split
from ssdir.data.table_builder import SPLITS, check_names, divide, read_names, split_of
from ssdir.documents import read_lines
from ssdir.errors import InputError

MAX_UNNAMED = 100_000
"""So many classes may be called by their numbers; more are a mistake in the labels."""

_YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")


@dataclass(frozen=True)
class YoloFolder:
    """A YOLO data set before its labels are read.

    Attributes:
        root: its folder.
        described_by: the file that names the classes, if any.
        names: of the classes, or None if they only have numbers.
        splits: the folders, or lists of images, of each.
        undivided: the folder of all images, where there are no splits.
        keypoints: how many numbers follow the box in a label of poses.
    """

    root: Path
    described_by: Path | None
    names: list[str] | None
    splits: dict[str, list[Path]] = field(default_factory=dict)
    undivided: Path | None = None
    keypoints: int = 0


def describe(root: Path) -> YoloFolder:
    """Reads the `data.yaml`, or looks at the folders.

    Raises:
        InputError: if the `data.yaml` or the list of classes is broken.
    """
    path = find_yaml(root)
    return _from_folders(root) if path is None else _from_yaml(root, path)


def find_yaml(root: Path) -> Path | None:
    """A file of one of the usual names, or the only one that names classes and a split."""
    usual = next((root / name for name in _YAML_NAMES if (root / name).is_file()), None)
    if usual is not None:
        return usual
    candidates = []
    for path in sorted([*root.glob("*.yaml"), *root.glob("*.yml")]):
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            continue
        if isinstance(content, dict) and {"names", "nc"} & content.keys() and {*SPLITS} & content.keys():
            candidates.append(path)
    return candidates[0] if len(candidates) == 1 else None


def _from_yaml(root: Path, path: Path) -> YoloFolder:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}: not valid YAML{line}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable ({error})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} must be a mapping with train, val and names")
    base = path.parent / str(content.get("path") or "")
    # Published files name a folder of the machine they were made on, or of the tool that downloads them.
    base = base if base.is_dir() else path.parent
    splits = {}
    for name in SPLITS:
        entries = content.get(name)
        if entries:
            entries = entries if isinstance(entries, list) else [entries]
            splits[name] = [_resolve(base, entry, f"{path}: {name}") for entry in entries]
    if not splits:
        raise InputError(f"{path} says neither where train nor val nor test is")
    return YoloFolder(root, path, _yaml_names(content, path), splits, keypoints=_yaml_keypoints(content, path))


def _resolve(base: Path, entry: Any, where: str) -> Path:
    if not isinstance(entry, str):
        raise InputError(f"{where} must be a folder, a list of folders or a text file, got {entry!r:.60}")
    place = base / entry
    # A common exporter writes '../train/images' for what is in 'train/images'.
    inside = base / entry.removeprefix("../")
    return inside if not place.exists() and inside.exists() else place


def _is_yaml(path: Path | None) -> bool:
    return path is not None and path.suffix in (".yaml", ".yml")


def _yaml_names(content: dict[str, Any], path: Path) -> list[str] | None:
    names, count = content.get("names"), content.get("nc")
    if names is None:
        if isinstance(count, int) and not 0 < count <= MAX_UNNAMED:
            raise InputError(f"{path}: nc must be 1 ... {MAX_UNNAMED}, got {count}")
        return [str(i) for i in range(count)] if isinstance(count, int) else None
    if isinstance(names, dict):
        try:
            names = {int(key): name for key, name in names.items()}
        except (TypeError, ValueError):
            raise InputError(f"{path}: the keys of names must be the classes' numbers") from None
        if sorted(names) != list(range(len(names))):
            raise InputError(f"{path}: the keys of names must be 0 ... {len(names) - 1}, each once")
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list):
        raise InputError(f"{path}: names must be a list, or a mapping from number to name, got {names!r:.60}")
    names = [str(name) for name in names]
    check_names(names, str(path))
    if count is not None and count != len(names):
        listed = f"{len(names)} ({names[0]} ... {names[-1]})"
        raise InputError(f"{path}: nc is {count!r:.20}, but names has {listed}: correct one of them")
    return names


def _yaml_keypoints(content: dict[str, Any], path: Path) -> int:
    shape = content.get("kpt_shape")
    if shape is None:
        return 0
    if not (isinstance(shape, list) and len(shape) == 2 and all(isinstance(side, int) for side in shape)):
        raise InputError(f"{path}: kpt_shape must be [number of keypoints, 2 or 3], got {shape!r:.60}")
    return int(shape[0] * shape[1])


def _from_folders(root: Path) -> YoloFolder:
    path = next((p for p in (root / "classes.txt", root / "labels" / "classes.txt") if p.is_file()), None)
    names = None if path is None else read_names(path)
    images = root / "images"
    folders = _subfolders(images) if images.is_dir() else _subfolders(root)
    if not images.is_dir():
        folders = [folder / "images" for folder in folders if (folder / "images").is_dir()]
    stands_for = [split_of(_split_folder(folder).name) for folder in folders]
    if images.is_dir() and not {*stands_for} & {*SPLITS}:
        return YoloFolder(root, path, names, undivided=images)
    splits = {}
    for name, folder in zip(stands_for, folders, strict=True):
        # train2014 beside train2017 keep their own names.
        splits[name if stands_for.count(name) == 1 else _split_folder(folder).name] = [folder]
    return YoloFolder(root, path, names, splits)


def _split_folder(folder: Path) -> Path:
    return folder.parent if folder.name == "images" else folder


def _subfolders(root: Path) -> list[Path]:
    return sorted(path for path in visible(root.iterdir()) if path.is_dir())


def label_folders(root: Path) -> list[Path]:
    """The folders of labels of a data set without a `data.yaml`."""
    if not root.is_dir():
        return []
    if (root / "images").is_dir():
        return [root / "labels"]
    return [path / "labels" for path in _subfolders(root) if (path / "images").is_dir()]


# Images ---------------------------------------------------------------------------------------------------


def all_images(found: YoloFolder) -> list[Path]:
    """The images of all splits that are there."""
    places = (
        [found.undivided] if found.undivided else [place for several in found.splits.values() for place in several]
    )
    return [image for place in places if place.exists() for image in list_images(place)]


def split_images(found: YoloFolder, split: str, notes: list[str]) -> list[Path]:
    """The images of a split, each once; adds to the notes.

    Raises:
        InputError: if there is no such split, or a folder, list or image is missing, or has no images.
    """
    if found.undivided is not None:
        by_name = {relative_name(image, found.root): image for image in list_images(found.undivided)}
        return [by_name[name] for name in divide(list(by_name), split, f"'{found.root}'")]
    places = found.splits.get(split) or [
        place for several in found.splits.values() for place in several if _split_folder(place).name == split
    ]
    if not places:
        where = (
            "name its folder in data.yaml" if _is_yaml(found.described_by) else "give it a folder, or a data.yaml"
        )
        raise missing_split(found.root, split, list(found.splits), where)
    same = [name for name, others in found.splits.items() if name != split and others == places]
    if same:
        notes.append(f"{split} and {same[0]} are the same images: what is measured on one is known from the other")
    listed = [image for place in places for image in list_images(place)]
    images = list(dict.fromkeys(listed))
    if len(images) < len(listed):
        notes.append(f"images that are in {split} more than once, taken once: {len(listed) - len(images)}")
    return images


def list_images(place: Path) -> list[Path]:
    """The images in a folder, sorted, or those that a text file lists."""
    if place.is_file():
        return _listed_images(place)
    if not place.is_dir():
        raise InputError(
            f"'{place}' does not exist: it should be a folder of images, or a text file that lists some"
        )
    images = only_images(files_below(place))
    if not images:
        raise InputError(f"'{place}' has no images")
    return images


def _listed_images(path: Path) -> list[Path]:
    images = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line:
            continue
        image = path.parent / line
        if not image.is_file():
            raise InputError(f"{path}: line {number} lists image '{line:.100}', which does not exist")
        images.append(image)
    if not images:
        raise InputError(f"{path} lists no images")
    return images


def label_file(image: Path) -> Path:
    """In `labels` for the last `images` on the way; beside the image, if there is none."""
    parts = list(image.parent.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts) / f"{image.stem}.txt"


def orphans_of(found: YoloFolder, split: str, labels: dict[Path, Path]) -> list[Path]:
    """Label files in the split's folders whose image is not there."""
    places = [found.undivided] if found.undivided is not None else found.splits.get(split, [])
    orphans = []
    for place in places:
        if not place.is_dir() or "images" not in place.parts:
            continue
        known = labels.keys() | {label_file(image) for image in list_images(place)}
        folder = label_file(place / "any.jpg").parent
        files = (path for path in visible(files_below(folder)) if path.suffix == ".txt")
        orphans += [path for path in files if path not in known and path.name != "classes.txt"]
    return sorted(orphans)


def relative_name(path: Path, root: Path) -> str:
    """As the table names an image; absolute, where a `data.yaml` leads out of the root."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path.absolute())
