"""Reads the XML file of an image in Pascal VOC's format.

It is not parsed by supervision, whose reader drops the difficult flags, numbers the classes as they come, so that
splits disagree, decodes every image, and fails without naming the file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse as parse_xml

from ssdir.console import refuse_pipe
from ssdir.data.orientation import Box
from ssdir.data.readers.faults import Faults
from ssdir.data.readers.rotation import parse_rotation, rotated_box
from ssdir.errors import InputError
from ssdir.formatting import quote

# The tree takes a hundred times the memory of the shortest elements.
_MAX_BYTES = 1 << 22


@dataclass(frozen=True)
class VocObject:
    """An object of an XML file.

    Attributes:
        name: its class.
        box: xyxy in pixels, half-open; tight if the rectangle is rotated.
        difficult: the flag.
        was_swapped: whether the corners were in the wrong order.
        was_rotated: whether the rectangle has a rotation among its attributes.
    """

    name: str
    box: Box
    difficult: bool
    was_swapped: bool
    was_rotated: bool


@dataclass(frozen=True)
class VocAnnotation:
    """The content of an XML file: the image's name, its (height, width) or (0, 0), and the objects."""

    path: Path
    file_name: str
    size: tuple[int, int]
    objects: list[VocObject]


def read_annotation(path: Path, faults: Faults) -> VocAnnotation:
    """Reads an XML file; objects that are broken are left out, and added to the faults.

    Raises:
        InputError: if the file can't be read, or is not VOC's.
    """
    root = _read_root(path)
    where = str(path)
    size = _only(root, "size", where)
    height, width = (0.0 if size is None else _number(size, side, where, 0.0) for side in ("height", "width"))
    elements, objects = root.findall("object"), list[VocObject]()
    for number, element in enumerate(elements, start=1):
        with faults.collecting():
            objects += _objects(element, f"{path}: object {number}")
    within = sum(1 for _ in root.iter("object")) - len(elements)
    if within:
        faults.add(f"{path}: {within} of its objects are within other elements: move them into <annotation>")
    return VocAnnotation(path, _text(root, "filename", where), (int(height), int(width)), objects)


def _read_root(path: Path) -> Element:
    try:
        refuse_pipe(path)
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path} is too large for the annotation of an image (limit: {_MAX_BYTES:,} bytes)")
        root: Element = parse_xml(path, forbid_dtd=True).getroot()
    except ParseError as error:
        raise InputError(f"{path}: not valid XML at line {error.position[0]} ({error})") from None
    except DefusedXmlException:
        raise InputError(
            f"{path}: XML with a document type or entities is not read, as it can't be trusted"
        ) from None
    except (OSError, LookupError, ValueError) as error:  # Unknown encodings raise LookupError and ValueError.
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not readable ({error})") from None
    if root.tag != "annotation":
        raise InputError(f"{path}: not a VOC annotation (its root is {quote(root.tag)}, not 'annotation')")
    return root


def _objects(element: Element, where: str) -> Iterator[VocObject]:
    """Yields an object for each box, because some tools write one object per class, with all its boxes."""
    name = _text(element, "name", where)
    if not name:
        raise InputError(f"{where} has no name")
    where = f"{where} ({quote(name)[1:-1]})"
    difficult = _number(element, "difficult", where, default=0.0) != 0
    boxes, rotation = element.findall("bndbox"), _rotation(element)
    for number, box in enumerate(boxes or [Element("bndbox")], start=1):
        at = f"{where}, bndbox {number}" if len(boxes) > 1 else where
        x1, y1, x2, y2 = (_number(box, key, at, path="bndbox/") for key in ("xmin", "ymin", "xmax", "ymax"))
        was_swapped = x2 < x1 or y2 < y1
        corners = (min(x1, x2) - 1, min(y1, y2) - 1, max(x1, x2), max(y1, y2))
        tight = rotated_box(corners, rotation) if rotation else corners
        yield VocObject(name, tight, difficult, was_swapped, was_rotated=rotation != 0)


def _rotation(element: Element) -> float:
    """Returns the degrees that CVAT writes among an object's attributes."""
    given = (each for each in element.iterfind("attributes/attribute") if each.findtext("name") == "rotation")
    return next((parse_rotation(each.findtext("value")) for each in given), 0.0)


def _only(element: Element, tag: str, where: str) -> Element | None:
    """Returns the child of a name, if there is one; several are allowed only if they are equal."""
    children = element.findall(tag)
    if len({tuple(part.strip() for part in child.itertext() if part.strip()) for child in children}) > 1:
        raise InputError(f"{where} has {len(children)} elements <{tag}> that differ: keep one")
    return children[0] if children else None


def _text(element: Element, tag: str, where: str) -> str:
    child = _only(element, tag, where)
    return ((child.text if child is not None else None) or "").strip()


def _number(element: Element, tag: str, where: str, default: float | None = None, path: str = "") -> float:
    text = _text(element, tag, where)
    if not text and default is not None:
        return default
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        got = f"got {quote(text)}" if text else "it is missing"
        raise InputError(f"{where}: {path}{tag} must be a number ({got})")
    return number
