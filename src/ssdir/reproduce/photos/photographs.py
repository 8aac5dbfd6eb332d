"""Photographs with boxes and classes: the data sets of the comparison, and a user's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import KFold

from ssdir.data.annotations import keep_readable
from ssdir.data.dataset import ObjectDataset, fingerprint
from ssdir.data.images import Image8, read_image
from ssdir.data.readers.registry import read_annotations
from ssdir.errors import InputError, MissingSplitError
from ssdir.evaluation.embedded import Integers
from ssdir.evaluation.robustness import Change
from ssdir.formatting import counted
from ssdir.objects import Objects
from ssdir.ops.boxes import to_cxcywh

NUM_FOLDS = 5


@dataclass(frozen=True)
class Splits:
    """The splits to compare on.

    Attributes:
        train: the split to learn from.
        test: the split to test on; None takes `val` or, where the data have none, divides `train` into folds.
    """

    train: str = "train"
    test: str | None = None

    @property
    def test_name(self) -> str:
        """Name of the split to test on, if the data have it."""
        return self.test or "val"


DEFAULT_SPLITS = Splits()


@dataclass(frozen=True)
class Source:
    """The location of a data set.

    Attributes:
        folders: one or more folders, relative to the folder of all data, which are used together.
        min_side: least width and height of an object, relative to the image's.
    """

    folders: tuple[str, ...]
    min_side: float = 0.0


SOURCES: Mapping[str, Source] = {
    "voc": Source(("voc/VOCdevkit/VOC2012",)),
    "coco128": Source(("coco128",)),
    "widerface": Source(("widerface", "widerface-512"), min_side=0.04),
}


@dataclass(frozen=True)
class Fold:
    """A division of images: the numbers of those to learn from and of those to test on, each int64 (n,)."""

    train: Integers
    test: Integers


@dataclass(frozen=True)
class Photographs:
    """A data set of n photographs. Objects that are difficult, ignored or too small are left out.

    Attributes:
        name: its name in results.
        paths: the image files.
        objects: the objects of each image; `labels` index `class_names`.
        attributes: by name, int64 (T,), of the objects of all images in turn; empty if the data have none.
        class_names: the classes.
        folds: one if the data have a split to test on; else `NUM_FOLDS` of whole images, each tested once.
        data_hash: fingerprint of the data.
    """

    name: str
    paths: Sequence[Path]
    objects: Sequence[Objects]
    attributes: Mapping[str, Integers]
    class_names: Sequence[str]
    folds: Sequence[Fold]
    data_hash: str

    @property
    def labels(self) -> Integers:
        """The classes of the objects of all images in turn, int64 (T,)."""
        return np.concatenate([objects.labels.numpy() for objects in self.objects if objects.labels is not None])

    @property
    def image_index(self) -> Integers:
        """The image of each object, int64 (T,)."""
        return np.repeat(np.arange(len(self.objects)), [len(objects) for objects in self.objects])

    @property
    def tested(self) -> Integers:
        """The images that are in the test part of a fold."""
        return np.sort(np.concatenate([fold.test for fold in self.folds]))

    def batches(
        self, chosen: Integers, size: int, change: Change | None = None
    ) -> Iterator[tuple[list[Image8], Objects]]:
        """Reads images in batches, changed if a change is given, with their objects; see `CHANGES`."""
        for start in range(0, len(chosen), size):
            images, parts = [], []
            for row in chosen[start : start + size].tolist():
                image, objects = read_image(self.paths[row]), self.objects[row]
                if change is not None:
                    image, boxes = change(image, objects.boxes.numpy())
                    objects = objects.replace(z_where=to_cxcywh(torch.from_numpy(boxes)))
                images.append(image)
                parts.append(objects)
            yield images, Objects.cat(parts)


def open_photographs(name: str, data: Path, splits: Splits = DEFAULT_SPLITS) -> Photographs:
    """Opens one of `SOURCES` below a folder.

    Raises:
        InputError: if it is not there, or can't be read.
    """
    source = SOURCES[name]
    return read_photographs(name, [data / folder for folder in source.folders], source.min_side, splits)


def read_photographs(
    name: str, folders: Sequence[Path], min_side: float = 0.0, splits: Splits = DEFAULT_SPLITS
) -> Photographs:
    """Opens data sets of any known layout as one.

    Args:
        name: name in results.
        folders: their folders; all have the same classes.
        min_side: least width and height of an object, relative to the image's.
        splits: the splits to learn from and to test on.

    Raises:
        InputError: if one can't be read, their classes differ, an image is in both splits, or there is no
            object to learn from or to test on.
    """
    parts = [_read_split(folder, splits.train, min_side) for folder in folders]
    try:
        tests = [_read_split(folder, splits.test_name, min_side) for folder in folders]
    except MissingSplitError:
        if splits.test is not None:
            raise
        tests = []
    every = [*parts, *tests]
    names = every[0].category_names
    if any(each.category_names != names for each in every):
        raise InputError(f"{name}: the splits or folders have different classes, so they can't be compared as one")
    paths = [path for each in every for path in each.image_paths]
    objects = [each.objects(row) for each in every for row in range(len(each))]
    known = [each.attributes(row) for each in every for row in range(len(each))]
    attributes = {key: np.concatenate([values[key].numpy() for values in known]) for key in known[0]}
    num_train = sum(map(len, parts))
    if both := set(paths[:num_train]) & set(paths[num_train:]):
        raise InputError(
            f"{name}: {counted(len(both), 'image')} of split {splits.test_name}, such as '{min(both)}', would "
            f"be learned from too, in split {splits.train}: give splits that share no image"
        )
    data_hash = "-".join(fingerprint(each) for each in every)
    folds = _folds(name, num_train, len(paths))
    counts = np.array([len(each) for each in objects])
    if any(not counts[images].sum() for fold in folds for images in (fold.train, fold.test)):
        of_splits = f"split {splits.train} or {splits.test_name}"
        where = of_splits if tests else f"one of {NUM_FOLDS} parts of the images"
        raise InputError(f"{name}: {where} of '{folders[0]}' has no object: give more images with objects")
    return Photographs(name, paths, objects, attributes, names, folds, data_hash)


def _read_split(folder: Path, split: str, min_side: float) -> ObjectDataset:
    table = keep_readable(read_annotations(folder, split), min_side, drop_empty=False)
    if table.difficult is not None:
        table = table.subset(np.flatnonzero(~table.difficult), np.arange(len(table.image_names)))
    return ObjectDataset(table)


def _folds(name: str, num_train: int, num_images: int) -> list[Fold]:
    """Divides images: at the split, or, without one to test on, into `NUM_FOLDS` at random."""
    if num_train < num_images:
        return [Fold(np.arange(num_train), np.arange(num_train, num_images))]
    if num_images < NUM_FOLDS:
        raise InputError(
            f"{name}: {num_images} images and no split val: at least {NUM_FOLDS} are needed to divide"
        )
    folds: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = list(
        KFold(NUM_FOLDS, shuffle=True, random_state=0).split(np.arange(num_images))
    )
    return [Fold(train, test) for train, test in folds]
