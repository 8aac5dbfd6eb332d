"""Pascal VOC folders: `Annotations/<name>.xml`, `JPEGImages/<name>.*`, and lists in `ImageSets/Main/<split>.txt`.

Without lists the images are divided: see `table_builder.divide`. The categories are those of all annotations, of
whatever split, in alphabetical order as VOC has them; a `classes.txt`, which is not part of VOC, may name them
instead, in its own order and with those that do not occur.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse as parse_xml

from ssdir.data.annotations import AnnotationTable
from ssdir.data.folders import find_folder, visible
from ssdir.data.image_files import is_image_name
from ssdir.data.images import image_orientation, image_size
from ssdir.data.split_files import find_split, list_splits
from ssdir.data.table_builder import SPLITS, TableBuilder, divide, read_names
from ssdir.data.upright import Box, refers_to_stored, turn_box, turned_note
from ssdir.documents import read_lines
from ssdir.errors import EmptySplitError, InputError, nearest

_LISTS = "ImageSets/Main/*.txt"

# In the list of a class, each image's name is followed by whether it shows one.
_FLAG = re.compile(r"\s+-?[01]$")


@dataclass(frozen=True)
class _Object:
    name: str
    box: Box
    difficult: bool


@dataclass(frozen=True)
class _Annotation:
    """An XML file: the image's name and (height, width) as it says, or (0, 0), and the objects."""

    path: Path
    file_name: str
    size: tuple[int, int]
    objects: list[_Object]


def is_voc(root: str | Path) -> bool:
    """Whether a folder has Pascal VOC's layout."""
    folder = Path(root)
    return (folder / "JPEGImages").is_dir() and any(visible((folder / "Annotations").glob("*.xml")))


def voc_splits(root: str | Path) -> list[str]:
    """The lists of all images of a split: not those of a class, nor trainval where train and val are.

    Where there are none, and the images are to be divided: train, val and test.
    """
    folder, names = Path(root), []
    for name in list_splits(folder, _LISTS):
        first = next((line for line in read_lines(folder / _LISTS.replace("*", name)) if line), "")
        # A name may end as a class list's flag does.
        if not _FLAG.search(first) or (folder / "Annotations" / f"{first}.xml").is_file():
            names.append(name)
    if {"train", "val"} <= {*names}:
        names = [name for name in names if name != "trainval"]
    return names or list(SPLITS)


def read_voc(root: str | Path, split: str) -> AnnotationTable:
    """Reads a split, with the `difficult` flags. An image without an XML file has no objects; these are noted.

    VOC counts pixels from 1, and a box's last pixel belongs to it: (1, 1, 1, 1) is the first pixel, here
    (0, 0, 1, 1). Boxes refer to the picture as seen, turned as its EXIF orientation says, unless the XML gives the
    size of the picture as stored, on its side: then they are turned with it.

    Raises:
        InputError: if a folder or image is missing, or no image has an XML file; if an XML file is broken, has a
            size other than the image's, an object without name or box, or a class that `classes.txt` has not.
    """
    folder = find_folder(root)
    notes: list[str] = []
    images = _images_by_stem(folder)
    stems = _split_stems(folder, split, list(images), notes)
    classes = folder / "classes.txt"
    has_names = classes.is_file()
    annotations = _read_annotations(folder, stems if has_names else None)
    unlabelled = [stem for stem in stems if stem not in annotations]
    if len(unlabelled) == len(stems):
        raise InputError(f"'{root}': none of the {len(stems)} images of {split} has an XML file in Annotations/")
    if unlabelled:
        first = f"'{unlabelled[0]}'"
        notes.append(f"images without an XML file, taken as without objects: {len(unlabelled)} ({first})")
    names = read_names(classes) if has_names else sorted({o.name for a in annotations.values() for o in a.objects})
    position = {name: i for i, name in enumerate(names)}
    rows = TableBuilder(names)
    turned, unsure, from_zero = list[str](), list[str](), 0
    for stem in stems:
        annotation = annotations.get(stem)
        path = _find_image(folder, stem, images.get(stem, []), annotation)
        size = image_size(path)
        name = path.relative_to(folder).as_posix()
        rows.add_image(name, size)
        if annotation is None:
            continue
        orientation = _orientation_of_boxes(annotation, path, size)
        if orientation != 1:
            turned.append(name)
        elif annotation.size == (0, 0) and annotation.objects and image_orientation(path) >= 5:
            unsure.append(name)
        for item in annotation.objects:
            if item.name not in position:
                hint = nearest(item.name, names) or f"; it has {', '.join(names)}"
                raise InputError(f"{annotation.path}: class '{item.name}' is not in {classes}{hint}")
            from_zero += min(item.box[:2]) < 0
            box = turn_box(item.box, size, orientation)
            rows.add_object(position[item.name], box, difficult=item.difficult)
    if turned:
        notes.append(turned_note(turned))
    if unsure:
        what = "images stored on their side whose XML gives no size, boxes taken to be of the upright picture"
        notes.append(f"{what}: {len(unsure)} ({unsure[0]})")
    if from_zero:
        notes.append(
            f"boxes from pixel 0 or less, though VOC counts from 1 (they are taken as written): {from_zero}"
        )
    sources = [annotations[stem].path for stem in stems if stem in annotations]
    lists = [path for path in (folder / _LISTS.replace("*", split), classes) if path.is_file()]
    return rows.build(folder, [*lists, *sources], notes, has_difficult=True)


def _orientation_of_boxes(annotation: _Annotation, image: Path, size: tuple[int, int]) -> int:
    """How the boxes must be turned to fit the upright image: 1 is not at all."""
    if annotation.size in (size, (0, 0)):  # Some tools write no size.
        return 1
    orientation = image_orientation(image)
    if annotation.size == size[::-1] and refers_to_stored(annotation.size, size, orientation):
        return orientation
    says, has = (f"{width} x {height}" for height, width in (annotation.size, size))
    raise InputError(f"{annotation.path} says its image is {says}, but '{image}' is {has}: use the one annotated")


# XML ------------------------------------------------------------------------------------------------------
# Parsed here, not by supervision: its reader drops the difficult flags, numbers the classes as they come (so
# splits disagree), decodes every image, and fails without naming the file.


def _read_annotations(root: Path, stems: Iterable[str] | None) -> dict[str, _Annotation]:
    """Those that are there of the named images; of all, if none are named."""
    folder = root / "Annotations"
    if stems is None:
        paths = sorted(visible(folder.glob("*.xml")))
    else:
        paths = [path for path in (folder / f"{stem}.xml" for stem in stems) if path.is_file()]
    return {path.stem: _read_annotation(path) for path in paths}


def _read_annotation(path: Path) -> _Annotation:
    try:
        root = parse_xml(path, forbid_dtd=True).getroot()
    except ParseError as error:
        raise InputError(f"{path}: not valid XML at line {error.position[0]} ({error})") from None
    except DefusedXmlException:
        raise InputError(
            f"{path}: XML with a document type or entities is not read, as it can't be trusted"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable ({error})") from None
    if root.tag != "annotation":
        raise InputError(f"{path}: not a VOC annotation (its root is '{root.tag}', not 'annotation')")
    sides = [_number(root, f"size/{side}", str(path), default=0.0) for side in ("height", "width")]
    objects = [
        _object(element, f"{path}: object {i}") for i, element in enumerate(root.findall("object"), start=1)
    ]
    return _Annotation(path, _text(root, "filename"), (int(sides[0]), int(sides[1])), objects)


def _object(element: Element, where: str) -> _Object:
    name = _text(element, "name")
    if not name:
        raise InputError(f"{where} has no name")
    where = f"{where} ({name})"
    x1, y1, x2, y2 = (_number(element, f"bndbox/{key}", where) for key in ("xmin", "ymin", "xmax", "ymax"))
    if x2 < x1 or y2 < y1:
        raise InputError(f"{where}: its box ends before it begins ({x1:g}, {y1:g} ... {x2:g}, {y2:g})")
    difficult = _number(element, "difficult", where, default=0.0) != 0
    return _Object(name, (x1 - 1, y1 - 1, x2, y2), difficult)


def _text(element: Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _number(element: Element, path: str, where: str, default: float | None = None) -> float:
    text = _text(element, path)
    if not text and default is not None:
        return default
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        got = f"got '{text:.40}'" if text else "it is missing"
        raise InputError(f"{where}: {path} must be a number ({got})")
    return number


# Images ---------------------------------------------------------------------------------------------------


def _images_by_stem(root: Path) -> dict[str, list[Path]]:
    folder, images = root / "JPEGImages", dict[str, list[Path]]()
    if not folder.is_dir():
        raise InputError(f"'{root}' has no JPEGImages/")
    for path in sorted(folder.iterdir()):
        if is_image_name(path):
            images.setdefault(path.stem, []).append(path)
    return images


def _split_stems(root: Path, split: str, stems: list[str], notes: list[str]) -> list[str]:
    """The images of a split, each once."""
    if not list_splits(root, _LISTS):
        return divide(stems, split, f"'{root}'")
    path = find_split(root, _LISTS, split, found=voc_splits(root))
    known = {*stems}
    listed = [line if line in known else _FLAG.sub("", line) for line in read_lines(path) if line]
    if not listed:
        raise EmptySplitError(f"{path}: the split is empty, it lists no images")
    unique = list(dict.fromkeys(listed))
    if len(unique) < len(listed):
        notes.append(f"{path}: images listed more than once, taken once: {len(listed) - len(unique)}")
    return unique


def _find_image(root: Path, stem: str, candidates: Sequence[Path], annotation: _Annotation | None) -> Path:
    """The one image of that name; of several, the one that the annotation names."""
    if len(candidates) == 1:
        return candidates[0]
    named = root / "JPEGImages" / (annotation.file_name if annotation is not None else "")
    if annotation is not None and annotation.file_name and named.is_file():
        return named
    if candidates:
        names = ", ".join(path.name for path in candidates)
        raise InputError(f"'{root}/JPEGImages' has several images called '{stem}' ({names}): keep one")
    raise InputError(f"'{root}/JPEGImages' has no image '{stem}', which its list or annotation names")
