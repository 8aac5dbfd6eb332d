"""Measures the time of embedding photographs with many objects, relative to that of crops in the same run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import cv2
import numpy as np
import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ssdir.benchmark.timing import Spread, in_turn, ratio
from ssdir.console import Advance, no_progress
from ssdir.data.images import Image8
from ssdir.objects import Objects
from ssdir.reproduce.photos.embedders import COMPONENTS, CropEmbedder, Embedder

COUNTS = (5, 20, 50)
"""Numbers of objects per image."""
REPEATS = 3


def time_metrics(
    embedder: Embedder, images: Sequence[Image8], progress: Advance = no_progress
) -> dict[str, float]:
    """Times one thread from decoded photographs to embeddings of given boxes, one image after the other.

    Processor time is counted, so that other load on the machine hardly matters.

    Args:
        embedder: the embedder, fitted.
        images: photographs, each uint8 (H, W, 3).
        progress: called with (counts done, all counts, what is done).

    Returns:
        For each of `COUNTS`: `time/COUNT/ms`, the median of milliseconds per image, and
        `time/COUNT/share_of_crops`, the median of its ratio to crops at 224 px through a pretrained network, in
        the same rounds.
    """
    crops = CropEmbedder("crops-224", side=224)
    crops.fit(np.random.default_rng(0).standard_normal((2 * COMPONENTS, crops.num_features)).astype(np.float32), 0)
    metrics = {}
    with one_thread():
        for number, count in enumerate(COUNTS, start=1):
            boxes = [random_boxes(count, seed) for seed in range(len(images))]
            variants = {
                name: partial(_embed_each, each, images, boxes)
                for name, each in (("row", embedder), ("crops", crops))
            }
            seconds = in_turn(variants, REPEATS, clock=time.process_time)
            metrics[f"time/{count}/ms"] = 1000 * Spread.of(seconds["row"]).median / len(images)
            metrics[f"time/{count}/share_of_crops"] = ratio(seconds["row"], seconds["crops"]).median
            progress(number, len(COUNTS), "time")
    return metrics


def _embed_each(embedder: Embedder, images: Sequence[Image8], boxes: Sequence[Objects]) -> None:
    for image, objects in zip(images, boxes, strict=True):
        embedder.embed([image], objects)


def random_boxes(count: int, seed: int) -> Objects:
    """Makes boxes of one image, with sides between a tenth and a half of its own."""
    generator = torch.Generator().manual_seed(seed)
    sides = 0.1 + 0.4 * torch.rand(count, 2, generator=generator)
    centers = sides / 2 + (1 - sides) * torch.rand(count, 2, generator=generator)
    return Objects(torch.zeros(count, dtype=torch.int64), 1, torch.cat([centers, sides], dim=1))


@contextmanager
def one_thread() -> Iterator[None]:
    """Runs torch, OpenCV and BLAS on one thread inside the block."""
    of_torch, of_opencv = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(of_torch)
        cv2.setNumThreads(of_opencv)
