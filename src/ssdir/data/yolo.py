"""YOLO folders: a text file of boxes beside each image, in `labels/` where the image is in `images/`.

Either a `data.yaml` says where the splits are (`train`, `val`, `test`: a folder, several, or a text file that
lists images) and what the classes are called (`names`: a list, or a mapping from number to name). Or there is
none, and the folders themselves tell: `images/<split>/` and `labels/<split>/`, or `<split>/images/` and
`<split>/labels/`, where a folder such as `train2017` or `valid` is the split whose name it starts with; and
`classes.txt` has the names, or the classes are called by their numbers.

Images that lie in `images/` without any such folder are divided: see `table_builder.divide`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ssdir.data.annotations import AnnotationTable
from ssdir.data.images import IMAGE_SUFFIXES, image_size
from ssdir.data.table_builder import SPLITS, TableBuilder, check_names, divide, read_lines, read_names, split_of
from ssdir.errors import InputError

_YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")

# Boxes may reach out of their image, but none is twice as far from its corner as it is large: that is pixels.
_LARGEST = 2.0


@dataclass(frozen=True)
class _Folder:
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


def is_yolo(root: str | Path) -> bool:
    """Whether a folder has YOLO's layout."""
    folder = Path(root)
    return _find_yaml(folder) is not None or any(any(labels.rglob("*.txt")) for labels in _label_folders(folder))


def yolo_splits(root: str | Path) -> list[str]:
    """The splits whose images are there; train, val and test, where the images are to be divided.

    Raises:
        InputError: if there is a `data.yaml` that can't be read.
    """
    found = _describe(Path(root))
    if found.undivided is not None:
        return list(SPLITS)
    return [name for name, places in found.splits.items() if all(place.exists() for place in places)]


def read_yolo(root: str | Path, split: str) -> AnnotationTable:
    """Reads a split. An image without a label file has no objects; how many there are is noted.

    Boxes refer to the picture as seen, turned as its EXIF orientation says, which is how the tools that train on
    this layout load it. They are kept as annotated, also where they reach out of the image. Of a polygon, or a
    rotated box, the tight box is taken; a sixth number, the confidence in predicted boxes, is not.

    Raises:
        InputError: if a folder, file or listed image is missing, or no image has a label file; if the
            `data.yaml` is broken; if a line has too few numbers, an unknown class or no relative coordinates (it
            names file and line).
    """
    folder = Path(root)
    if not folder.is_dir():
        raise InputError(f"data folder '{root}' does not exist")
    found, notes = _describe(folder), list[str]()
    images = _split_images(found, split, notes)
    names = found.names if found.names is not None else _numbers(found)
    rows, labels, unlabelled, extra = TableBuilder(names), dict[Path, Path](), list[Path](), 0
    for image in images:
        height, width = image_size(image)
        label = _label_file(image)
        if label in labels:
            raise InputError(
                f"'{image}' and '{labels[label]}' share the label file '{label}': rename one of the two"
            )
        labels[label] = image
        rows.add_image(_relative(image, folder), (height, width))
        if not label.is_file():
            unlabelled.append(image)
            continue
        for number, line in enumerate(read_lines(label), start=1):
            values = line.split()
            if not values:
                continue
            where = f"{label}: line {number}"
            x1, y1, x2, y2 = _parse_box(values, found.keypoints, where)
            category = _parse_class(values[0], names, found.described_by, where)
            rows.add_object(category, (x1 * width, y1 * height, x2 * width, y2 * height))
            extra += len(values) == 6
    if len(unlabelled) == len(images):
        expected = _label_file(images[0])
        raise InputError(
            f"'{root}': none of the {len(images)} images of {split} has a label file ('{expected}', ...)"
        )
    notes += _notes(unlabelled, extra, _orphans(found, split, labels))
    sources = [label for label in labels if label.is_file()]
    return rows.build(folder, [*([found.described_by] if found.described_by else []), *sources], notes)


def _notes(unlabelled: Sequence[Path], extra: int, orphans: Sequence[Path]) -> list[str]:
    notes = []
    if unlabelled:
        notes.append(
            f"images without a label file, taken as without objects: {len(unlabelled)} ('{unlabelled[0]}')"
        )
    if orphans:
        notes.append(f"label files without an image, passed over: {len(orphans)} ('{orphans[0]}')")
    if extra:
        notes.append(f"lines with a sixth number (a confidence?), which was passed over: {extra}")
    return notes


# Lines ----------------------------------------------------------------------------------------------------
# Parsed here, not by supervision: its reader names neither file nor line, takes any class number, and loads a
# whole folder at once.


def _parse_box(values: list[str], keypoints: int, where: str) -> tuple[float, float, float, float]:
    """The relative xyxy of a line's box, or around its polygon."""
    if len(values) < 5:
        raise InputError(f"{where} must be class, x_center, y_center, width, height: 5 numbers, got {len(values)}")
    try:
        numbers = [float(value) for value in values[1:]]
    except ValueError as error:
        raise InputError(f"{where}: not a number ({error})") from None
    if keypoints and len(values) == 5 + keypoints:
        numbers = numbers[:4]
    bad = next(
        (number for number in numbers[: 4 if len(values) == 6 else None] if not abs(number) <= _LARGEST), None
    )
    if bad is not None:
        raise InputError(f"{where}: coordinates must be relative to the image's size, 0 ... 1, got {bad:g}")
    if len(numbers) <= 5:
        x, y, w, h = numbers[:4]
        if min(w, h) < 0:
            raise InputError(f"{where}: width and height must not be negative, got {w:g} x {h:g}")
        return x - w / 2, y - h / 2, x + w / 2, y + h / 2
    if len(numbers) % 2:
        raise InputError(
            f"{where}: a polygon must be class, then pairs of x and y, got {len(numbers)} coordinates"
        )
    return min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])


def _parse_class(text: str, names: list[str], described_by: Path | None, where: str) -> int:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value.is_integer():
        raise InputError(f"{where}: the class must be a whole number, got '{text:.40}'")
    if not 0 <= value < len(names):
        source = f"{described_by} names {len(names)}" if described_by else "numbers start at 0"
        raise InputError(f"{where}: class {value:.0f} is out of range ({source})")
    return int(value)


def _numbers(found: _Folder) -> list[str]:
    """The classes' numbers as their names, up to the largest in any split, so that all splits agree."""
    largest = -1
    images = [image for places in _places(found) for place in places for image in _list_images(place)]
    for label in sorted({_label_file(image) for image in images}):
        for number, line in enumerate(read_lines(label) if label.is_file() else [], start=1):
            if line:
                try:
                    largest = max(largest, int(float(line.split()[0])))
                except (ValueError, OverflowError):
                    raise InputError(
                        f"{label}: line {number}: the class must be a whole number, got '{line.split()[0]:.40}'"
                    ) from None
    return [str(i) for i in range(largest + 1)]


# Folders --------------------------------------------------------------------------------------------------


def _describe(root: Path) -> _Folder:
    path = _find_yaml(root)
    return _from_folders(root) if path is None else _from_yaml(root, path)


def _find_yaml(root: Path) -> Path | None:
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


def _from_yaml(root: Path, path: Path) -> _Folder:
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
    return _Folder(root, path, _yaml_names(content, path), splits, keypoints=_yaml_keypoints(content, path))


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
    names = content.get("names")
    if names is None:
        count = content.get("nc")
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
    return names


def _yaml_keypoints(content: dict[str, Any], path: Path) -> int:
    shape = content.get("kpt_shape")
    if shape is None:
        return 0
    if not (isinstance(shape, list) and len(shape) == 2 and all(isinstance(side, int) for side in shape)):
        raise InputError(f"{path}: kpt_shape must be [number of keypoints, 2 or 3], got {shape!r:.60}")
    return int(shape[0] * shape[1])


def _from_folders(root: Path) -> _Folder:
    path = next((p for p in (root / "classes.txt", root / "labels" / "classes.txt") if p.is_file()), None)
    names = None if path is None else read_names(path)
    images = root / "images"
    folders = _subfolders(images) if images.is_dir() else _subfolders(root)
    if not images.is_dir():
        folders = [folder / "images" for folder in folders if (folder / "images").is_dir()]
    stands_for = [split_of(_split_folder(folder).name) for folder in folders]
    if images.is_dir() and not {*stands_for} & {*SPLITS}:
        return _Folder(root, path, names, undivided=images)
    splits = {}
    for name, folder in zip(stands_for, folders, strict=True):
        # train2014 beside train2017 keep their own names.
        splits[name if stands_for.count(name) == 1 else _split_folder(folder).name] = [folder]
    return _Folder(root, path, names, splits)


def _split_folder(folder: Path) -> Path:
    return folder.parent if folder.name == "images" else folder


def _subfolders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _label_folders(root: Path) -> list[Path]:
    """The folders of labels of a data set without a `data.yaml`."""
    if not root.is_dir():
        return []
    if (root / "images").is_dir():
        return [root / "labels"]
    return [path / "labels" for path in _subfolders(root) if (path / "images").is_dir()]


# Images ---------------------------------------------------------------------------------------------------


def _places(found: _Folder) -> list[list[Path]]:
    return list(found.splits.values()) if found.undivided is None else [[found.undivided]]


def _split_images(found: _Folder, split: str, notes: list[str]) -> list[Path]:
    if found.undivided is not None:
        by_name = {_relative(image, found.root): image for image in _list_images(found.undivided)}
        return [by_name[name] for name in divide(list(by_name), split, f"'{found.root}'")]
    places = found.splits.get(split) or [
        place for several in found.splits.values() for place in several if _split_folder(place).name == split
    ]
    if not places:
        where = (
            "name its folder in data.yaml" if _is_yaml(found.described_by) else "give it a folder, or a data.yaml"
        )
        raise InputError(f"'{found.root}' has no split '{split}' (there is {', '.join(found.splits)}): {where}")
    same = [name for name, others in found.splits.items() if name != split and others == places]
    if same:
        notes.append(f"{split} and {same[0]} are the same images: what is measured on one is known from the other")
    listed = [image for place in places for image in _list_images(place)]
    images = list(dict.fromkeys(listed))
    if len(images) < len(listed):
        notes.append(f"images that are in {split} more than once, taken once: {len(listed) - len(images)}")
    return images


def _list_images(place: Path) -> list[Path]:
    """The images in a folder, or those that a text file lists, each once."""
    if place.is_file():
        return _listed_images(place)
    if not place.is_dir():
        raise InputError(
            f"'{place}' does not exist: it should be a folder of images, or a text file that lists some"
        )
    images = sorted(
        path
        for path in place.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
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


def _label_file(image: Path) -> Path:
    """In `labels` for the last `images` on the way; beside the image, if there is none."""
    parts = list(image.parent.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts) / f"{image.stem}.txt"


def _orphans(found: _Folder, split: str, labels: dict[Path, Path]) -> list[Path]:
    """Label files in the split's folders whose image is not there."""
    places = [found.undivided] if found.undivided is not None else found.splits.get(split, [])
    orphans = []
    for place in places:
        if not place.is_dir() or "images" not in place.parts:
            continue
        known = labels.keys() | {_label_file(image) for image in _list_images(place)}
        folder = _label_file(place / "any.jpg").parent
        orphans += [path for path in folder.rglob("*.txt") if path not in known and path.name != "classes.txt"]
    return sorted(orphans)


def _relative(path: Path, root: Path) -> str:
    """As the table names an image; absolute, where a `data.yaml` leads out of the root."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path.absolute())
