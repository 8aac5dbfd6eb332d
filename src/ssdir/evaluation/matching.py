"""Matches predicted objects with true ones by overlap, within each image."""

from __future__ import annotations

import torch
from torch import Tensor

from ssdir.objects import Objects


def pairs_within_images(first: Objects, second: Objects) -> tuple[Tensor, Tensor]:
    """Lists all pairs of an object of `first` and one of `second` in the same image.

    Args:
        first: M objects.
        second: T objects of the same batch of images.

    Returns:
        Rows of `first` and of `second`, each int64 (P,), in lexicographic order.

    Raises:
        ValueError: if the batches differ in size.
    """
    if first.batch_size != second.batch_size:
        raise ValueError(f"the batches must be of one size, got {first.batch_size} and {second.batch_size} images")
    counts = second.counts
    repeats = counts[first.image_index]
    rows = torch.arange(len(first), device=first.device).repeat_interleave(repeats)
    # Position of each pair within its row's run, then shifted to where the image's objects start.
    positions = torch.arange(len(rows), device=first.device) - (repeats.cumsum(0) - repeats)[rows]
    starts = counts.cumsum(0) - counts
    return rows, starts[first.image_index[rows]] + positions


def paired_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Computes the intersection over union (P,) of row-aligned boxes (P, 4), xyxy; 0 where both are empty."""
    intersection = _intersection(boxes, others)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1) + (others[:, 2:] - others[:, :2]).prod(dim=1)
    return intersection / (areas - intersection).clamp_min(torch.finfo(boxes.dtype).tiny)


def paired_share(boxes: Tensor, others: Tensor) -> Tensor:
    """Computes the share of the area of each of `boxes` that lies in the same row of `others`.

    Args:
        boxes: float (P, 4), xyxy.
        others: float (P, 4), xyxy, row-aligned.

    Returns:
        float (P,) in [0, 1].
    """
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    return _intersection(boxes, others) / areas.clamp_min(torch.finfo(boxes.dtype).tiny)


def match_greedy(predictions: Objects, targets: Objects, iou_threshold: float = 0.5) -> Tensor:
    """Matches predictions with targets one to one within each image, the pair of largest IoU first.

    Equal overlaps go to the earlier prediction, then to the earlier target. Labels and scores are not used, so
    that a wrong class doesn't change the match.

    Args:
        predictions: M objects.
        targets: T objects of the same images.
        iou_threshold: smallest IoU of a match.

    Returns:
        int64 (M,): the target's row, or -1.
    """
    rows, columns = pairs_within_images(predictions, targets)
    iou = paired_iou(predictions.boxes[rows], targets.boxes[columns])
    candidates = (iou >= iou_threshold).nonzero().squeeze(1)
    order = candidates[iou[candidates].argsort(descending=True, stable=True)]
    match = [-1] * len(predictions)
    taken = [False] * len(targets)
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if match[row] < 0 and not taken[column]:
            match[row] = column
            taken[column] = True
    return torch.tensor(match, dtype=torch.int64, device=predictions.device)


def counts_as_wrong(objects: Objects, ignored: Objects, least_share: float = 0.5) -> Tensor:
    """Returns which objects are wrong if they match no true one: those outside of ignored regions.

    Args:
        objects: M objects.
        ignored: regions of the same images in which an object is neither right nor wrong.
        least_share: an object is in a region if at least this share of its box is.

    Returns:
        bool (M,).
    """
    rows, regions = pairs_within_images(objects, ignored)
    excused = rows[paired_share(objects.boxes[rows], ignored.boxes[regions]) >= least_share]
    return torch.ones_like(objects.image_index, dtype=torch.bool).index_fill(0, excused, False)


def best_target(predictions: Objects, targets: Objects, iou_threshold: float = 0.5) -> Tensor:
    """Returns the target that each prediction overlaps most; several predictions may share one.

    Args:
        predictions: M objects.
        targets: T objects of the same images.
        iou_threshold: smallest IoU that counts.

    Returns:
        int64 (M,): the target's row, or -1.
    """
    rows, columns = pairs_within_images(predictions, targets)
    iou = paired_iou(predictions.boxes[rows], targets.boxes[columns])
    order = iou.argsort(descending=True, stable=True)
    order = order[rows[order].argsort(stable=True)]  # by prediction, then by falling IoU
    rows, columns, iou = rows[order], columns[order], iou[order]
    first = torch.ones_like(rows, dtype=torch.bool)
    first[1:] = rows[1:] != rows[:-1]
    chosen = first & (iou >= iou_threshold)
    best = torch.full((len(predictions),), -1, dtype=torch.int64, device=predictions.device)
    best[rows[chosen]] = columns[chosen]
    return best


def _intersection(boxes: Tensor, others: Tensor) -> Tensor:
    low = torch.maximum(boxes[:, :2], others[:, :2])
    high = torch.minimum(boxes[:, 2:], others[:, 2:])
    return (high - low).clamp_min(0).prod(dim=1)
