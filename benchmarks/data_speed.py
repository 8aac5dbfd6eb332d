"""Measures images per second of one core: generating scattered digits, and reading them back.

The generator is compared with a straightforward loop over the same rules that is not optimised for speed (float
masks of whole images, boxes from `np.nonzero`, coverage counted again for every cell).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ssdir.data.readers.registry import open_dataset
from ssdir.data.scatter.generator import ScatterConfig, image_rng, scatter_image
from ssdir.data.scatter.glyphs import INK_THRESHOLD, Glyphs, load_glyphs
from ssdir.data.scatter.writer import write_scatter


def plain_scatter(glyphs: Glyphs, config: ScatterConfig, rng: np.random.Generator) -> NDArray[np.uint8]:
    g = int(rng.choice(config.grids))
    side = config.canvas / g
    edges = np.round(np.arange(g + 1) * side).astype(int)
    image = np.zeros((config.canvas, config.canvas), np.uint8)
    covered = np.zeros((config.canvas, config.canvas), np.float32)
    for cell in rng.choice(g * g, rng.integers(-(-g * g // 2), g * g + 1), replace=False):
        row, column = divmod(int(cell), g)
        filled = np.array(
            [
                [covered[y1:y2, x1:x2].mean() > config.filled_threshold for x1, x2 in pairwise(edges)]
                for y1, y2 in pairwise(edges)
            ]
        )
        if filled[row, column]:
            continue
        reach = 0
        while (
            reach < g
            and not filled[
                max(0, row - reach - 1) : row + reach + 2, max(0, column - reach - 1) : column + reach + 2
            ].any()
        ):
            reach += 1
        allowed = np.clip((2 * reach + 1) * side, config.min_side, config.max_side)
        size = int(rng.integers(config.min_side, int(allowed) + 1))
        glyph = cv2.resize(glyphs.images[int(rng.integers(len(glyphs)))], (size, size))
        center = (np.array([column, row]) + 0.5 + rng.uniform(-0.5, 0.5, 2) * config.position_variance) * side
        shift = np.array([[1, 0, center[0] - size / 2], [0, 1, center[1] - size / 2]])
        layer = cv2.warpAffine(glyph, shift, (config.canvas, config.canvas))
        ink = layer >= INK_THRESHOLD
        if ink.any():
            ys, xs = np.nonzero(ink)
            image[ink] = layer[ink]
            covered[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1] = 1
    return image


def rate(function: Callable[[int], Any], count: int, repeats: int = 3) -> float:
    """Measures calls per second, the best of several rounds."""
    rounds = []
    for _ in range(repeats):
        started = time.perf_counter()
        for index in range(count):
            function(index)
        rounds.append(time.perf_counter() - started)
    return count / min(rounds)


def measure(source: str, root: Path | None, canvas: int, count: int) -> dict[str, float]:
    glyphs = load_glyphs(source, "train", root)
    config = ScatterConfig(canvas=canvas, train=count, val=0, test=0)
    ours = rate(lambda i: scatter_image(glyphs, config, image_rng(0, "train", i)), count)
    plain = rate(lambda i: plain_scatter(glyphs, config, image_rng(0, "train", i)), count // 4)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "data"
        started = time.perf_counter()
        write_scatter(out, source, config, root)
        written = count / (time.perf_counter() - started)
        lazy, preloaded = (open_dataset(out, "train", preload=preload) for preload in (False, True))
        return {
            "scatter_images_per_s": ours,
            "plain_loop_images_per_s": plain,
            "speedup": ours / plain,
            "write_images_per_s": written,
            "read_images_per_s": rate(lazy.__getitem__, count),
            "read_preloaded_images_per_s": rate(preloaded.__getitem__, count),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--source", default="digits")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--canvas", type=int, default=128)
    parser.add_argument("--images", type=int, default=800)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    rates = measure(arguments.source, arguments.root, arguments.canvas, arguments.images)
    for name, value in rates.items():
        print(f"{name:30s} {value:10.1f}")
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "source": arguments.source,
            "canvas": arguments.canvas,
            "images": arguments.images,
            **rates,
        }
        arguments.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
