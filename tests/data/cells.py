"""Generated images that look like photographs of blood cells, with objects of three very different sizes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from .defects import write_folder

RADII = {"cell": (26, 40), "nucleus": (60, 85), "platelet": (7, 11)}
"""The least and the largest radius of each class, in pixels."""
COUNTS = {"cell": 9, "nucleus": 1, "platelet": 4}
"""How many of each class are tried in an image."""
COLOURS = {"cell": (196, 140, 150), "nucleus": (120, 70, 150), "platelet": (150, 110, 180)}
HEIGHT, WIDTH = 480, 640


def write_cells(root: Path, train: int, val: int = 0, seed: int = 0) -> Path:
    """Writes a COCO folder of JPEGs with about 14 objects each; with `val` of 0, only a split to train on."""
    for split, count in (("train", train), ("val", val)):
        rng = np.random.default_rng([seed, split == "val"])
        images, boxes = [], []
        for index in range(count):
            pixels, image_boxes = _image(rng)
            images.append((f"{split}{index:04}.jpg", pixels))
            boxes += [(index, *box) for box in image_boxes]
        if count:
            write_folder(root, images, boxes, list(RADII), split)
    return root


def _image(rng: np.random.Generator) -> tuple[NDArray[np.uint8], list[tuple[str, tuple[int, int, int, int]]]]:
    pixels = np.full((HEIGHT, WIDTH, 3), (228, 216, 210), np.float32)
    pixels += _texture(rng, 12) + np.linspace(-15, 15, WIDTH)[None, :, None]
    boxes, taken = [], []
    for name, count in COUNTS.items():
        for _ in range(count):
            radius, shape = rng.uniform(*RADII[name]), rng.uniform(0.85, 1)
            x, y = rng.uniform(radius, WIDTH - radius), rng.uniform(radius, HEIGHT - radius)
            if any((x - u) ** 2 + (y - v) ** 2 < (0.8 * (radius + r)) ** 2 for u, v, r in taken):
                continue
            taken.append((x, y, radius))
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            center, axes = (round(x), round(y)), (round(radius), round(radius * shape))
            cv2.ellipse(mask, center, axes, 0, 0, 360, 255, -1)
            share = cv2.GaussianBlur(mask, (0, 0), 1.5)[:, :, None] / 255 * rng.uniform(0.7, 0.95)
            colour = np.array(COLOURS[name]) + rng.normal(0, 8, 3) + _texture(rng, 18)
            pixels = pixels * (1 - share) + colour * share
            boxes.append((name, (center[0] - axes[0], center[1] - axes[1], 2 * axes[0], 2 * axes[1])))
    pixels += rng.normal(0, 3, pixels.shape)
    return pixels.clip(0, 255).astype(np.uint8), boxes


def _texture(rng: np.random.Generator, strength: float) -> NDArray[np.float32]:
    coarse = rng.normal(0, strength, (24, 32, 1)).astype(np.float32)
    smooth: NDArray[np.float32] = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)[:, :, None]
    return smooth
