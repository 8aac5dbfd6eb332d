"""Pictures to start with: scattered digits, made in memory from those that scikit-learn brings."""

from __future__ import annotations

from dataclasses import dataclass

import cv2

from ssdir.data.images import Image8
from ssdir.data.scatter.generator import ScatterConfig, image_rng, scatter_image
from ssdir.data.scatter.glyphs import load_glyphs

NUM_SHOWN = 6
NUM_SAMPLES = 30


@dataclass(frozen=True, eq=False)
class Sample:
    """A named picture, uint8 (H, W, 3)."""

    name: str
    image: Image8


def sample_pictures(count: int = NUM_SAMPLES, canvas: int = 128, seed: int = 1) -> list[Sample]:
    """Scattered digits that no shipped model was trained on: those of the test split.

    Args:
        count: how many; the first ones don't depend on it.
        canvas: side in pixels.
        seed: of places, sizes and choice.
    """
    config = ScatterConfig(canvas=canvas, grids=(2, 3, 4), seed=seed)
    glyphs = load_glyphs("digits", "test")
    scattered = (scatter_image(glyphs, config, image_rng(seed, "test", number)) for number in range(count))
    return [
        Sample(f"sample {number}", cv2.cvtColor(each.image, cv2.COLOR_GRAY2RGB))
        for number, each in enumerate(scattered, start=1)
    ]
