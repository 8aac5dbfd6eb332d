"""Batches of a split, collated on the host or looked up in a GPU's own memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ssdir.data.dataset import ObjectDataset, Sample, collate
from ssdir.models.detected.memory import TrackViews
from ssdir.objects import Objects
from ssdir.ops.distributed import part_of

CachedSample: TypeAlias = tuple[Tensor, Objects, list[Tensor]]

MEMORY_SHARE = 0.4
"""Share of a GPU's free memory that a split's images may take."""

_IMAGES_AT_ONCE = 512


@dataclass(frozen=True)
class Batch:
    """A batch of a stage.

    Attributes:
        images: float (B, 3, H, W) in [0, 1].
        objects: true objects, or, for the representation, the frozen detector's detections.
        features: float feature maps of the frozen detector, see `SSD.read`; empty where they are not kept.
    """

    images: Tensor
    objects: Objects
    features: Sequence[Tensor] = ()

    @property
    def size(self) -> int:
        """Number of images."""
        return len(self.images)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to learn from."""
        return not len(self.objects)

    def to(self, device: torch.device) -> Batch:
        """Moves the batch to a device."""
        images = self.images.to(device, non_blocking=True)
        return Batch(images, self.objects.to(device), [feature.to(device) for feature in self.features])

    def pin_memory(self) -> Batch:
        """Moves the images to where a GPU reads them faster; torch's loader asks for it."""
        return replace(self, images=self.images.pin_memory())


class CachedDataset(Dataset[CachedSample]):
    """A data set with the frozen detector's outputs for each image.

    A transform of the data set moves the detections along with their image. What the detector read of the image as
    it is holds no more then: such detections have no anchor, and there are no feature maps.

    Args:
        dataset: the images.
        objects: the detections in all images as they are.
        levels: the detector's feature maps of all images, each (N, C, h, w); empty where they are not kept.

    Raises:
        ValueError: if the data set has a transform, and there are feature maps.
    """

    def __init__(self, dataset: ObjectDataset, objects: Objects, levels: Sequence[np.ndarray]) -> None:
        if dataset.transform is not None and levels:
            raise ValueError("feature maps are of images as they are: leave them out where images are augmented")
        self.dataset, self.objects, self.levels = dataset, objects, levels
        self._ends = np.cumsum(objects.per_image)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> CachedSample:
        image, objects = self.dataset.sample(index, self._detected(index))
        return image, objects, [torch.from_numpy(np.array(level[index])) for level in self.levels]

    def draw(self, index: int) -> None:
        """Draws the random numbers of a sample, see `ObjectDataset.draw`."""
        if self.dataset.transform is not None:
            self.dataset.draw_for(index, self._detected(index))

    def _detected(self, index: int) -> Objects:
        """Returns the detections in an image."""
        end = int(self._ends[index])
        rows = torch.arange(end - self.objects.per_image[index], end)
        objects = self.objects.regrouped(rows, torch.zeros_like(rows), 1)
        return objects if self.dataset.transform is None else objects.replace(anchor_index=None)


@dataclass(frozen=True)
class ClipBatch:
    """A batch of the stage that trains the memory.

    Attributes:
        views: views of the tracks of all clips; a track is of one clip.
        size: number of clips.
    """

    views: TrackViews
    size: int

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to learn from."""
        return not len(self.views.seen)

    def to(self, device: torch.device) -> ClipBatch:
        """Moves the batch to a device."""
        return replace(self, views=self.views.to(device))


class TrackedClips(Dataset[TrackViews]):
    """Clips, or parts of long ones, with what the frozen model and the tracker make of their frames.

    Args:
        dataset: the frames.
        clips: views of the tracks of each clip.
    """

    def __init__(self, dataset: ObjectDataset, clips: Sequence[TrackViews]) -> None:
        self.dataset, self.clips = dataset, list(clips)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> TrackViews:
        return self.clips[index]


def collate_clips(clips: Sequence[TrackViews]) -> ClipBatch:
    """Joins the tracks of clips; shorter clips get frames without views."""
    return ClipBatch(TrackViews.cat(clips), len(clips))


def collate_batch(samples: Sequence[Sample | CachedSample]) -> Batch:
    """Stacks samples of an `ObjectDataset` or a `CachedDataset`."""
    images, objects = collate([(image, objects) for image, objects, *_ in samples])
    levels = zip(*(level for _, _, *rest in samples for level in rest), strict=True)
    return Batch(images, objects, [torch.stack(level).float() for level in levels])


Split: TypeAlias = ObjectDataset | CachedDataset | TrackedClips
"""What a stage learns from, or is measured on."""


def make_loader(
    split: Split,
    batch_size: int,
    device: torch.device,
    sampler: Sampler[int] | Sequence[int] | None = None,
    workers: int = 0,
    process: tuple[int, int] = (0, 1),
) -> DataLoader[Any]:
    """Yields the batches of a split.

    Args:
        split: true objects, or cached detections, of images; or tracked clips.
        batch_size: images or clips of a batch; the last one has the rest.
        device: where the batches are used. A GPU with enough memory holds images without a transform.
        sampler: the order of the images; None keeps theirs.
        workers: processes that read on the host.
        process: the number of this process, and how many there are; it gets its part of each batch of images, see
            `part_of`. Batches of clips are small, and every process gets them whole.
    """
    if isinstance(split, TrackedClips):
        return DataLoader(
            split, batch_size, sampler=sampler, collate_fn=collate_clips, generator=torch.Generator()
        )
    collate_fn: Any = collate_batch
    source: Any = split
    if _fits(split, device):
        source, collate_fn, workers = ResidentDataset(split, device), _unchanged, 0
    on_host = source is split
    if process[1] > 1:
        source, collate_fn = PartsOfBatches(source, split, *process), _unchanged
    return DataLoader(
        source,
        batch_size=batch_size,
        sampler=sampler,
        collate_fn=collate_fn,
        num_workers=workers,
        pin_memory=device.type == "cuda" and on_host,
        # A loader draws a number when it starts; from the global generator, that would change what a step draws.
        generator=torch.Generator(),
    )


class ResidentDataset(Dataset[Any]):
    """A split whose images lie in a device's memory, as 8-bit integers, and whose batches are looked up there.

    They equal the batches that the host collates, without decoding, stacking and copying.

    Args:
        split: without transform and feature maps, and with images of one size.
        device: where images and batches are.
    """

    def __init__(self, split: ObjectDataset | CachedDataset, device: torch.device) -> None:
        dataset = images_of(split)
        if not _never_changes(split):
            raise ValueError("a split with a transform or with feature maps can't be held on a device")
        self.device, self.images = device, _hold(dataset, device)
        objects = split.objects if isinstance(split, CachedDataset) else dataset.all_objects()
        self._counts = objects.counts.numpy()
        self._starts = np.cumsum(self._counts) - self._counts
        self._objects = objects.to(device)

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: list[int]) -> Batch:
        """Returns a whole batch, which torch's loader passes on to its `collate_fn`."""
        # The host knows the number of rows, so nothing waits for the device.
        chosen = np.array(indices)
        counts = self._counts[chosen]
        rows = np.repeat(self._starts[chosen] - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        image_index = np.repeat(np.arange(len(chosen)), counts)
        chosen_, rows_, index_ = (
            torch.from_numpy(values).to(self.device, non_blocking=True) for values in (chosen, rows, image_index)
        )
        pixels = self.images[chosen_].permute(0, 3, 1, 2).float().div_(255)
        images = pixels.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        return Batch(images, self._objects.regrouped(rows_, index_, len(chosen)))


class PartsOfBatches(Dataset[Any]):
    """The parts of a split's batches that one of several processes has.

    Random numbers of the images of other processes are drawn too, so that each image is augmented as in one
    process that has the whole batch.

    Args:
        source: the split, or the `ResidentDataset` of it.
        split: the split.
        rank: number of the process.
        processes: how many there are.
    """

    def __init__(self, source: Any, split: ObjectDataset | CachedDataset, rank: int, processes: int) -> None:
        self.source, self.split, self.rank, self.processes = source, split, rank, processes

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, indices: list[int]) -> Batch:
        """Returns the part of a batch, which torch's loader passes on to its `collate_fn`."""
        start, end = part_of(len(indices), self.rank, self.processes)
        if isinstance(self.source, ResidentDataset):
            return self.source.__getitems__(indices[start:end])
        for index in indices[:start]:
            self.split.draw(index)
        batch = collate_batch([self.split[index] for index in indices[start:end]])
        for index in indices[end:]:
            self.split.draw(index)
        return batch


def _unchanged(batch: Batch) -> Batch:
    return batch


def images_of(split: Split) -> ObjectDataset:
    """Returns a split's images and true objects, without the detector's outputs."""
    return split if isinstance(split, ObjectDataset) else split.dataset


def _never_changes(split: ObjectDataset | CachedDataset) -> bool:
    """Returns whether a split has the same images in each epoch, and no feature maps."""
    return images_of(split).transform is None and not (isinstance(split, CachedDataset) and split.levels)


def _fits(split: ObjectDataset | CachedDataset, device: torch.device) -> bool:
    """Returns whether a split can be held on a device, and leaves it enough memory."""
    dataset = images_of(split)
    if device.type != "cuda" or dataset.image_size is None or not _never_changes(split):
        return False
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # which torch holds unused
    return 3 * dataset.image_size**2 * len(dataset) < MEMORY_SHARE * free


def _hold(dataset: ObjectDataset, device: torch.device) -> Tensor:
    """Copies all images to a device, uint8 (N, H, W, C): C is 1 if all are grey, else 3."""
    every, parts = range(len(dataset)), []
    for start in every[::_IMAGES_AT_ONCE]:
        images = [dataset.pixels(index) for index in every[start : start + _IMAGES_AT_ONCE]]
        channels = max(image.shape[2] for image in images)
        stacked = np.stack([np.broadcast_to(image, (*image.shape[:2], channels)) for image in images])
        parts.append(torch.from_numpy(stacked).to(device))
    channels = max(part.shape[3] for part in parts)
    return torch.cat([part.expand(-1, -1, -1, channels) for part in parts])
