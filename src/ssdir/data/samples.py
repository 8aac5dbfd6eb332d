"""Sample images without a data set: scattered digits, and photographs that installed packages have."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from matplotlib import get_data_path
from sklearn.datasets import load_sample_image

from ssdir.data.images import Image8, read_image
from ssdir.data.scatter.generator import ScatterConfig, image_rng, scatter_image
from ssdir.data.scatter.glyphs import load_glyphs
from ssdir.storage import Location


@dataclass(frozen=True, eq=False)
class NamedImage:
    """An image and its name.

    Attributes:
        name: its name.
        image: uint8 (H, W, 3), to be shown.
        file: its file or URI, of which `image` may be a smaller copy; None if `image` is all there is.
    """

    name: str
    image: Image8
    file: Location | None = None

    @property
    def source(self) -> Image8 | Location:
        """The whole image, as a model encodes it."""
        return self.image if self.file is None else self.file

    @property
    def key(self) -> Hashable:
        """Identifies the image: another one may have the same pixels, or the same name."""
        return self.name, id(self.image) if self.file is None else self.file


def sample_images(count: int, canvas: int = 128, seed: int = 1) -> list[NamedImage]:
    """Generates images of scattered digits from scikit-learn's test split, which no shipped model was trained on.

    Args:
        count: number of images; the first ones don't depend on it.
        canvas: side in pixels.
        seed: seed of positions, sizes and digits.
    """
    config = ScatterConfig(canvas=canvas, grids=(2, 3, 4), seed=seed)
    glyphs = load_glyphs("digits", "test")
    scattered = (scatter_image(glyphs, config, image_rng(seed, "test", number)).image for number in range(count))
    return [
        NamedImage(f"sample {number}", cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB))
        for number, grey in enumerate(scattered, start=1)
    ]


def sample_photographs(count: int, seed: int = 1) -> list[NamedImage]:
    """Returns the photographs that scikit-learn and matplotlib install, then collages of them.

    A collage is four random windows of the photographs, side by side.

    Args:
        count: number of images; the first ones don't depend on it.
        seed: seed of the windows.
    """
    portrait = Path(get_data_path()) / "sample_data" / "grace_hopper.jpg"
    whole = [
        NamedImage("temple", load_sample_image("china.jpg").copy()),
        NamedImage("portrait", read_image(portrait)),
        NamedImage("flower", load_sample_image("flower.jpg").copy()),
    ]
    rng = np.random.default_rng(seed)
    sources = [each.image for each in whole]
    collages = [
        NamedImage(f"collage {number}", _collage(sources, rng)) for number in range(1, count - len(whole) + 1)
    ]
    return [*whole, *collages][:count]


def _collage(sources: Sequence[Image8], rng: np.random.Generator, side: int = 200) -> Image8:
    """Returns four windows in two rows, uint8 (2 * side, 2 * side, 3)."""
    windows = []
    for _ in range(4):
        image = sources[int(rng.integers(len(sources)))]
        height, width = image.shape[:2]
        extent = int(min(height, width) * rng.uniform(0.5, 1))
        top, left = rng.integers(height - extent + 1), rng.integers(width - extent + 1)
        window = image[top : top + extent, left : left + extent]
        windows.append(cv2.resize(window, (side, side), interpolation=cv2.INTER_AREA))
    return np.vstack([np.hstack(windows[:2]), np.hstack(windows[2:])])
