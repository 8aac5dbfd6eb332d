"""Rectangles that CVAT stores unrotated, with their rotation in degrees as an attribute."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ssdir.data.orientation import Box

ROTATED = "rectangles with a rotation among their attributes, of which the tight box is taken"
"""The note that counts them."""


def parse_rotation(value: Any) -> float:
    """Returns the degrees that an attribute `rotation` gives; 0 where it gives none."""
    try:
        degrees = 0.0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return 0.0  # An attribute of the user's own may have any value.
    return degrees if math.isfinite(degrees) else 0.0


def rotated_box(box: Sequence[float], degrees: float) -> Box:
    """Returns the tight box of a rectangle, xyxy, that is rotated about its centre."""
    x1, y1, x2, y2 = box
    cos, sin = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    width, height = (x2 - x1) * cos + (y2 - y1) * sin, (x2 - x1) * sin + (y2 - y1) * cos
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2
