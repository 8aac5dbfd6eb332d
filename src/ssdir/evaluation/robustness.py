"""Robustness of embeddings to changes of a photograph that leave its content: scale, JPEG, blur, padding.

A `Change` maps an image and the boxes of its objects to the changed image and boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from ssdir.data.images import Image8, resize
from ssdir.evaluation.embedded import Array, EmbeddedObjects

Boxes: TypeAlias = NDArray[np.float32]
Change: TypeAlias = Callable[[Image8, Boxes], tuple[Image8, Boxes]]

PADDING = 114
"""Grey value of the pixels around a photograph, that of the letterboxes of YOLO detectors."""
JPEG_QUALITY = 30
BLUR = 0.005
"""Standard deviation of the blur, relative to the image's longer side."""
_MOST_PAIRED = 2000


def shrunk(image: Image8, boxes: Boxes, factor: float) -> tuple[Image8, Boxes]:
    """Shrinks the photograph by a factor, in the middle of a grey canvas of its original size.

    Args:
        image: uint8 (H, W, 3).
        boxes: float (n, 4), xyxy relative to the image.
        factor: of both sides, in (0, 1].
    """
    height, width = image.shape[:2]
    small = resize(image, max(1, round(height * factor)), max(1, round(width * factor)))
    return _on_canvas(small, boxes, height, width)


def padded(image: Image8, boxes: Boxes) -> tuple[Image8, Boxes]:
    """Puts the photograph in the middle of a grey square of twice its area, or of its longer side if that is more.

    A photograph of 4:3 fills 82 % of the square's width and 61 % of its height. For arguments see `shrunk`.
    """
    height, width = image.shape[:2]
    side = max(round((2 * height * width) ** 0.5), height, width)
    return _on_canvas(image, boxes, side, side)


def compressed(image: Image8, boxes: Boxes) -> tuple[Image8, Boxes]:
    """Writes the photograph as JPEG of quality 30, and reads it. For arguments see `shrunk`."""
    _, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    decoded = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), dtype=np.uint8)
    return np.ascontiguousarray(decoded[..., ::-1]), boxes


def blurred(image: Image8, boxes: Boxes) -> tuple[Image8, Boxes]:
    """Blurs the photograph by a Gaussian of 0.5 % of its longer side. For arguments see `shrunk`."""
    smooth = cv2.GaussianBlur(image, (0, 0), BLUR * max(image.shape[:2]))
    return np.asarray(smooth, dtype=np.uint8), boxes


CHANGES: Mapping[str, Change] = {
    "half": partial(shrunk, factor=1 / 2),
    "quarter": partial(shrunk, factor=1 / 4),
    "jpeg": compressed,
    "blur": blurred,
    "padding": padded,
}
"""The changes that robustness is measured under, by name."""


def same_object_cosine(objects: EmbeddedObjects, changed: EmbeddedObjects) -> float:
    """Returns the mean cosine between objects and, row by row, the same in changed photographs."""
    return float((objects.directions * changed.directions).sum(axis=1).mean())


def unrelated_cosine(objects: EmbeddedObjects, seed: int = 0) -> float | None:
    """Returns the median cosine of pairs of objects of different classes and different images.

    Where all objects are of one class, pairs differ in image only.

    Args:
        objects: M objects; at most 2,000 of them, sampled at random, are compared.
        seed: seed of the sample.

    Returns:
        The median; None if there is no such pair.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(len(objects))[:_MOST_PAIRED])
    chosen = objects[rows]
    cosines: Array = chosen.directions @ chosen.directions.T
    unrelated = chosen.image_index[:, None] != chosen.image_index
    if len(np.unique(chosen.labels)) > 1:
        unrelated &= chosen.labels[:, None] != chosen.labels
    return float(np.median(cosines[unrelated])) if unrelated.any() else None


def _on_canvas(image: Image8, boxes: Boxes, height: int, width: int) -> tuple[Image8, Boxes]:
    """Puts an image in the middle of a grey canvas (height, width)."""
    inner_height, inner_width = image.shape[:2]
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    canvas = np.full((height, width, 3), PADDING, dtype=np.uint8)
    canvas[top : top + inner_height, left : left + inner_width] = image
    scale = np.array([inner_width, inner_height] * 2) / np.array([width, height] * 2)
    shift = np.array([left, top] * 2) / np.array([width, height] * 2)
    return canvas, (boxes * scale + shift).astype(np.float32)
