"""Reads Pascal VOC: `Annotations/<name>.xml`, `JPEGImages/<name>.*`, and lists in `ImageSets/Main/<split>.txt`.

Or the XML files lie beside the images, in one folder, or in one for each split (`train/`, `valid/`, `test/`).
Without lists or such folders the images are divided: see `splits.divide`. The categories are those of all
annotations of all splits, in alphabetical order as VOC has them; a `classes.txt`, which is not part of VOC,
may name them instead, in its own order and with those that do not occur.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from ssdir.console import reading
from ssdir.data.annotations import AnnotationTable
from ssdir.data.folders import is_there, visible
from ssdir.data.images import image_orientation, image_size
from ssdir.data.orientation import fit_to_picture, orientation_of_boxes, turned_note
from ssdir.data.readers.faults import Faults, note_if_any
from ssdir.data.readers.layout import Layout, labels_beside_images
from ssdir.data.readers.rotation import ROTATED
from ssdir.data.readers.table_builder import TableBuilder, read_names
from ssdir.data.readers.voc.folder import (
    LISTS,
    VocFolder,
    find_image,
    open_voc_folder,
    split_images,
    unlisted_note,
    voc_splits,
)
from ssdir.data.readers.voc.xml import VocAnnotation, read_annotation
from ssdir.errors import InputError, nearest
from ssdir.formatting import quote

# At most this many XML files, and bytes of each, are read to recognise VOC's.
_MAX_TRIED, _HEAD = 100, 4096


def is_voc(root: Path) -> bool:
    """Returns whether a folder has Pascal VOC's layout."""
    return (root / "JPEGImages").is_dir() and any(visible((root / "Annotations").rglob("*.xml")))


def is_voc_beside(root: Path) -> bool:
    """Returns whether a folder, or those in it, have images with VOC's XML beside them."""
    return any(_is_annotation(path) for path in islice(labels_beside_images(root, ".xml"), _MAX_TRIED))


def _is_annotation(path: Path) -> bool:
    try:
        with reading(path) as file:
            return b"<annotation" in file.read(_HEAD)
    except OSError:
        return False


def read_voc(root: Path, split: str) -> AnnotationTable:
    """Reads a split, with the `difficult` flags. Images without an XML file have no objects; a note counts them.

    VOC counts pixels from 1, and a box's last pixel belongs to it: (1, 1, 1, 1) is the first pixel, here
    (0, 0, 1, 1). Corners in the wrong order are swapped, and counted. Boxes refer to the image as shown, unless
    the XML has the size of the image as stored, on its side: then its EXIF orientation is applied to them. If the
    image is a resized copy of the annotated one, they are scaled, and counted.

    Raises:
        InputError: if a folder or image is missing, or no image at all has an XML file; if an XML file is broken,
            gives other proportions than the image's, an object without name or box, or a class that `classes.txt`
            lacks. It names up to ten faults at once.
    """
    voc = open_voc_folder(root)
    folder, notes = voc.root, list(voc.notes)
    stems = split_images(voc, split, notes)
    notes += unlisted_note(voc)
    faults = Faults(f"'{root}', split {split}")
    classes = folder / "classes.txt"
    annotations = _read_annotations(voc, stems if is_there(classes) else None, faults)
    names = read_names(classes) if is_there(classes) else _class_names(annotations)
    unlabelled = [stem for stem in stems if stem not in voc.annotations]
    notes += note_if_any("images without an XML file, taken as without objects", unlabelled)
    if len(unlabelled) == len(stems) and not voc.annotations.keys() & voc.images.keys():
        faults.add(f"'{root}': none of its images, {len(stems)} in {split}, has an XML file")
    rows = _Rows(voc, names, faults)
    for stem in stems:
        with faults.collecting():
            rows.add(stem, annotations.get(stem))
    faults.stop_at_any()
    sources = [annotations[stem].path for stem in stems if stem in annotations]
    lists = [path for path in (folder / LISTS.replace("*", split), classes) if path.is_file()]
    return rows.table.build(folder, [*lists, *sources], [*notes, *rows.notes()], has_difficult=True)


def _read_annotations(voc: VocFolder, stems: Sequence[str] | None, faults: Faults) -> dict[str, VocAnnotation]:
    """Reads the annotations of the named images that have any; of all images, if none are named."""
    annotations = {}
    for stem in voc.annotations if stems is None else stems:
        if stem in voc.annotations:
            with faults.collecting():
                annotations[stem] = read_annotation(voc.annotations[stem], faults)
    return annotations


def _class_names(annotations: dict[str, VocAnnotation]) -> list[str]:
    return sorted({item.name for annotation in annotations.values() for item in annotation.objects})


class _Rows:
    """Collects the images and boxes, and counts what was corrected in them."""

    def __init__(self, voc: VocFolder, names: Sequence[str], faults: Faults) -> None:
        self.table = TableBuilder(names)
        self._voc, self._faults = voc, faults
        self._names, self._position = names, {name: i for i, name in enumerate(names)}
        self._turned, self._unsure, self._scaled, self._swapped, self._rotated = (list[str]() for _ in range(5))
        self._from_zero = 0

    def add(self, stem: str, annotation: VocAnnotation | None) -> None:
        """Adds an image with its objects.

        Raises:
            InputError: if the image can't be read, or its annotation has other proportions.
        """
        path = find_image(self._voc, stem, annotation.file_name if annotation is not None else "")
        size = image_size(path)
        name = path.relative_to(self._voc.root).as_posix()
        self.table.add_image(name, size)
        if annotation is None:
            return
        annotated = size if annotation.size == (0, 0) else annotation.size  # Some tools write no size.
        orientation = orientation_of_boxes(annotated, size, path)
        corners = np.array([item.box for item in annotation.objects]).reshape(-1, 4)
        try:
            boxes = fit_to_picture(corners, annotated, size, path)
        except InputError as error:
            raise InputError(f"{annotation.path}: {error}") from None
        if orientation != 1:
            self._turned.append(name)
        elif annotation.size == (0, 0) and annotation.objects and image_orientation(path) >= 5:
            self._unsure.append(name)
        if sorted(annotated) != sorted(size):
            self._scaled.append(name)
        for item, box in zip(annotation.objects, boxes.tolist(), strict=True):
            if item.name not in self._position:
                hint = nearest(item.name, self._names) or f"; it has {quote(', '.join(self._names))[1:-1]}"
                classes = self._voc.root / "classes.txt"
                self._faults.add(f"{annotation.path}: class {quote(item.name)} is not in {classes}{hint}")
                continue
            self._from_zero += min(item.box[:2]) < 0
            self._swapped += [name] * item.was_swapped
            self._rotated += [name] * item.was_rotated
            self.table.add_object(self._position[item.name], box, difficult=item.difficult)

    def notes(self) -> list[str]:
        """Returns notes on what was corrected, with counts."""
        notes = [turned_note(self._turned)] if self._turned else []
        notes += note_if_any("images of another size than annotated, whose boxes were scaled", self._scaled)
        if self._unsure:
            what = "images stored on their side whose XML gives no size, boxes taken to be of the image as shown"
            notes.append(f"{what}: {len(self._unsure)} ({self._unsure[0]})")
        swapped = "boxes that end before they begin, whose corners were swapped"
        for what, names in ((swapped, self._swapped), (ROTATED, self._rotated)):
            notes += [f"{what}: {len(names)} (the first in {names[0]})"] if names else []
        if self._from_zero:
            what = "boxes from pixel 0 or less, though VOC counts from 1 (they are taken as written)"
            notes.append(f"{what}: {self._from_zero}")
        return notes


LAYOUT = Layout("Pascal VOC", is_voc, voc_splits, read_voc)
BESIDE_IMAGES_LAYOUT = Layout("VOC beside images", is_voc_beside, voc_splits, read_voc)
