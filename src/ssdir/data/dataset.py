"""The data set of a split: images with their objects, whatever layout they were read from."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ssdir.data.annotations import AnnotationTable, clip_boxes, same_shape
from ssdir.data.images import Image8, read_channels, resize_nearest
from ssdir.data.letterbox import Letterbox, Resize, fit_image, fitted_size, pad_image
from ssdir.data.masks import read_mask
from ssdir.data.processes import run_jobs, starts_by_fork
from ssdir.errors import InputError, nearest
from ssdir.objects import Objects
from ssdir.ops.boxes import to_cxcywh

Sample: TypeAlias = tuple[Tensor, Objects]
Transform: TypeAlias = Callable[[Tensor, Objects], Sample]
Classes: TypeAlias = str | Sequence[str]
"""The classes to label objects with: `all`, `object`, or a list of names."""

_IMAGES_PER_JOB = 32
# Threads wait for each other where there are many, so processes read large data sets on many cores; but not where
# each new process would import the user's script again.
_MANY_CORES, _MANY_IMAGES = 4, 5000


class ObjectDataset(Dataset[Sample]):
    """A data set of images uint8 (3, H, W), and their `Objects` with batch size 1.

    Boxes are relative to the image that is returned, padding included. They are clipped to the part without
    padding; boxes without area and ignored boxes (crowd regions) are left out and counted in `dropped_boxes`.
    `z_depth` is the `draw_order` of the annotations (larger is nearer), `source_index` the asset's number; these,
    `track_id` and `visible` are None where the annotations lack them.

    Attributes:
        class_names: the names of the labels 0 ... K-1.
        category_names: the names of all categories.
        file_names: one per image, relative to the data set's folder.
        image_paths: one per image.
        dropped_boxes: number of annotations left out (see above).
    """

    def __init__(
        self,
        table: AnnotationTable,
        classes: Literal["all", "object"] | Sequence[str] = "all",
        image_size: int | None = None,
        transform: Transform | None = None,
        preload: bool = False,
        resize: Resize = "stretch",
    ) -> None:
        """Selects the objects of the annotations and, with `preload`, reads the images.

        Args:
            table: the annotations of the split.
            classes: "all" labels objects by category, in the annotations' order; "object" gives every object
                label 0, named "object"; a list of names keeps the objects of these categories, labelled in
                this order.
            image_size: side of the square that images are resized to; None leaves them as they are.
            transform: function applied to each sample, after resizing and before padding.
            preload: keeps all images in memory, grey ones as one channel.
            resize: whether images are stretched or letterboxed to the square.

        Raises:
            InputError: if a class is unknown; when reading, if an image is missing, damaged, or of another
                shape than annotated.
        """
        self.table = table
        self.classes = classes if isinstance(classes, str) else tuple(classes)
        self.image_size, self.transform, self.resize = image_size, transform, resize
        self.category_names = table.category_names
        label_of, self.class_names = _label_map(self.classes, table.category_names)
        self.file_names, self.image_sizes = table.image_names, table.image_sizes
        self.image_paths = table.image_paths

        boxes, has_area = clip_boxes(table.boxes_px, table.image_sizes[table.image])
        chosen, usable = label_of[table.category] >= 0, has_area & ~table.ignored
        self.dropped_boxes = int((~usable).sum())
        kept, self._starts = _by_image(table, chosen & usable)
        self._kept = kept
        ignored, self._ignored_starts = _by_image(table, chosen & has_area & table.ignored)
        self._ignored_z_where = to_cxcywh(torch.from_numpy(boxes[ignored])).float()
        self._ignored_labels = torch.from_numpy(label_of[table.category[ignored]])
        self._z_where = to_cxcywh(torch.from_numpy(boxes[kept])).float()
        self._categories = torch.from_numpy(table.category[kept])
        self._labels = torch.from_numpy(label_of[table.category[kept]])
        columns = {name: getattr(table, name) for name in ("draw_order", "source_index", "track_id", "visible")}
        self._columns = {
            name: torch.from_numpy(column[kept]) for name, column in columns.items() if column is not None
        }
        self._preloaded = self._read_all() if preload else None

    def with_transform(self, transform: Transform | None) -> ObjectDataset:
        """Returns the same data set with another transform; images in memory are shared, not read again."""
        other = copy.copy(self)
        other.transform = transform
        return other

    def __len__(self) -> int:
        return len(self.file_names)

    @property
    def clip_ranges(self) -> list[range]:
        """The images of each clip, its frames in order; empty where images are no clips."""
        if self.table.clip is None:
            return []
        starts = np.flatnonzero(np.diff(self.table.clip, prepend=-1)).tolist()
        return [range(*pair) for pair in pairwise([*starts, len(self)])]

    def __getitem__(self, index: int) -> Sample:
        return self.sample(index, self.objects(index))

    def sample(self, index: int, objects: Objects) -> Sample:
        """Returns an image and the given objects of it after the transform, if there is one.

        Args:
            index: number of the image.
            objects: some of its objects, with boxes relative to `image(index)`.
        """
        if self.transform is None:
            return self.image(index), objects
        return self.transform(_to_rgb(self._fitted(index)), self.letterbox([index]).to_image(objects))

    def draw(self, index: int) -> None:
        """Draws the random numbers that the transform draws for an image, without reading it."""
        if self.transform is not None:
            self.draw_for(index, self.objects(index))

    def draw_for(self, index: int, objects: Objects) -> None:
        """Draws the random numbers of `sample`, which depend on the image's size and boxes, not on its pixels."""
        assert self.transform is not None
        height, width = (int(side) for side in self.image_sizes[index])
        if self.image_size is not None:
            height, width = fitted_size((height, width), self.image_size, self.resize)
        without_pixels = torch.empty(3, height, width, dtype=torch.uint8, device="meta")
        self.transform(without_pixels, self.letterbox([index]).to_image(objects))

    def image(self, index: int) -> Tensor:
        """Returns an image uint8 (3, H, W), without the transform."""
        return _to_rgb(self.pixels(index))

    def pixels(self, index: int) -> Image8:
        """Returns an image uint8 (H, W, 3), or (H, W, 1) if grey, without the transform; don't write to it."""
        image = self._fitted(index)
        return image if self.image_size is None else pad_image(image, self.image_size)

    def letterbox(self, indices: Sequence[int]) -> Letterbox:
        """Returns the part of the output of `image` that each of the images covers; the rest is padding."""
        how = "stretch" if self.image_size is None else self.resize
        return Letterbox.of(self.image_sizes[list(indices)], self.image_size or 1, how)

    def _fitted(self, index: int) -> Image8:
        """Returns an image like `pixels`, but without padding."""
        return self._read(index) if self._preloaded is None else self._preloaded[index]

    def objects(self, index: int) -> Objects:
        """Returns the true objects of an image, without the transform."""
        rows = self._rows(index)
        return self.letterbox([index]).to_square(self._objects(rows, torch.zeros_like(self._labels[rows]), 1))

    def all_objects(self) -> Objects:
        """Returns the true objects of all images, without the transform."""
        counts = torch.from_numpy(np.diff(self._starts))
        image_index = torch.repeat_interleave(torch.arange(len(self)), counts)
        return self.letterbox(range(len(self))).to_square(self._objects(slice(None), image_index, len(self)))

    def ignored(self, index: int) -> Objects:
        """Returns the ignored regions of an image (crowds, small objects): a detection in them is no mistake."""
        rows = self._rows(index, self._ignored_starts)
        labels = self._ignored_labels[rows]
        regions = Objects(torch.zeros_like(labels), 1, self._ignored_z_where[rows], labels=labels)
        return self.letterbox([index]).to_square(regions)

    def _objects(self, rows: slice, image_index: Tensor, batch_size: int) -> Objects:
        labels = self._labels[rows]
        chosen = {name: column[rows] for name, column in self._columns.items()}
        return Objects(
            image_index=image_index,
            batch_size=batch_size,
            z_where=self._z_where[rows],
            labels=labels,
            z_depth=chosen["draw_order"].float() if "draw_order" in chosen else None,
            source_index=chosen.get("source_index"),
            track_id=chosen.get("track_id"),
            visible=chosen["visible"].float() if "visible" in chosen else None,
        )

    def categories(self, index: int) -> Tensor:
        """Returns the categories of `objects(index)`, int64 (n,): indices into `category_names`, not `classes`."""
        return self._categories[self._rows(index)]

    def attributes(self, index: int) -> dict[str, Tensor]:
        """Returns the attributes of `objects(index)` by name, int64 (n,): indices into `table.attribute_names`."""
        rows = self._kept[self._rows(index)]
        return {name: torch.from_numpy(column[rows]) for name, column in (self.table.attributes or {}).items()}

    def mask(self, index: int) -> Tensor | None:
        """Returns the mask of an image, without the transform; None if the annotations have no masks.

        Returns:
            int64 (H, W): i + 1 is object i of `objects(index)`, 0 is the background or an object that is left out.
            The mask has the image's size; with `image_size` it is stretched to the square, without padding.

        Raises:
            InputError: if the mask is missing, damaged, or of another shape than annotated.
        """
        table, rows = self.table, self._kept[self._rows(index)]
        if table.mask_names is None or table.mask_value is None:
            return None
        path = table.root / table.mask_names[index]
        height, width = self.image_sizes[index].tolist()
        values: NDArray[Any] = read_mask(path, (height, width), table.image_names[index])
        if self.image_size is not None:
            values = resize_nearest(values, self.image_size, self.image_size)
        mask = np.zeros(values.shape, dtype=np.int64)
        for number, value in enumerate(table.mask_value[rows].tolist(), start=1):
            mask[values == value] = number
        return torch.from_numpy(mask)

    def _rows(self, index: int, starts: NDArray[np.int64] | None = None) -> slice:
        starts = self._starts if starts is None else starts
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        index %= len(self)
        return slice(int(starts[index]), int(starts[index + 1]))

    def _read_all(self) -> list[Image8]:
        """Decodes all images, on all cores."""
        every, cores = range(len(self)), os.cpu_count() or 1
        runs = [every[start : start + _IMAGES_PER_JOB] for start in every[::_IMAGES_PER_JOB]]
        if cores >= _MANY_CORES and len(self) >= _MANY_IMAGES and starts_by_fork():
            with closing(run_jobs(self._read_some, runs, cores)) as results:
                return [image for images in results for image in images]
        with ThreadPoolExecutor(cores) as pool:
            return [image for images in pool.map(self._read_some, runs) for image in images]

    def _read_some(self, indices: range) -> list[Image8]:
        return [self._read(index) for index in indices]

    def _read(self, index: int) -> Image8:
        """Decodes an image: uint8 (H, W, 1 or 3)."""
        height, width = (int(side) for side in self.image_sizes[index])
        size = self.image_size
        path = self.image_paths[index]
        image = read_channels(path)
        if not same_shape((image.shape[0], image.shape[1]), (height, width)):
            raise InputError(
                f"{path}: {image.shape[1]} x {image.shape[0]} pixels, but annotated as {width} x {height}"
            )
        return image if size is None else fit_image(image, size, self.resize)


def _to_rgb(pixels: Image8) -> Tensor:
    """Copies an image uint8 (H, W, C) as (3, H, W), so that callers can't change a preloaded image."""
    channels = torch.from_numpy(pixels).permute(2, 0, 1)
    if len(channels) == 1:
        return channels.repeat(3, 1, 1)
    return channels.clone(memory_format=torch.contiguous_format)


def collate(samples: Sequence[Sample]) -> Sample:
    """Makes a batch: images float (B, 3, H, W) in [0, 1], and the packed `Objects` of all images.

    Raises:
        InputError: if the images differ in size.
    """
    sizes = {tuple(image.shape) for image, _ in samples}
    if len(sizes) > 1:
        raise InputError(f"images of different sizes can't be batched ({sorted(sizes)}): set image_size")
    images = torch.stack([image for image, _ in samples])
    return images.float().div_(255), Objects.cat([objects for _, objects in samples])


def fingerprint(dataset: ObjectDataset) -> str:
    """Returns 16 hex digits that identify the content of a data set and the settings that it is read with.

    They depend on the annotations, the names and sizes of the image and mask files, the image size and the
    classes, but not on the transform. No image is read.

    Raises:
        InputError: if an image file is missing.
    """
    table = dataset.table
    if table.unreadable is not None:  # Nothing is learned from these objects, so a run is the same without them.
        table = table.subset(np.flatnonzero(~table.unreadable), np.arange(len(table.image_names)))
    digest = hashlib.sha256(json.dumps([table.category_names, dataset.image_size, dataset.classes]).encode())
    if dataset.image_size is not None and dataset.resize != "stretch":
        digest.update(dataset.resize.encode())
    columns = (table.image, table.category, table.boxes_px, table.ignored, table.draw_order, table.source_index)
    for column in columns:
        digest.update(b"none" if column is None else np.ascontiguousarray(column).tobytes())
    for path, name in zip(dataset.image_paths, dataset.file_names, strict=True):
        try:
            digest.update(os.fsencode(f"{name}\0{os.stat(path).st_size}\0"))  # Names may be any bytes.
        except OSError:
            raise InputError(f"image '{path}' is missing") from None
    # Only columns that exist are hashed, because only evaluation reads these and most data lack them.
    further = {"clip": table.clip, "depth": table.depth, "mask": table.mask_value, "track": table.track_id}
    for name, values in sorted({**further, **(table.attributes or {})}.items()):
        if values is not None:
            digest.update(f"{name}\0".encode() + np.ascontiguousarray(values).tobytes())
    for name in table.mask_names or ():
        file = table.root / name
        digest.update(os.fsencode(f"{name}\0{file.stat().st_size if file.exists() else None}\0"))
    return digest.hexdigest()[:16]


def _by_image(table: AnnotationTable, chosen: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the chosen rows of a table, sorted by image, and the n + 1 offsets of each image's rows."""
    rows = np.flatnonzero(chosen)
    rows = rows[np.argsort(table.image[rows], kind="stable")]
    counts = np.bincount(table.image[rows], minlength=len(table.image_names))
    return rows, np.concatenate([[0], np.cumsum(counts)])


def _label_map(classes: str | tuple[str, ...], category_names: list[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Returns the label of each category (-1: left out), and the labels' names."""
    if classes == "all":
        return np.arange(len(category_names), dtype=np.int64), category_names
    if classes == "object":
        return np.zeros(len(category_names), dtype=np.int64), ["object"]
    names = [classes] if isinstance(classes, str) else list(classes)
    if not names:
        raise InputError(f"no class is chosen: name some of {', '.join(category_names)}, or take 'all'")
    label_of = np.full(len(category_names), -1, dtype=np.int64)
    for label, name in enumerate(names):
        if name not in category_names:
            known = f"; classes: {', '.join(category_names)}"
            raise InputError(f"unknown class '{name}'{nearest(name, category_names) or known}")
        if label_of[category_names.index(name)] >= 0:
            raise InputError(f"class '{name}' is chosen twice: name it once")
        label_of[category_names.index(name)] = label
    return label_of, names
