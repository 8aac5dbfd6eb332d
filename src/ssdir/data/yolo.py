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
from pathlib import Path

from ssdir.data.annotations import AnnotationTable
from ssdir.data.folders import find_folder
from ssdir.data.images import image_size
from ssdir.data.table_builder import SPLITS, TableBuilder
from ssdir.data.yolo_folder import (
    MAX_UNNAMED,
    YoloFolder,
    all_images,
    describe,
    find_yaml,
    label_file,
    label_folders,
    orphans_of,
    relative_name,
    split_images,
)
from ssdir.documents import read_lines
from ssdir.errors import InputError

# Boxes may reach out of their image, but none is twice as far from its corner as it is large: that is pixels.
_LARGEST = 2.0

# Broken images named in one sentence.
_MAX_TOLD = 10


def is_yolo(root: str | Path) -> bool:
    """Whether a folder has YOLO's layout."""
    folder = Path(root)
    return find_yaml(folder) is not None or any(any(labels.rglob("*.txt")) for labels in label_folders(folder))


def yolo_splits(root: str | Path) -> list[str]:
    """The splits whose images are there; train, val and test, where the images are to be divided.

    Raises:
        InputError: if there is a `data.yaml` that can't be read.
    """
    found = describe(Path(root))
    if found.undivided is not None:
        return list(SPLITS)
    return [name for name, places in found.splits.items() if all(place.exists() for place in places)]


def read_yolo(root: str | Path, split: str) -> AnnotationTable:
    """Reads a split. An image without a label file has no objects; how many there are is noted.

    Boxes are taken to refer to the picture as seen, turned as its EXIF orientation says. They are kept as
    annotated, also where they reach out of the image. Of a polygon, or a rotated box, the tight box is taken; a
    sixth number, the confidence in predicted boxes, is not.

    Raises:
        InputError: if a folder, file or listed image is missing, images can't be read, or none has a label file;
            if the `data.yaml` is broken; if a line has too few numbers, an unknown class or no relative
            coordinates (it names file and line).
    """
    folder = find_folder(root)
    found, notes = describe(folder), list[str]()
    images = split_images(found, split, notes)
    lines = _LabelLines()
    names = found.names if found.names is not None else _numbers(found, lines)
    rows, labels, unlabelled, extra = TableBuilder(names), dict[Path, Path](), list[Path](), 0
    broken: list[str] = []
    for image in images:
        try:
            height, width = image_size(image)
        except InputError as error:
            broken.append(str(error))
            continue
        label = label_file(image)
        if label in labels:
            raise InputError(
                f"'{image}' and '{labels[label]}' share the label file '{label}': rename one of the two"
            )
        labels[label] = image
        rows.add_image(relative_name(image, folder), (height, width))
        if not label.is_file():
            unlabelled.append(image)
            continue
        for number, line in enumerate(lines.take(label), start=1):
            values = line.split()
            if not values:
                continue
            where = f"{label}: line {number}"
            x1, y1, x2, y2 = _parse_box(values, found.keypoints, where)
            category = _parse_class(values[0], names, found.described_by, where)
            rows.add_object(category, (x1 * width, y1 * height, x2 * width, y2 * height))
            extra += len(values) == 6
    if broken:
        raise InputError(_told(broken))
    if len(unlabelled) == len(images):
        expected = label_file(images[0])
        raise InputError(
            f"'{root}': none of the {len(images)} images of {split} has a label file ('{expected}', ...)"
        )
    notes += _notes(unlabelled, extra, orphans_of(found, split, labels))
    sources = [label for label in labels if label.is_file()]
    return rows.build(
        folder, [*([found.described_by] if found.described_by else []), *sources], notes, sizes_from_files=True
    )


def _told(broken: Sequence[str]) -> str:
    """All that can't be read in one sentence, so that nobody mends a folder picture by picture."""
    if len(broken) == 1:
        return f"{broken[0]}: mend it, or remove it and its labels"
    more = f"; and {len(broken) - _MAX_TOLD} more" if len(broken) > _MAX_TOLD else ""
    listed = "; ".join(broken[:_MAX_TOLD])
    return f"{len(broken)} images can't be read, mend them, or remove them and their labels: {listed}{more}"


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


def _class_number(text: str, where: str) -> int:
    try:
        value = int(float(text))
    except (ValueError, OverflowError):
        raise InputError(f"{where}: the class must be a whole number, got '{text:.40}'") from None
    if value >= MAX_UNNAMED:
        raise InputError(
            f"{where}: class {value:.6g} is out of range ({MAX_UNNAMED} classes may go without names)"
        )
    return value


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


class _LabelLines:
    """The lines of label files, each read once: without names, all are read for the classes' numbers first."""

    def __init__(self) -> None:
        self._kept: dict[Path, list[str]] = {}

    def keep(self, label: Path) -> list[str]:
        self._kept[label] = read_lines(label) if label.is_file() else []
        return self._kept[label]

    def take(self, label: Path) -> list[str]:
        return self._kept.pop(label) if label in self._kept else read_lines(label)


def _numbers(found: YoloFolder, lines: _LabelLines) -> list[str]:
    """The classes' numbers as their names, up to the largest in any split, so that all splits agree."""
    largest = -1
    for label in sorted({label_file(image) for image in all_images(found)}):
        for number, line in enumerate(lines.keep(label), start=1):
            if line:
                largest = max(largest, _class_number(line.split()[0], f"{label}: line {number}"))
    return [str(i) for i in range(largest + 1)]
