"""Parses lines of YOLO's label files: a class, then a box, a polygon, or a box and its keypoints.

They are not parsed by supervision, whose reader names neither file nor line, accepts any class, and loads a whole
folder at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np

from ssdir.data.readers.yolo.data_yaml import MAX_UNNAMED
from ssdir.errors import InputError
from ssdir.formatting import quote

# Boxes may reach out of their image, but coordinates beyond twice its size are meant as pixels.
_LARGEST = 2.0
# A keypoint may lie beyond its box, or the box beyond the image, by this share of the image.
_TOLERANCE = 0.01
# Corners of a rotated box are rounded, so they may be off a parallelogram by this share of its extent.
_SKEW = 0.05
_VISIBILITIES = (0, 1, 2)

Box: TypeAlias = tuple[float, float, float, float]

BOX, SCORED_BOX = 4, 5
"""The number of values after the class of a box, and of a detected box with its confidence."""


def parse_numbers(values: Sequence[str], where: str) -> list[float]:
    """Parses the numbers after the class of a line; without the track that may follow a box and its confidence.

    Raises:
        InputError: if there are too few, or one is not a number.
    """
    if len(values) < 1 + BOX:
        raise InputError(f"{where} must be class, x_center, y_center, width, height: 5 numbers, got {len(values)}")
    try:
        numbers = [float(value) for value in values[1:]]
    except ValueError:
        wrong = next(value for value in values[1:] if not _is_number(value))
        raise InputError(f"{where}: not a number ({quote(wrong)})") from None
    return numbers[:SCORED_BOX] if _has_track(numbers) else numbers


def _has_track(numbers: Sequence[float]) -> bool:
    """Returns whether six numbers are a box in the image, a confidence and a track from 1, and not a triangle."""
    if len(numbers) != SCORED_BOX + 1:
        return False
    x, y, w, h, confidence, track = numbers
    is_inside = all(0 < side <= 2 * min(at, 1 - at) + _TOLERANCE for at, side in ((x, w), (y, h)))
    return is_inside and 0 <= confidence <= 1 and track >= 1 and track.is_integer()


def parse_box(numbers: list[float], keypoints: int, where: str) -> Box:
    """Returns the relative xyxy of a line's box, or of the box around its polygon.

    Args:
        numbers: all numbers of the line but the class.
        keypoints: how many numbers follow the box, where the data set has poses.
        where: file and line, for messages.

    Raises:
        InputError: if the numbers are too many or too few, or are not relative coordinates.
    """
    if keypoints and 0 <= len(numbers) - BOX - keypoints <= 2:  # A confidence and a track may follow.
        numbers = numbers[:BOX]
    elif keypoints and could_be_pose(numbers):
        raise InputError(f"{where}: a box and its keypoints are {BOX + keypoints} numbers, got {len(numbers)}")
    elif not could_be_polygon(numbers) and could_be_pose(numbers):
        raise InputError(f"{where}: a box and its keypoints, it seems: give kpt_shape in data.yaml")
    coordinates = numbers[:BOX] if len(numbers) == SCORED_BOX else numbers
    bad = next((number for number in coordinates if not abs(number) <= _LARGEST), None)
    if bad is not None:
        raise InputError(f"{where}: coordinates must be relative to the image's size, 0 ... 1, got {bad:g}")
    if len(coordinates) == BOX:
        x, y, w, h = coordinates
        if min(w, h) < 0:
            raise InputError(f"{where}: width and height must not be negative, got {w:g} x {h:g}")
        return x - w / 2, y - h / 2, x + w / 2, y + h / 2
    if len(coordinates) % 2:
        raise InputError(
            f"{where}: a polygon must be class, then pairs of x and y, got {len(coordinates)} coordinates"
        )
    return min(coordinates[::2]), min(coordinates[1::2]), max(coordinates[::2]), max(coordinates[1::2])


def parse_class(text: str, num_classes: int, source: str, where: str) -> int:
    """Parses the number of a class; `source` explains `num_classes` in messages.

    Raises:
        InputError: if it is not a whole number, or there is no such class.
    """
    value = float(text) if _is_number(text) else math.nan
    if not value.is_integer():
        raise InputError(f"{where}: the class must be a whole number, got {quote(text)}")
    if not 0 <= value < num_classes:
        raise InputError(f"{where}: class {value:.6g} is out of range ({source})")
    return int(value)


def parse_unnamed_class(text: str, where: str) -> int:
    """Parses the number of a class where classes have no names.

    Raises:
        InputError: as `parse_class`.
    """
    return parse_class(text, MAX_UNNAMED, f"{MAX_UNNAMED} classes may go without names", where)


# Poses ----------------------------------------------------------------------------------------------------


def find_keypoints(rows: Iterable[tuple[list[float], str]]) -> tuple[int, int]:
    """Infers how many numbers follow the box in the lines of a data set that does not specify it.

    Poses have as many numbers in every line; a polygon has as many as it has points. Where all lines are as long,
    those that can only be one of the two decide.

    Args:
        rows: the numbers of all lines that are longer than a box, and file and line of each.

    Returns:
        The number, 0 if the lines are polygons; and how many of the polygons could also be poses.

    Raises:
        InputError: if all lines can be read in both ways, or most.
    """
    polygons = poses = both = length = 0
    example = ""
    for numbers, where in rows:
        if length and len(numbers) != length:
            return 0, 0
        length = len(numbers)
        polygon, pose = could_be_polygon(numbers), could_be_pose(numbers)
        polygons += polygon and not pose
        poses += pose and not polygon
        both += pose and polygon
        example = example or (where if pose else "")
    if poses and not polygons:
        return length - BOX, 0
    if not poses and both > polygons:
        raise InputError(
            f"{example}: lines of {1 + length} numbers may be boxes with keypoints, or polygons: give kpt_shape "
            "in data.yaml, such as [17, 3], or null for polygons"
        )
    return 0, both


def could_be_polygon(numbers: Sequence[float]) -> bool:
    """Returns whether numbers may be pairs of coordinates; a visibility of 2 is not a coordinate."""
    return len(numbers) % 2 == 0 and not (_are_marked(numbers) and 2 in numbers[BOX + 2 :: 3])


def could_be_pose(numbers: Sequence[float]) -> bool:
    """Returns whether numbers may be a box and keypoints: with visibility flags, or pairs within the box."""
    if len(numbers) <= SCORED_BOX or min(numbers[2:BOX]) <= 0:
        return False
    return _are_marked(numbers) or _are_enclosed(numbers)


def _are_marked(numbers: Sequence[float]) -> bool:
    """Returns whether each third number after the box is a visibility, and the others coordinates in the image."""
    points = numbers[BOX:]
    if len(points) % 3 or any(mark not in _VISIBILITIES for mark in points[2::3]):
        return False
    return all(0 <= value <= 1 for value in (*points[::3], *points[1::3]))


def _are_enclosed(numbers: Sequence[float]) -> bool:
    """Returns whether the first two pairs are centre and size of a box in the image that the others lie in."""
    if len(numbers) % 2 or _is_parallelogram(numbers):
        return False
    x, y, w, h = numbers[:BOX]
    points = np.array(numbers[BOX:]).reshape(-1, 2)
    points = points[points.any(axis=1)]  # Keypoints that are not annotated are (0, 0).
    low, high = np.array([x - w / 2, y - h / 2]) - _TOLERANCE, np.array([x + w / 2, y + h / 2]) + _TOLERANCE
    in_image = (low >= -2 * _TOLERANCE).all() and (high <= 1 + 2 * _TOLERANCE).all()
    return bool(in_image and (points >= low).all() and (points <= high).all())


def _is_parallelogram(numbers: Sequence[float]) -> bool:
    """Returns whether four points are the corners of a rotated box."""
    if len(numbers) != 8:
        return False
    corners = np.array(numbers).reshape(4, 2)
    gap = np.abs(corners[0] + corners[2] - corners[1] - corners[3])
    return bool((gap <= _SKEW * np.ptp(corners, axis=0).max()).all())


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
