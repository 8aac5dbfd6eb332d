"""The official layout of WIDER FACE.

`<root>/WIDER_<split>/images/<event>/<name>.jpg` and `<root>/wider_face_split/wider_face_<split>_bbx_gt.txt`: for
each image its name, the number of faces, and a line per face,
`x y w h blur expression illumination invalid occlusion pose`, the box in whole pixels from the top left corner.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ssdir.data.annotations import AnnotationTable
from ssdir.data.image_files import IMAGE_SUFFIXES
from ssdir.data.images import image_size
from ssdir.data.readers.faults import Faults
from ssdir.data.readers.file_names import is_inside
from ssdir.data.readers.layout import Layout
from ssdir.data.readers.splits import find_split_file, list_splits
from ssdir.data.readers.table_builder import TableBuilder
from ssdir.documents import read_lines
from ssdir.errors import InputError
from ssdir.formatting import quote

_BOXES = "wider_face_split/wider_face_*_bbx_gt.txt"

ATTRIBUTES: dict[str, list[str]] = {
    "blur": ["clear", "normal blur", "heavy blur"],
    "expression": ["typical", "exaggerate"],
    "illumination": ["normal", "extreme"],
    "occlusion": ["none", "partial", "heavy"],
    "pose": ["typical", "atypical"],
}
"""The attributes, and the names of their values, as the data set's readme has them."""

# torchvision.datasets.WIDERFace is no help: it mixes up the three last columns (`invalid` becomes occlusion),
# makes a face of a line of zeros, fails at a count of 0 without one, and wants a folder for the test split.
_COLUMNS = ("x", "y", "w", "h", "blur", "expression", "illumination", "invalid", "occlusion", "pose")


_MAX_PIXEL = 1_000_000

_COUNT = re.compile(r"[0-9]{1,9}")
_WHOLE = re.compile(r"-?[0-9]{1,9}")


@dataclass(frozen=True)
class _Entry:
    """An image: the line that names it, and the values of each face by `_COLUMNS`."""

    line: int
    name: str
    faces: list[dict[str, int]]


def is_widerface(root: Path) -> bool:
    """Returns whether a folder has WIDER FACE's layout."""
    return bool(list_splits(root, _BOXES))


def widerface_splits(root: Path) -> list[str]:
    """The splits that have boxes and a folder of images."""
    return [name for name in list_splits(root, _BOXES) if _images(root, name).is_dir()]


def read_widerface(root: Path, split: str) -> AnnotationTable:
    """Reads a split; the one category is `face`.

    Boxes are kept as annotated, those without width or height included. `invalid` faces are `ignored`. An image
    without faces may be written as a count of 0, with or without a line of zeros after it, or as a count of 1 and
    a line of zeros. Images that are named but not there are skipped, and counted in a note, so that a part of the
    data set is one. Boxes are taken to refer to the image as shown; the published images have no EXIF rotation.

    Raises:
        InputError: if a folder or file, or every image, is missing; if a file is no image, or is named
            twice; if a line is invalid. It names the first ten of these lines, and counts all.
    """
    path = find_split_file(root, _BOXES, split, remark="WIDER FACE publishes no boxes for its test split")
    rows, faults = TableBuilder(["face"], ATTRIBUTES), Faults(str(path), of_one_file=True)
    lines: dict[str, int] = {}
    missing, outside = list[_Entry](), list[_Entry]()
    for entry in _read_entries(path, faults):
        if entry.name in lines:
            faults.add(
                f"line {entry.line} names {quote(entry.name)} again (first in line {lines[entry.name]}): "
                "remove one of the two entries"
            )
            continue
        lines[entry.name] = entry.line
        name = f"WIDER_{split}/images/{entry.name}"
        if not is_inside(entry.name):
            outside.append(entry)
        elif not (root / name).is_file():
            missing.append(entry)
        else:
            with faults.collecting():
                rows.add_image(name, image_size(root / name))
                _add_faces(rows, entry)
    faults.stop_at_any()
    if not len(rows):
        what = f"none of its {len(lines)} images is in '{_images(root, split)}'" if lines else "it names no images"
        raise InputError(f"{path}: {what}")
    notes = [
        f"{path}: {len(entries)} of {len(lines)} images {problem} (first: {quote(entries[0].name)}, line "
        f"{entries[0].line})"
        for entries, problem in (
            (missing, "are not there and were skipped"),
            (outside, "lie outside of the data set and were not read"),
        )
        if entries
    ]
    return rows.build(root, [path], notes, sizes_from_files=True)


def _add_faces(rows: TableBuilder, entry: _Entry) -> None:
    for face in entry.faces:
        x, y, w, h = (face[column] for column in _COLUMNS[:4])
        attributes = [face[attribute] for attribute in ATTRIBUTES]
        rows.add_object(0, (x, y, x + w, y + h), ignored=face["invalid"] == 1, attributes=attributes)


def _read_entries(path: Path, faults: Faults) -> Iterator[_Entry]:
    """Reads the images of a file; broken lines become faults, and any other fault ends the reading."""
    lines = read_lines(path)
    at = 0
    while at < len(lines):
        name = lines[at]
        if not name:
            at += 1
            continue
        if Path(name).suffix.lower() not in IMAGE_SUFFIXES:
            faults.add(f"line {at + 1} should name an image, got {quote(name)}")
            return
        count = lines[at + 1] if at + 1 < len(lines) else ""
        if not _COUNT.fullmatch(count):
            faults.add(f"line {at + 2} should be the number of faces of {quote(name)}, got {quote(count)}")
            return
        first, after = at + 2, at + 2 + int(count)
        if after > len(lines):
            faults.add(f"line {at + 2} says that {quote(name)} has {count} faces, but the file ends before")
            return
        faces = []
        for number in range(first, after):
            with faults.collecting():
                faces.append(_parse_face(lines[number], f"line {number + 1}"))
        if len(faces) == 1 and not any(faces[0].values()):
            faces = []
        if first == after and after < len(lines) and _is_zero_line(lines[after]):
            after += 1
        yield _Entry(at + 1, name, faces)
        at = after


def _parse_face(line: str, where: str) -> dict[str, int]:
    parts = line.split()
    if len(parts) != len(_COLUMNS) or not all(_WHOLE.fullmatch(part) for part in parts):
        expected = f"{len(_COLUMNS)} whole numbers ({' '.join(_COLUMNS)})"
        raise InputError(f"{where} should be a face, {expected}, got {quote(line)}")
    face = dict(zip(_COLUMNS, map(int, parts), strict=True))
    if max(abs(face[column]) for column in _COLUMNS[:4]) > _MAX_PIXEL:
        raise InputError(
            f"{where}: its box is beyond all images, more than {_MAX_PIXEL:,} pixels, got {quote(line)}"
        )
    for column in _COLUMNS[4:]:
        largest = len(ATTRIBUTES.get(column, ("no", "yes"))) - 1
        if not 0 <= face[column] <= largest:
            raise InputError(f"{where}: {column} must be 0 ... {largest}, got {face[column]}")
    return face


def _is_zero_line(line: str) -> bool:
    return line.split() == ["0"] * len(_COLUMNS)


def _images(root: Path, split: str) -> Path:
    return root / f"WIDER_{split}" / "images"


LAYOUT = Layout("WIDER FACE", is_widerface, widerface_splits, read_widerface)
