"""The objects of many images, to explore: their map, their crops, and their nearest neighbours."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.preprocessing import normalize
from torch import Tensor

from ssdir.analysis.clusters import cluster_embeddings
from ssdir.analysis.projections import MIN_TSNE_POINTS, Projection, tsne
from ssdir.data.frame_names import file_of
from ssdir.data.images import Image8, read_image, shrink, to_tensor
from ssdir.data.samples import NamedImage
from ssdir.errors import InputError
from ssdir.identity import Identity
from ssdir.inference.predictor import Predictor
from ssdir.objects import Objects
from ssdir.ops.glimpses import crop_glimpses
from ssdir.plots import to_pixels
from ssdir.storage import Location, absolute, pure_path, to_location
from ssdir.store.objects_file import find_picture, read_stored
from ssdir.studio.images import SHOWN_SIDE

CROP_SIDE = 32
_NUM_CLUSTERS = 10
_DECODED_AT_ONCE = 256
_NO_MODEL = (
    "{path} does not say which model encoded it, because the tool that wrote it dropped that. If it was another "
    "model than {model}, everything decoded from it is wrong."
)


@dataclass(frozen=True, eq=False)
class Collection:
    """Encoded objects of many images, and where the images are.

    Attributes:
        objects: the objects of all images, packed, with z_what.
        names: name of each image.
        sources: pixels, file or URI of each image; None where the file is missing.
        class_names: the classes that `objects.labels` index.
        note: what the user must know of them, a sentence.
    """

    objects: Objects
    names: Sequence[str]
    sources: Sequence[Image8 | Location | None]
    class_names: Sequence[str]
    note: str = ""

    @property
    def z_what(self) -> Tensor:
        """The embeddings, float (M, D)."""
        assert self.objects.z_what is not None
        return self.objects.z_what

    @property
    def num_missing(self) -> int:
        """Number of images whose file is missing."""
        return sum(source is None for source in self.sources)

    def image(self, image_index: int) -> Image8 | None:
        """Reads an image, at most `SHOWN_SIDE` a side; returns None if it is missing or damaged."""
        source = self.sources[image_index]
        return _read_if_possible(source) if isinstance(source, (str, Path)) else source

    def named(self, image_index: int) -> NamedImage | None:
        """Returns an image to open; None if it is missing or damaged."""
        image, source = self.image(image_index), self.sources[image_index]
        if image is None:
            return None
        return NamedImage(self.names[image_index], image, source if isinstance(source, (str, Path)) else None)

    def samples(self, count: int) -> list[NamedImage]:
        """Returns the first images, at most `count`, that have objects and can be read."""
        indices = self.objects.image_index.unique().tolist()
        readable = (named for index in indices if (named := self.named(index)) is not None)
        return list(itertools.islice(readable, count))

    def nearest(self, row: int, count: int = 12) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Searches all objects for the nearest neighbours of one, by cosine similarity.

        Returns:
            Rows int64 (n,), the nearest first, without the object itself, and their similarities float32 (n,).
        """
        unit = normalize(self.z_what.numpy())
        similarity = unit @ unit[row]
        order = np.argsort(-similarity, kind="stable")
        order = order[order != row][:count]
        return order, similarity[order]


@dataclass(frozen=True, eq=False)
class ObjectMap:
    """Objects of a collection in the plane, where similar embeddings are close together.

    Attributes:
        rows: int64 (n,), rows of the collection.
        points: float (n, 2) in [0, 1].
        clusters: int64 (n,), clusters of the embeddings, the largest first.
        sides: float (n,), the square root of the box's share of its image.
        errors: float (n,), mean squared error of the decoded object against its crop; NaN without its image.
        crops: uint8 (n, CROP_SIDE, CROP_SIDE, 3), grey without its image.
    """

    rows: NDArray[np.int64]
    points: NDArray[np.float32]
    clusters: NDArray[np.int64]
    sides: NDArray[np.float32]
    errors: NDArray[np.float32]
    crops: NDArray[np.uint8]


def collect_images(predictor: Predictor, images: Sequence[NamedImage]) -> Collection:
    """Encodes images."""
    sources = [each.source for each in images]
    return Collection(predictor.encode(sources), [each.name for each in images], sources, predictor.class_names)


def open_collection(path: str | Path, identity: Identity, images: Path | None = None) -> Collection:
    """Opens a file or folder that `ssdir encode` wrote.

    Args:
        path: the file or folder.
        identity: identity of the studio's model, which must have written the file. A file that has lost the name
            of its model is opened with a note.
        images: folder of the images, if they have moved, see `find_picture`; None also tries the file's own.

    Raises:
        InputError: if the file can't be read, holds no objects, or belongs to another model.
    """
    stored = read_stored(path, identity)
    around = stored.info.around
    if not len(stored):
        raise InputError(f"'{path}' holds no objects: encode images in which something is detected")
    objects, names = stored.to_objects()
    files = [find_picture(name, ".", around, beside=images or around) for name in names]
    sources = [
        absolute(file) if isinstance(file, str) or os.path.isfile(file_of(file)) else None for file in files
    ]
    file_name = pure_path(stored.info.path).name
    note = "" if stored.info.names_model else _NO_MODEL.format(path=file_name, model=identity.model)
    titles = [pure_path(to_location(name)).name for name in names]
    return Collection(objects, titles, sources, stored.info.class_names, note)


def map_objects(collection: Collection, predictor: Predictor, seed: int = 0) -> ObjectMap:
    """Maps a collection's objects, or a random sample of many, into the plane by t-SNE of `z_what`."""
    if len(collection.z_what) >= MIN_TSNE_POINTS:
        projection = tsne(collection.z_what, seed)
    else:  # Too few for t-SNE: they are put in a row.
        x = np.linspace(0, 1, len(collection.z_what), dtype=np.float32)
        projection = Projection(np.stack([x, x * 0], axis=1), np.arange(len(x)))
    low, extent = projection.points.min(axis=0), np.ptp(projection.points, axis=0).clip(1e-6)
    objects = collection.objects[torch.from_numpy(projection.rows)]
    z_what = collection.z_what[projection.rows].numpy()
    crops, known = _crops(collection, objects)
    decoded = decode_alone(predictor, objects)
    decoded = torch.nn.functional.interpolate(decoded, (CROP_SIDE, CROP_SIDE), mode="area")
    errors = (decoded - crops).square().mean(dim=(1, 2, 3)).where(known, torch.nan)
    return ObjectMap(
        rows=projection.rows,
        points=(projection.points - low) / extent,
        clusters=cluster_embeddings(z_what, min(_NUM_CLUSTERS, len(z_what)), seed).labels,
        sides=objects.z_where[:, 2:].prod(dim=1).sqrt().numpy(),
        errors=errors.numpy(),
        crops=np.stack([to_pixels(crop) for crop in crops]),
    )


def decode_alone(predictor: Predictor, objects: Objects) -> Tensor:
    """Decodes objects to their appearances, float (M, 3, S, S), some at once.

    A model composites a scene for each image of the batch, so images without any of the objects are left out.
    """
    decoded = []
    for rows in torch.arange(len(objects)).split(_DECODED_AT_ONCE):
        part = objects[rows]
        images, place = part.image_index.unique(return_inverse=True)
        decoded.append(predictor.decode(part.replace(image_index=place, batch_size=len(images))).appearances)
    return torch.cat(decoded)


def _crops(collection: Collection, objects: Objects) -> tuple[Tensor, Tensor]:
    """Returns crops float (n, 3, CROP_SIDE, CROP_SIDE), and bool (n,), False where the image is missing."""
    crops = torch.full((len(objects), 3, CROP_SIDE, CROP_SIDE), 0.5)
    known = torch.zeros(len(objects), dtype=torch.bool)
    for index in objects.image_index.unique().tolist():
        image = collection.image(index)
        if image is None:
            continue
        here = objects.image_index == index
        boxes = objects.boxes[here]
        crops[here] = crop_glimpses(
            to_tensor(image)[None], boxes, torch.zeros(len(boxes), dtype=torch.int64), CROP_SIDE
        )
        known |= here
    return crops, known


@lru_cache(maxsize=32)
def _read_if_possible(path: Location) -> Image8 | None:
    try:
        return shrink(read_image(path), SHOWN_SIDE)
    except InputError:
        return None
