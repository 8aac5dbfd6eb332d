"""Fake data sets and models, whose every answer the test decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssdir.objects import Objects, Scene

SIZE = 64


def boxes_to_objects(boxes: Sequence[Sequence[float]], **fields: Tensor) -> Objects:
    """Returns objects of one image from xyxy boxes in [0, 1]."""
    xyxy = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    low, high = xyxy[:, :2], xyxy[:, 2:]
    z_where = torch.cat([(low + high) / 2, high - low], dim=1)
    return Objects(torch.zeros(len(xyxy), dtype=torch.int64), 1, z_where, **fields)


def random_objects(seed: int, images: int, most: int, *, classes: int = 3, scored: bool = False) -> Objects:
    """Returns objects with random boxes; some images are empty."""
    g = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, most + 1, (images,), generator=g)
    image_index = torch.arange(images).repeat_interleave(counts)
    M = len(image_index)
    sides = torch.rand(M, 2, generator=g) * 0.5 + 0.05
    centers = torch.rand(M, 2, generator=g) * (1 - sides) + sides / 2
    return Objects(
        image_index,
        images,
        torch.cat([centers, sides], dim=1),
        scores=torch.rand(M, generator=g) if scored else None,
        labels=torch.randint(0, classes, (M,), generator=g),
    )


def jittered(targets: Objects, seed: int, noise: float, copies: int = 2) -> Objects:
    """Returns each true box `copies` times, moved and resized by a share of its sides, with random scores."""
    g = torch.Generator().manual_seed(seed)
    rows = torch.arange(len(targets)).repeat_interleave(copies)
    moved = targets[rows]
    change = noise * torch.randn(len(rows), 4, generator=g) * moved.z_where[:, [2, 3, 2, 3]]
    z_where = (moved.z_where + change).clamp(0.01, 0.99)
    return moved.replace(z_where=z_where, scores=torch.rand(len(rows), generator=g))


class FakeDataset:
    """Black images whose first pixel is the image's number, by which the fake model recognises them."""

    def __init__(
        self, targets: Sequence[Objects], categories: Sequence[Tensor], names: Sequence[str], offset: int = 0
    ) -> None:
        self.known: dict[str, list[Tensor]] = {}
        self.masks: list[Tensor | None] = [None] * len(targets)
        self.crowds = [Objects.empty(1)] * len(targets)
        self.targets, self._categories, self.category_names = list(targets), list(categories), list(names)
        self.class_names, self.offset = ["object"], offset

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Objects]:
        image = torch.zeros(3, SIZE, SIZE, dtype=torch.uint8)
        image[0, 0, 0] = self.offset + index
        return image, self.targets[index]

    def categories(self, index: int) -> Tensor:
        return self._categories[index]

    def attributes(self, index: int) -> dict[str, Tensor]:
        return {name: values[index] for name, values in self.known.items()}

    def ignored(self, index: int) -> Objects:
        return self.crowds[index]

    def mask(self, index: int) -> Tensor | None:
        return self.masks[index]


@dataclass
class FakeEncoder:
    """A model that returns the given detections of each image, with embeddings of their boxes, and has no decoder.

    `embed_boxes(z_where (M, 4), image number (M,))` returns z_what (M, D).
    """

    detections: dict[int, Objects]
    embed_boxes: Callable[[Tensor, Tensor], Tensor]
    image_size: int = SIZE
    score_threshold: float = 0.5

    def __post_init__(self) -> None:
        self.class_names = ["object"]
        self.calls = 0

    def encode(self, images: Tensor, score_threshold: float | None = None) -> Objects:
        objects = Objects.cat([self.detections[int(number)] for number in _numbers(images)])
        if not len(objects):
            self.calls += 1
            return Objects.empty(len(images))  # lacks z_what, as a lazy model's may
        return self.embed(images, objects[objects.scores >= (score_threshold or self.score_threshold)])

    def embed(self, images: Tensor, boxes: Objects) -> Objects:
        self.calls += 1
        numbers, objects = _numbers(images), boxes
        z_what = self.embed_boxes(objects.z_where, numbers[objects.image_index])
        return objects.replace(z_what=z_what, z_depth=objects.z_where[:, 1])


@dataclass
class FakeModel(FakeEncoder):
    """A fake encoder that also decodes objects, to black images, with opaque objects if it has alpha."""

    alpha: bool = False

    def decode(self, objects: Objects) -> Scene:
        assert objects.z_what is not None or not len(objects)
        blank = torch.zeros(objects.batch_size, 3, self.image_size, self.image_size)
        alpha = torch.ones(len(objects), 1, 8, 8) if self.alpha else None
        return Scene(blank, torch.zeros(len(objects), 3, 8, 8), alpha)


class FakeDetector(FakeModel):
    """A fake model that also has pooled features: its boxes, and their negatives."""

    def pooled_features(self, images: Tensor, objects: Objects) -> Tensor:
        return torch.cat([objects.z_where, -objects.z_where], dim=1)


def _numbers(images: Tensor) -> Tensor:
    return (images[:, 0, 0, 0] * 255).round().long()
