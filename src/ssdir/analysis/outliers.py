"""Ranks outliers: objects whose embeddings are far from all others, or that the model reconstructs badly."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata  # type: ignore[import-untyped]
from sklearn.neighbors import NearestNeighbors

from ssdir.analysis.output import COLUMNS, AnalysisOutput
from ssdir.analysis.tracks import read_entries
from ssdir.console import Advance, no_progress
from ssdir.data.images import to_tensor
from ssdir.data.letterbox import read_square
from ssdir.errors import InputError, InputWarning
from ssdir.formatting import quote
from ssdir.identity import check_comparable
from ssdir.inference.engines import load_identity
from ssdir.inference.predictor import Predictor, load
from ssdir.objects import Objects
from ssdir.ops.glimpses import crop_glimpses
from ssdir.storage import Location
from ssdir.store.columns import numbers
from ssdir.store.objects_file import StoredObjects, find_picture

NEIGHBOURS = 10
COMPARED = 20_000
"""Maximum number of objects that each object is compared with; of more, a random sample is taken."""
AT_ONCE = 2_000
"""Number of objects whose distances are computed at once; progress is reported after each such batch."""
SIDE = 32
"""Side of the crops that errors are measured on, in pixels, so that errors don't depend on an object's size."""


@dataclass(frozen=True)
class OutlierRanking:
    """Outlier scores of the M objects of a file.

    Attributes:
        score: mean rank of the measures, float64 (M,), from 0, the most ordinary object, to 1, the worst outlier.
        measures: each float64 (M,), by name: `knn_distance` and, where measured, `reconstruction_error`.
        images: path of each object's image.
    """

    score: NDArray[np.float64]
    measures: dict[str, NDArray[np.float64]]
    images: Sequence[str]

    @property
    def order(self) -> NDArray[np.int64]:
        """The rows, the worst outlier first."""
        return np.argsort(-self.score, kind="stable")


def rank_outliers_file(
    objects: str | Path,
    output: AnalysisOutput,
    model: str | None = None,
    embeddings_only: bool = False,
    on_progress: Advance = no_progress,
    per_view: bool = False,
) -> OutlierRanking:
    """Ranks the objects of a file; the output has the columns `outlier_score` and those of the measures.

    If the model or an image is not available, or an image has another size than the encoded one, the ranking uses
    embeddings alone, and an `InputWarning` says so.

    Args:
        objects: file or folder that `ssdir encode` or `ssdir track` wrote.
        output: files to write; the image grid shows the worst outliers and the most ordinary objects.
        model: the model that encoded, if the file no longer names it; the model and the images must then exist.
        embeddings_only: leave out the reconstruction errors, which take time.
        on_progress: called with (objects or images done, of how many, what is done).
        per_view: of a file of tracks, rank every view, not the track as one, see `ssdir.analysis.tracks`.

    Raises:
        InputError: as `read_entries`; with `model`, as `reconstruction_errors`.
    """
    stored = read_entries(objects, load_identity(model), 2, per_view)
    measures = {"knn_distance": knn_distances(stored.z_what, on_progress=on_progress)}
    if not embeddings_only:
        try:
            measures["reconstruction_error"] = _errors_of_rows(stored, on_progress)
        except InputError as error:
            if model is not None:
                raise
            warnings.warn(InputWarning(f"ranked by the embeddings alone: {error}"), stacklevel=2)
    ranking = OutlierRanking(outlier_scores(*measures.values()), measures, stored.table["image"].to_pylist())
    order = ranking.order
    shown = {f"outliers {first + 1} …": order[first : first + COLUMNS] for first in range(0, 4 * COLUMNS, COLUMNS)}
    shown["most ordinary"] = order[::-1]
    output.write(stored, {"outlier_score": ranking.score, **measures}, shown, lambda row: f"row {row}")
    return ranking


def knn_distances(
    z_what: NDArray[np.floating[Any]],
    neighbours: int = NEIGHBOURS,
    seed: int = 0,
    on_progress: Advance = no_progress,
) -> NDArray[np.float64]:
    """Computes the mean cosine distance of each embedding (M, D) to its nearest neighbours: (M,), 0 … 2.

    Args:
        z_what: embeddings of at least two objects.
        neighbours: number of nearest neighbours.
        seed: seed of the sample of objects to compare with, if there are more than `COMPARED`.
        on_progress: called with (objects done, all objects).
    """
    count = len(z_what)
    compared = np.sort(np.random.default_rng(seed).permutation(count)[:COMPARED])
    nearest = NearestNeighbors(n_neighbors=min(neighbours + 1, len(compared)), metric="cosine")
    nearest.fit(z_what[compared])
    width = max(1, min(neighbours, len(compared) - 1))
    distances = np.zeros(count)
    for start in range(0, count, AT_ONCE):
        rows = np.arange(start, min(start + AT_ONCE, count))
        distance, index = nearest.kneighbors(z_what[rows])
        ranked = np.where(compared[index] != rows[:, None], distance, np.inf)
        ranked.sort(axis=1)
        kept = ranked[:, :width]
        distances[rows] = np.where(np.isfinite(kept), kept, 0).mean(axis=1)
        on_progress(int(rows[-1]) + 1, count, "comparing")
    return distances


@torch.no_grad()
def reconstruction_errors(
    predictor: Predictor,
    objects: Objects,
    images: Sequence[Location],
    sizes: NDArray[np.int64],
    on_progress: Advance = no_progress,
) -> NDArray[np.float64]:
    """Computes the mean squared error between image and reconstruction in each object's box: (M,).

    A reconstruction is over the background, for models that infer one.

    Args:
        predictor: the model that encoded the objects.
        objects: the M stored objects.
        images: the file of each image of the batch.
        sizes: (height, width) of each that is encoded, in pixels, int64 (B, 2).
        on_progress: called with (images done, all images).

    Raises:
        InputError: if an image can't be read or has another size, or the model has no decoder.
    """
    errors = []
    for number, part in enumerate(objects.split()):
        if len(part):
            size, pixels = read_square(images[number], predictor.image_size)
            if size != tuple(sizes[number]):
                now, before = (f"{width} x {height}" for height, width in (size, sizes[number]))
                raise InputError(
                    f"'{images[number]}' has {now} pixels, but the image that was encoded had {before}"
                )
            squares = (predictor.reconstruct(pixels, part).reconstructions - to_tensor(pixels)) ** 2
            crops = crop_glimpses(squares, part.boxes, torch.zeros(len(part), dtype=torch.int64), SIDE)
            errors.append(crops.mean(dim=(1, 2, 3)))
        on_progress(number + 1, len(images), "reconstructing")
    return torch.cat(errors).double().numpy() if errors else np.zeros(0)


def _errors_of_rows(stored: StoredObjects, on_progress: Advance) -> NDArray[np.float64]:
    """Computes the reconstruction errors of the rows of a file, with the model that it names."""
    info, folder = stored.info, stored.info.around
    predictor = load(info.model)
    check_comparable(info, f"'{info.path}' (model {quote(info.model)})", predictor, f"'{info.model}'")
    (objects, images), (table, _) = stored.to_objects(), stored.by_image()
    index, sizes = numbers(table["image_index"]), np.zeros((len(images), 2), dtype=np.int64)
    sizes[index] = np.stack([numbers(table[name]) for name in ("image_height", "image_width")], axis=1)
    files = [find_picture(image, ".", folder, beside=folder) for image in images]
    errors = np.empty(len(stored))
    # `to_objects` sorts by image.
    order = np.argsort(index, kind="stable")
    errors[order] = reconstruction_errors(predictor, objects, files, sizes, on_progress)
    return errors


def outlier_scores(*measures: NDArray[np.float64]) -> NDArray[np.float64]:
    """Combines measures into the mean of their ranks, from 0, most ordinary, to 1, the worst outlier."""
    last = max(len(measures[0]) - 1, 1)
    return np.asarray(np.mean([(rankdata(each) - 1) / last for each in measures], axis=0))
