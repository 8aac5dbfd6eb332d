"""Odd objects: those unlike all others, and those that their model can't draw."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata  # type: ignore[import-untyped]
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from ssdir.inference.predictor import Predictor
from ssdir.objects import Objects
from ssdir.ops.glimpses import crop_glimpses

NEIGHBOURS = 10
COMPARED = 20_000
"""Objects that each is compared with, drawn at random where there are more: time grows with their product."""
AT_ONCE = 2_000
"""Objects compared between two reports of progress; the distances of so many fit in memory."""
SIDE = 32
"""Side of the crops that drawing errors are measured on, so that large objects count as small ones do."""


def loneliness(
    codes: NDArray[np.floating[Any]],
    neighbours: int = NEIGHBOURS,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> NDArray[np.float64]:
    """Mean cosine distance of each code (M, D) to its nearest others: (M,), 0 … 2.

    Args:
        codes: of two objects at least.
        neighbours: how many are nearest.
        seed: of the objects that each is compared with, where there are more than `COMPARED`.
        on_progress: called with (objects done, all objects).
    """
    count = len(codes)
    drawn = np.sort(np.random.default_rng(seed).permutation(count)[:COMPARED])
    nearest = NearestNeighbors(n_neighbors=min(neighbours + 1, len(drawn)), metric="cosine").fit(codes[drawn])
    width = max(1, min(neighbours, len(drawn) - 1))
    lonely = np.zeros(count)
    for start in range(0, count, AT_ONCE):
        rows = np.arange(start, min(start + AT_ONCE, count))
        distance, index = nearest.kneighbors(codes[rows])
        ranked = np.where(drawn[index] != rows[:, None], distance, np.inf)
        ranked.sort(axis=1)
        kept = ranked[:, :width]
        lonely[rows] = np.where(np.isfinite(kept), kept, 0).mean(axis=1)
        on_progress(int(rows[-1]) + 1, count)
    return lonely


@torch.no_grad()
def drawing_errors(
    predictor: Predictor,
    objects: Objects,
    images: list[Path],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> NDArray[np.float64]:
    """Mean squared difference, in each object's box, between the picture and what the model draws.

    Args:
        predictor: of the model that encoded.
        objects: as stored.
        images: the picture of each image of the batch.
        on_progress: images done, of how many.

    Raises:
        InputError: if a picture can't be read, or the model can't draw.
    """
    errors = []
    for number, part in enumerate(objects.split()):
        if len(part):
            seen = predictor.prepare([images[number]])
            drawn = predictor.decode(part).reconstructions
            errors.append(_in_boxes((drawn - seen) ** 2, part))
        on_progress(number + 1, len(images))
    return torch.cat(errors).double().numpy() if errors else np.zeros(0)


def _in_boxes(squares: Tensor, objects: Objects) -> Tensor:
    crops = crop_glimpses(squares, objects.boxes, torch.zeros(len(objects), dtype=torch.int64), SIDE)
    return crops.mean(dim=(1, 2, 3))


def oddness(*measures: NDArray[np.float64]) -> NDArray[np.float64]:
    """Several measures as one: the mean of their ranks, 0 for the most ordinary, 1 for the oddest."""
    last = max(len(measures[0]) - 1, 1)
    return np.asarray(np.mean([(rankdata(each) - 1) / last for each in measures], axis=0))
