"""Batches of a split: put together by the host, or on a GPU looked up in its own memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ssdir.data.dataset import ObjectDataset, collate
from ssdir.objects import Objects

CachedSample: TypeAlias = tuple[Tensor, Objects, list[Tensor]]

MEMORY_SHARE = 0.4
"""Of a GPU's free memory, what a split's images may take."""

_IMAGES_AT_ONCE = 512


@dataclass(frozen=True)
class Batch:
    """A batch for the representation's stage.

    Attributes:
        images: float (B, 3, H, W) in [0, 1].
        objects: the frozen detector's detections.
        features: what it read, see `SSD.read`, float; empty where that is not kept.
    """

    images: Tensor
    objects: Objects
    features: list[Tensor]


class CachedDataset(Dataset[CachedSample]):
    """A data set with the frozen detector's outputs for each image.

    Args:
        dataset: the images, without transform.
        objects: the detections in all of its images.
        levels: what the detector read of all of them, each (N, C, h, w); none where that is not kept.
    """

    def __init__(self, dataset: ObjectDataset, objects: Objects, levels: Sequence[np.ndarray]) -> None:
        self.dataset, self.objects, self.levels = dataset, objects, levels
        self._ends = np.cumsum(objects.per_image)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> CachedSample:
        image, _ = self.dataset[index]
        end = int(self._ends[index])
        rows = torch.arange(end - self.objects.per_image[index], end)
        objects = self.objects.regrouped(rows, torch.zeros_like(rows), 1)
        return image, objects, [torch.from_numpy(np.array(level[index])) for level in self.levels]


def collate_cached(samples: Sequence[CachedSample]) -> Batch:
    """Stacks samples of a `CachedDataset`."""
    images, objects = collate([(image, detected) for image, detected, _ in samples])
    features = [torch.stack(level).float() for level in zip(*(sample[2] for sample in samples), strict=True)]
    return Batch(images, objects, features)


class EpochShuffle(Sampler[int]):
    """A permutation per epoch that depends on the seed and the epoch alone, so that runs can resume."""

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed
        self.generator = torch.Generator()
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of each epoch."""
        self.epoch = epoch
        self.generator.manual_seed(self.seed * 100_003 + epoch)

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Any:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        return iter(torch.randperm(self.size, generator=generator).tolist())


def make_loader(
    split: ObjectDataset | CachedDataset,
    batch_size: int,
    device: torch.device,
    sampler: EpochShuffle | None = None,
    workers: int = 0,
) -> DataLoader[Any]:
    """What yields a split's batches: `(images, objects)`, or a `Batch` where the detector's outputs are cached.

    Args:
        split: to be read.
        batch_size: images of a batch; of the last one, what is left.
        device: where the batches are used. A GPU with the room for it gets images without a transform once.
        sampler: the order; None takes the images' own.
        workers: processes that read on the host.
    """
    collate_fn: Any = collate_cached if isinstance(split, CachedDataset) else collate
    source: Any = split
    if _fits(split, device):
        source, collate_fn, workers = ResidentDataset(split, device), _as_it_is, 0
    return DataLoader(
        source,
        batch_size=batch_size,
        sampler=sampler,
        collate_fn=collate_fn,
        num_workers=workers,
        pin_memory=device.type == "cuda" and source is split,
        # Not the global one, of which a loader would draw a number at a moment that depends on resuming.
        generator=torch.Generator() if sampler is None else sampler.generator,
    )


class ResidentDataset(Dataset[Any]):
    """A split whose images lie in a device's memory, as 8-bit integers, and whose batches are looked up there.

    They equal those that are put together on the host, but without decoding, stacking and copying.

    Args:
        split: without transform, and without maps of the detector; all images of one size.
        device: where the images are, and the batches.
    """

    def __init__(self, split: ObjectDataset | CachedDataset, device: torch.device) -> None:
        dataset = _images_of(split)
        if not _never_changes(split):
            raise ValueError("a split with a transform, or with maps, can't be held on a device")
        self.device, self.images = device, _hold(dataset, device)
        self._make: Callable[[Tensor, Objects], Any]
        if isinstance(split, CachedDataset):
            objects, self._make = split.objects, _as_batch
        else:
            objects, self._make = dataset.all_objects(), _as_pair
        self._counts = objects.counts.numpy()
        self._starts = np.cumsum(self._counts) - self._counts
        self._objects = objects.to(device)

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: list[int]) -> Any:
        """A whole batch; torch's loader asks for it so, and hands it to its `collate_fn`."""
        # How many rows there are is known to the host: nothing waits for the device.
        chosen = np.array(indices)
        counts = self._counts[chosen]
        rows = np.repeat(self._starts[chosen] - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        image_index = np.repeat(np.arange(len(chosen)), counts)
        chosen_, rows_, index_ = (
            torch.from_numpy(values).to(self.device, non_blocking=True) for values in (chosen, rows, image_index)
        )
        pixels = self.images[chosen_].permute(0, 3, 1, 2).float().div_(255)
        images = pixels.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        return self._make(images, self._objects.regrouped(rows_, index_, len(chosen)))


def _as_it_is(batch: Any) -> Any:
    return batch


def _as_pair(images: Tensor, objects: Objects) -> tuple[Tensor, Objects]:
    return images, objects


def _as_batch(images: Tensor, objects: Objects) -> Batch:
    return Batch(images, objects, [])


def _images_of(split: ObjectDataset | CachedDataset) -> ObjectDataset:
    return split.dataset if isinstance(split, CachedDataset) else split


def _never_changes(split: ObjectDataset | CachedDataset) -> bool:
    """Whether images are the same in each epoch, and all that comes with them is objects."""
    return _images_of(split).transform is None and not (isinstance(split, CachedDataset) and split.levels)


def _fits(split: ObjectDataset | CachedDataset, device: torch.device) -> bool:
    """Whether a split can be held on a device, and may."""
    dataset = _images_of(split)
    if device.type != "cuda" or dataset.image_size is None or not _never_changes(split):
        return False
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch's, but unused
    return 3 * dataset.image_size**2 * len(dataset) < MEMORY_SHARE * free


def _hold(dataset: ObjectDataset, device: torch.device) -> Tensor:
    """All images, uint8 (N, H, W, C): C is 1 if all are grey, else 3."""
    every, parts = range(len(dataset)), []
    for start in every[::_IMAGES_AT_ONCE]:
        images = [dataset.pixels(index) for index in every[start : start + _IMAGES_AT_ONCE]]
        channels = max(image.shape[2] for image in images)
        stacked = np.stack([np.broadcast_to(image, (*image.shape[:2], channels)) for image in images])
        parts.append(torch.from_numpy(stacked).to(device))
    channels = max(part.shape[3] for part in parts)
    return torch.cat([part.expand(-1, -1, -1, channels) for part in parts])
