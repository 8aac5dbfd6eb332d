"""Glyphs of plain shapes, those of dSprites: ellipses, hearts and squares, each turned by several angles."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ssdir.data.images import Image8

SHAPES = ("ellipse", "heart", "square")

NUM_ANGLES = 40
"""Turns of each shape: as many as dSprites has of a heart."""

_SIDE, _MARGIN, _FRACTION_BITS = 64, 2, 4


def draw_shape(shape: str, angle: float) -> Image8:
    """Draws a shape, white on black, uint8 (64, 64), turned by an angle in radians, as large as fits."""
    outline = _outline(shape) @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    low, high = outline.min(axis=0), outline.max(axis=0)
    scale = (_SIDE - 2 * _MARGIN) / (high - low).max()
    points = (outline - (low + high) / 2) * scale + (_SIDE - 1) / 2
    image = np.zeros((_SIDE, _SIDE), dtype=np.uint8)
    fixed = np.rint(points * (1 << _FRACTION_BITS)).astype(np.int32)
    cv2.fillPoly(image, [fixed], 255, lineType=cv2.LINE_AA, shift=_FRACTION_BITS)
    return image


def shape_angles(shape: str) -> NDArray[np.float64]:
    """Returns the angles of a shape in radians, all of which look different."""
    turn = {"ellipse": np.pi, "heart": 2 * np.pi, "square": np.pi / 2}[shape]
    return np.arange(NUM_ANGLES, dtype=np.float64) * np.float64(turn / NUM_ANGLES)


def _outline(shape: str) -> NDArray[np.float64]:
    """Returns the corners of a shape that is not turned, (n, 2), x and y."""
    if shape == "square":
        return np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=np.float64)
    t = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    if shape == "ellipse":
        return np.stack([np.cos(t), 0.6 * np.sin(t)], axis=1)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y], axis=1)
