"""Reads YOLO folders: a text file of boxes per image, in `labels/` where the image is in `images/`, or beside it.

A `data.yaml` says where the splits are (`train`, `val`, `test`: a folder, several, or a text file that lists
images) and what the classes are called (`names`: a list, or a mapping from number to name); or Darknet's
`obj.data` does. Without either, or where it only names classes, the folders are the splits: `images/<split>/` and
`labels/<split>/`, or `<split>/images/` and `<split>/labels/`, or `<split>/` with both, where a folder such as
`train2017` or `valid` is the split whose name it starts with; and `classes.txt` has the names, or the classes have
their numbers for names.

Images that lie in `images/`, or with their labels in the folder itself, are divided: see `splits.divide`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from ssdir.data.annotations import AnnotationTable
from ssdir.data.folders import files_below, find_folder, is_there
from ssdir.data.images import image_size
from ssdir.data.readers.faults import Faults, note_if_any
from ssdir.data.readers.layout import Layout, labels_beside_images
from ssdir.data.readers.splits import SPLITS
from ssdir.data.readers.table_builder import TableBuilder
from ssdir.data.readers.yolo.darknet import find_darknets
from ssdir.data.readers.yolo.data_yaml import find_yamls
from ssdir.data.readers.yolo.folder import (
    YoloFolder,
    all_images,
    label_folders,
    open_yolo_folder,
    places_of,
    relative_name,
    split_images,
)
from ssdir.data.readers.yolo.labels import label_file, passed_over
from ssdir.data.readers.yolo.lines import (
    SCORED_BOX,
    Box,
    find_keypoints,
    parse_box,
    parse_class,
    parse_numbers,
    parse_unnamed_class,
)
from ssdir.documents import read_lines
from ssdir.errors import InputError

_MAX_LABEL_BYTES = 1 << 24
# At most this many text files are opened to recognise labels; those of images without objects are empty.
_MAX_TRIED = 100


def is_yolo(root: Path) -> bool:
    """Returns whether a folder has YOLO's layout."""
    if find_yamls(root):
        return True
    try:
        return any(path.suffix == ".txt" for labels in label_folders(root) for path in files_below(labels))
    except InputError:  # The error is reported when the data set is read.
        return True


def is_darknet(root: Path) -> bool:
    """Returns whether a folder has Darknet's `obj.data`."""
    return bool(find_darknets(root))


def is_yolo_beside(root: Path) -> bool:
    """Returns whether a folder, or those in it, have images with YOLO's labels beside them."""
    written = (path for path in labels_beside_images(root, ".txt") if path.is_file() and path.stat().st_size)
    return any(_holds_a_label(path) for path in islice(written, _MAX_TRIED))


def _holds_a_label(path: Path) -> bool:
    """Returns whether the first line of a text file is a box, and not, say, a caption."""
    try:
        first = next((line.split() for line in read_lines(path, _MAX_LABEL_BYTES) if line), [])
        parse_numbers(first, "")
        parse_unnamed_class(first[0], "")
    except InputError:
        return False
    return True


def yolo_splits(root: Path) -> list[str]:
    """Lists the splits that are named, even if missing; train, val and test where the images are to be divided.

    Raises:
        InputError: if the `data.yaml` or `obj.data` can't be read.
    """
    yolo = open_yolo_folder(root)
    return list(SPLITS) if yolo.undivided is not None else list(yolo.splits)


def read_yolo(root: Path, split: str) -> AnnotationTable:
    """Reads a split. Images without a label file have no objects; a note counts them.

    Boxes are assumed to refer to the image as shown, with its EXIF orientation applied. They are kept as
    annotated, even if they extend beyond the image. Polygons and rotated boxes become their tight boxes; of poses,
    the box is read. The confidence and track of a prediction are ignored, and a note counts such lines.

    Raises:
        InputError: if a folder, file or listed image is missing, images can't be read, or no image of the whole
            data set has a label file; if the `data.yaml` is broken; if a line has too few numbers, an unknown
            class or no relative coordinates. It names files and lines, up to ten faults at once.
    """
    folder = find_folder(root)
    yolo, notes = open_yolo_folder(folder), list[str]()
    images = split_images(yolo, split, notes)
    faults = Faults(f"'{root}', split {split}")
    lines = _LabelLines(yolo, faults)
    rows, labels, unlabelled = TableBuilder(lines.names), dict[Path, Path](), list[Path]()
    for image in images:
        label = label_file(image, yolo.base)
        if label in labels:
            faults.add(f"'{image}' and '{labels[label]}' share the label file '{label}': rename one of the two")
            continue
        labels[label] = image
        try:
            size = image_size(image)
        except InputError as error:
            faults.add(f"{error}: mend it, or remove it and its labels")
            continue
        rows.add_image(relative_name(image, folder), size)
        if not is_there(label):
            unlabelled.append(image)
            continue
        for category, box in lines.objects(label):
            rows.add_object(category, [side * scale for side, scale in zip(box, size[::-1] * 2, strict=True)])
    if len(unlabelled) == len(images) and not _has_labels(yolo):
        expected = label_file(images[0], yolo.base)
        faults.add(f"'{root}': none of its images, {len(images)} in {split}, has a label file ('{expected}', ...)")
    faults.stop_at_any()
    notes += note_if_any("images without a label file, taken as without objects", unlabelled)
    notes += [*passed_over(places_of(yolo, split), yolo.base, labels), *lines.notes()]
    sources = [label for label in labels if label.is_file()]
    return rows.build(
        folder, [*([yolo.described_by] if yolo.described_by else []), *sources], notes, sizes_from_files=True
    )


def _has_labels(yolo: YoloFolder) -> bool:
    """Returns whether any image of any split has a label file."""
    return any(label_file(image, yolo.base).is_file() for image in all_images(yolo))


class _LabelLines:
    """The lines of the label files of a data set, each of which is read only once, even if needed in advance.

    Without names, all label files of all splits are read for the classes' numbers first. If nothing says whether
    lines longer than a box are poses or polygons, all files are read once the first such line comes.

    Attributes:
        names: names of the classes.
    """

    def __init__(self, yolo: YoloFolder, faults: Faults) -> None:
        self._yolo, self._faults = yolo, faults
        self._kept: dict[Path, list[str]] = {}
        self._taken: set[Path] = set()
        self._keypoints = yolo.keypoints
        self._num_scored = self._num_poses = self._num_ambiguous = 0
        self.names = yolo.names if yolo.names is not None else self._numbers()
        described_by = yolo.described_by
        self._source = f"{described_by} names {len(self.names)}" if described_by else "numbers start at 0"

    def objects(self, label: Path) -> Iterator[tuple[int, Box]]:
        """Yields the class and the relative xyxy of each line; broken lines are added to the faults."""
        lines = list[str]()
        with self._faults.collecting():
            lines = self._kept.pop(label) if label in self._kept else read_lines(label, _MAX_LABEL_BYTES)
        self._taken.add(label)
        for values, where in _rows(label, lines):
            try:
                numbers = parse_numbers(values, where)
                if len(numbers) > SCORED_BOX and self._keypoints is None:
                    self._keypoints = 0  # The keypoints are inferred only once, even if that fails.
                    self._keypoints, self._num_ambiguous = find_keypoints(self._long_rows(label, lines))
                box = parse_box(numbers, self._keypoints or 0, where)
                category = parse_class(values[0], len(self.names), self._source, where)
            except InputError as error:
                self._faults.add(str(error))
                continue
            self._num_scored += len(numbers) == SCORED_BOX
            self._num_poses += len(numbers) > SCORED_BOX and self._yolo.keypoints is None and bool(self._keypoints)
            yield category, box

    def notes(self) -> list[str]:
        """Returns notes on what was ignored in the lines, or inferred from their form."""
        counts = {
            "lines with a sixth number (a confidence?), or a track after it, passed over": self._num_scored,
            "poses by the form of their lines, as nothing gives kpt_shape; boxes were taken": self._num_poses,
            "lines that might be poses, but most are polygons; tight boxes were taken": self._num_ambiguous,
        }
        return [f"{what}: {number}" for what, number in counts.items() if number]

    def _numbers(self) -> list[str]:
        """Returns the classes' numbers as names, up to the largest in any split, so that all splits agree."""
        largest = -1
        for label in self._label_files():
            with self._faults.collecting():
                for values, where in _rows(label, self._keep(label)):
                    largest = max(largest, parse_unnamed_class(values[0], where))
        return [str(i) for i in range(largest + 1)]

    def _long_rows(self, label: Path, lines: list[str]) -> Iterator[tuple[list[float], str]]:
        """Yields the numbers of lines that are longer than a box, of this file and of those not read yet."""
        for other in [label, *(path for path in self._label_files() if path not in self._taken)]:
            for values, where in _rows(other, lines if other == label else self._keep(other)):
                with Faults("").collecting():  # A broken line is named when it is read.
                    if len(numbers := parse_numbers(values, where)) > SCORED_BOX:
                        yield numbers, where

    def _label_files(self) -> list[Path]:
        return sorted({label_file(image, self._yolo.base) for image in all_images(self._yolo)})

    def _keep(self, label: Path) -> list[str]:
        if label not in self._kept:
            self._kept[label] = read_lines(label, _MAX_LABEL_BYTES) if label.is_file() else []
        return self._kept[label]


def _rows(label: Path, lines: Sequence[str]) -> Iterator[tuple[list[str], str]]:
    """Yields the values of each line of a label file that is not empty, and file and line for messages."""
    for number, line in enumerate(lines, start=1):
        if line:
            yield line.split(), f"{label}: line {number}"


LAYOUT = Layout("YOLO", is_yolo, yolo_splits, read_yolo)
DARKNET_LAYOUT = Layout("Darknet", is_darknet, yolo_splits, read_yolo)
BESIDE_IMAGES_LAYOUT = Layout("YOLO beside images", is_yolo_beside, yolo_splits, read_yolo)
