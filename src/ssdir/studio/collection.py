"""A data set's objects as one set to explore: their embeddings on a map, their crops, and who is like whom."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from ssdir.analysis.projections import MIN_TSNE_POINTS, Projection, tsne
from ssdir.data.images import Image8, read_image, shrink
from ssdir.errors import InputError
from ssdir.identity import Identity
from ssdir.inference.predictor import Predictor
from ssdir.objects import Objects
from ssdir.ops.glimpses import crop_glimpses
from ssdir.store.objects_file import find_picture, read_stored
from ssdir.studio.look import SHOWN_SIDE
from ssdir.studio.samples import Sample

CROP_SIDE = 32
MAX_POINTS = 2000
"""Most objects on the map; the nearest ones are looked for among all."""

_NUM_CLUSTERS = 10


@dataclass(frozen=True, eq=False)
class Collection:
    """Encoded objects of many pictures, and where the pictures are.

    Attributes:
        objects: of all pictures, packed, with z_what.
        names: of each picture, what to call it.
        sources: of each picture, its pixels, its file, or None where that is gone.
        class_names: the classes that `objects.labels` index.
    """

    objects: Objects
    names: Sequence[str]
    sources: Sequence[Image8 | Path | None]
    class_names: Sequence[str]

    def picture(self, image_index: int) -> Image8 | None:
        """A picture's pixels, at most `SHOWN_SIDE` a side; None if there is none, or it can't be read."""
        source = self.sources[image_index]
        return _read_if_possible(source) if isinstance(source, Path) else source

    @property
    def missing(self) -> int:
        """How many pictures are gone."""
        return sum(source is None for source in self.sources)


@dataclass(frozen=True, eq=False)
class ObjectMap:
    """Some objects of a collection in the plane, neighbours having like codes.

    Attributes:
        rows: int64 (n,), which objects.
        points: float (n, 2) in [0, 1].
        clusters: int64 (n,), k-means of the codes.
        sides: float (n,), the square root of the box's share of its picture.
        errors: float (n,), mean squared error of the decoded object against its crop; NaN without its picture.
        crops: uint8 (n, CROP_SIDE, CROP_SIDE, 3), grey without its picture.
    """

    rows: NDArray[np.int64]
    points: NDArray[np.float32]
    clusters: NDArray[np.int64]
    sides: NDArray[np.float32]
    errors: NDArray[np.float32]
    crops: NDArray[np.uint8]


def collect_samples(predictor: Predictor, samples: Sequence[Sample]) -> Collection:
    """The objects that a model finds in pictures in memory."""
    images = [sample.image for sample in samples]
    names = [sample.name for sample in samples]
    return Collection(predictor.encode(images), names, images, predictor.class_names)


def open_collection(path: str | Path, identity: Identity) -> Collection:
    """A file of objects that `ssdir encode` wrote, with its pictures where they are: as named there, or beside it.

    Args:
        path: the file.
        identity: of the studio's model, which must be the file's.

    Raises:
        InputError: if the file can't be read, has no objects, or is of another model.
    """
    path = Path(path)
    stored = read_stored(path, identity)
    if not len(stored):
        raise InputError(f"'{path}' holds no objects: encode pictures in which something is detected")
    objects, names = stored.to_objects()
    sources = [_find(name, path.parent) for name in names]
    return Collection(objects, [Path(name).name for name in names], sources, stored.info.class_names)


def nearest(
    z_what: NDArray[np.float32], row: int, count: int = 12
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The objects whose codes are most like one's: exact search by cosine.

    Args:
        z_what: float (M, D), all codes.
        row: whose neighbours.
        count: most neighbours.

    Returns:
        Rows int64 (n,), the most alike first, without the object itself, and their cosines float32 (n,).
    """
    unit = z_what / np.linalg.norm(z_what, axis=1, keepdims=True).clip(1e-12)
    cosines = unit @ unit[row]
    order = np.argsort(-cosines, kind="stable")
    order = order[order != row][:count]
    return order, cosines[order]


def map_objects(collection: Collection, predictor: Predictor, seed: int = 0) -> ObjectMap:
    """Lays a collection's objects out in the plane: t-SNE of `z_what`, of at most `MAX_POINTS` drawn at random."""
    codes = collection.objects.z_what
    assert codes is not None
    if len(codes) >= MIN_TSNE_POINTS:
        projection = tsne(codes, seed, MAX_POINTS)
    else:  # Too few to be laid out: in a row.
        across = np.linspace(0, 1, len(codes), dtype=np.float32)
        projection = Projection(np.stack([across, across * 0], axis=1), np.arange(len(codes)))
    low, extent = projection.points.min(axis=0), np.ptp(projection.points, axis=0).clip(1e-6)
    objects = collection.objects[torch.from_numpy(projection.rows)]
    crops, known = _crops(collection, objects)
    return ObjectMap(
        rows=projection.rows,
        points=(projection.points - low) / extent,
        clusters=_clusters(codes[projection.rows].numpy(), seed),
        sides=objects.z_where[:, 2:].prod(dim=1).sqrt().numpy(),
        errors=_errors(predictor, objects, crops, known),
        crops=crops,
    )


def _clusters(codes: NDArray[np.float32], seed: int) -> NDArray[np.int64]:
    count = min(_NUM_CLUSTERS, len(codes))
    clusters: NDArray[np.int64] = KMeans(count, n_init=3, random_state=seed).fit_predict(codes).astype(np.int64)
    return clusters


def _crops(collection: Collection, objects: Objects) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Crops (n, CROP_SIDE, CROP_SIDE, 3), and which are real."""
    crops = np.full((len(objects), CROP_SIDE, CROP_SIDE, 3), 128, np.uint8)
    known = np.zeros(len(objects), bool)
    for index in objects.image_index.unique().tolist():
        picture = collection.picture(index)
        if picture is None:
            continue
        here = (objects.image_index == index).numpy()
        boxes = objects.boxes[here]
        image = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
        cut = crop_glimpses(image, boxes, torch.zeros(len(boxes), dtype=torch.int64), CROP_SIDE)
        crops[here] = cut.clamp(0, 255).round().byte().permute(0, 2, 3, 1).numpy()
        known[here] = True
    return crops, known


def _errors(
    predictor: Predictor, objects: Objects, crops: NDArray[np.uint8], known: NDArray[np.bool_]
) -> NDArray[np.float32]:
    drawn = predictor.decode(objects).appearances
    drawn = torch.nn.functional.interpolate(drawn, (CROP_SIDE, CROP_SIDE), mode="area")
    target = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255
    errors = (drawn - target).square().mean(dim=(1, 2, 3)).numpy().astype(np.float32)
    return np.where(known, errors, np.float32("nan"))


def _find(name: str, folder: Path) -> Path | None:
    path = find_picture(name, ".", folder, beside=folder)
    return path.absolute() if os.path.isfile(path) else None


@lru_cache(maxsize=32)
def _read_if_possible(path: Path) -> Image8 | None:
    try:
        return shrink(read_image(path), SHOWN_SIDE)
    except InputError:
        return None
