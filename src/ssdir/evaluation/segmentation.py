"""Segmentation metrics of the decoded objects' opacities, accumulated batch by batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]
from torch import Tensor

from ssdir.objects import Objects, Scene
from ssdir.ops.boxes import with_area
from ssdir.ops.compositing import pixel_owners

Counts = NDArray[np.int64]


class MaskMeter:
    """Compares the segmentation of scenes (see `segment`) with true masks; it stores no images."""

    def __init__(self) -> None:
        self._rand: list[float] = []
        self._matched: list[float] = []
        self._best: list[float] = []

    def update(self, objects: Objects, scene: Scene, masks: Sequence[Tensor | None]) -> None:
        """Adds a batch; scenes without alpha and images without a mask are ignored.

        Args:
            objects: the M objects that were decoded.
            scene: the scene that the model decoded from them.
            masks: for each image int64 (H, W): i + 1 is its true object i, 0 is the background.

        Raises:
            ValueError: if a mask is not of the scene's size.
        """
        if scene.alpha is None or all(mask is None for mask in masks):
            return
        owners = segment(objects, scene).cpu()
        for mask, segments in zip(masks, owners, strict=True):
            if mask is None:
                continue
            if mask.shape != segments.shape:
                raise ValueError(f"masks must be {tuple(segments.shape)}, got {tuple(mask.shape)}")
            self._add(count_overlaps(mask, segments))

    def _add(self, counts: Counts) -> None:
        overlaps = object_iou(counts)
        if not len(overlaps):
            return
        self._rand.append(adjusted_rand_index(counts[1:]))
        matched = np.zeros(len(overlaps))
        rows, columns = linear_sum_assignment(overlaps, maximize=True)
        matched[rows] = overlaps[rows, columns]
        self._matched += matched.tolist()
        self._best += overlaps.max(axis=1, initial=0).tolist()

    def compute(self) -> dict[str, float]:
        """Computes the means so far; invisible true objects, and images without objects, are ignored.

        Returns:
            `masks/fg_ari`: adjusted Rand index over the pixels of true objects, where the predicted background
            counts as one more predicted object; mean over images. `masks/miou`: IoU of each true object with the
            predicted one matched to it, by the one-to-one matching of largest total IoU; 0 for an unmatched
            object; mean over true objects. `masks/mbo`: the same with the predicted object of largest IoU, which
            several true objects may share. Empty without masks.
        """
        values = {"masks/fg_ari": self._rand, "masks/miou": self._matched, "masks/mbo": self._best}
        return {name: float(np.mean(parts)) for name, parts in values.items() if parts}


def segment(objects: Objects, scene: Scene) -> Tensor:
    """Assigns each pixel of a scene to an object, by its alpha.

    Args:
        objects: the M objects that were decoded; without z_depth, all are equally near.
        scene: the scene that the model decoded from them, with alpha.

    Returns:
        int64 (B, H, W): 0 is the background, i + 1 is object i of its image.
    """
    assert scene.alpha is not None
    H, W = scene.reconstructions.shape[-2:]
    z_depth = torch.zeros_like(objects.z_where[:, 0]) if objects.z_depth is None else objects.z_depth
    boxes = with_area(objects.boxes, max(H, W))
    owners = pixel_owners(scene.alpha, boxes, z_depth, objects.image_index, objects.per_image, (H, W))
    first = objects.counts.cumsum(0) - objects.counts
    return torch.where(owners < 0, 0, owners - first[:, None, None] + 1)


def count_overlaps(first: Tensor, second: Tensor) -> Counts:
    """Counts the pixels of each pair of labels in two segmentations.

    Args:
        first: int64 (H, W), labels from 0 to P.
        second: int64 (H, W), labels from 0 to Q.

    Returns:
        int64 (P + 1, Q + 1).
    """
    rows, columns = int(first.max()) + 1, int(second.max()) + 1
    return (
        torch.bincount((first * columns + second).flatten(), minlength=rows * columns).view(rows, columns).numpy()
    )


def object_iou(counts: Counts) -> NDArray[np.float64]:
    """Computes the IoU (T, P) of true and predicted objects, without background and invisible true objects.

    Args:
        counts: (1 + true objects, 1 + P) from `count_overlaps`.
    """
    areas, others = counts.sum(axis=1), counts.sum(axis=0)
    seen = np.flatnonzero(areas[1:]) + 1
    shared = counts[seen, 1:]
    iou: NDArray[np.float64] = shared / (areas[seen, None] + others[1:] - shared)
    return iou


def adjusted_rand_index(counts: Counts) -> float:
    """Computes the adjusted Rand index of two clusterings of the same pixels (Hubert and Arabie 1985).

    Args:
        counts: number of pixels of each pair of clusters, one of each clustering.

    Returns:
        At most 1; 0 is chance. It is 1 if both have a single cluster, or there are no pixels.
    """
    same = _pairs(counts)
    rows, columns = _pairs(counts.sum(axis=1)), _pairs(counts.sum(axis=0))
    if rows == same == columns:
        return 1.0
    expected = rows * columns / _pairs(counts.sum())
    return (same - expected) / ((rows + columns) / 2 - expected)


def _pairs(counts: Counts | np.int64) -> float:
    """Counts the pairs of pixels within the same cell."""
    return float((counts * (counts - 1) // 2).sum())
