"""Metrics of detection: COCO average precision, and counts at the operating threshold."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from ssdir.evaluation.matching import best_target, match_greedy, paired_share, pairs_within_images
from ssdir.objects import Objects

RANKING_THRESHOLD = 0.05
"""Least score of a detection that average precision ranks."""

_AP_NAMES = {
    "map": "detection/ap",
    "map_50": "detection/ap50",
    "map_75": "detection/ap75",
    "map_small": "detection/ap_small",
    "map_medium": "detection/ap_medium",
    "map_large": "detection/ap_large",
}
# In double precision, as in pycocotools: torchmetrics' own are rounded to float32, which moves a recall or an
# overlap that equals a threshold to its other side.
_IOU_THRESHOLDS: list[float] = np.linspace(0.5, 0.95, 10).tolist()
_RECALL_THRESHOLDS: list[float] = np.linspace(0, 1, 101).tolist()


def detection_metrics(
    predictions: Objects, targets: Objects, image_size: tuple[int, int], ignored: Objects | None = None
) -> dict[str, float]:
    """COCO average precision, pooled over all images (Lin et al. 2014; at most 100 objects an image).

    Small, medium and large are COCO's areas (below 32², up to 96², above; in pixels of `image_size`).
    Labels that either side lacks count as one class.

    Args:
        predictions: ranked objects, kept at a low score threshold; without scores all rank the same.
        targets: true objects of the same images.
        image_size: (height, width) in pixels.
        ignored: regions of the same images in which finding something is neither right nor wrong, COCO's crowds.

    Returns:
        `detection/ap`, `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large`; with several classes also
        `detection/ap50_class_agnostic`. What no true object defines is left out.
    """
    ignored = Objects.empty(targets.batch_size) if ignored is None else ignored
    found, true, crowds = (_without_labels(objects) for objects in (predictions, targets, ignored))
    agnostic = _average_precision(found, true, crowds, image_size)
    if predictions.labels is None or targets.labels is None:
        return agnostic
    labels = torch.cat([predictions.labels, targets.labels])
    if bool((labels == labels[:1]).all()):
        return agnostic
    metrics = _average_precision(predictions, targets, ignored, image_size)
    if "detection/ap50" in agnostic:
        metrics["detection/ap50_class_agnostic"] = agnostic["detection/ap50"]
    return metrics


def operating_metrics(
    objects: Objects, targets: Objects, iou_threshold: float = 0.5, ignored: Objects | None = None
) -> dict[str, float]:
    """Counts at the threshold that a user would run the model with.

    Args:
        objects: the objects that the model returns.
        targets: true objects of the same images.
        iou_threshold: smallest IoU of a match.
        ignored: see `detection_metrics`: what matches nothing, but lies in one of these by as much, doesn't count.

    Returns:
        `detection/count_error`: mean over images of |predicted - true|.
        `detection/latents_per_object`: how many predicted objects overlap a true one best, mean over the
        true objects that have any; 1 is ideal, the paper's model returns more.
        `detection/recall` and `detection/precision`, by one-to-one matching.
        A ratio without anything to count is 0.
    """
    best = best_target(objects, targets, iou_threshold)
    covering = best[best >= 0]
    found = match_greedy(objects, targets, iou_threshold) >= 0
    if ignored is not None:
        rows, regions = pairs_within_images(objects, ignored)
        excused = rows[paired_share(objects.boxes[rows], ignored.boxes[regions]) >= iou_threshold]
        counts = torch.ones_like(found).index_fill(0, excused, False) | found
        objects, found = objects[counts], found[counts]
    matched = int(found.sum())
    difference = int((objects.counts - targets.counts).abs().sum())
    return {
        "detection/count_error": _ratio(difference, targets.batch_size),
        "detection/latents_per_object": _ratio(len(covering), len(set(covering.tolist()))),
        "detection/recall": _ratio(matched, len(targets)),
        "detection/precision": _ratio(matched, len(objects)),
    }


def _ratio(count: int, total: int) -> float:
    return count / total if total else 0.0


def _without_labels(objects: Objects) -> Objects:
    return objects.replace(labels=torch.zeros_like(objects.image_index))


def _average_precision(
    predictions: Objects, targets: Objects, ignored: Objects, image_size: tuple[int, int]
) -> dict[str, float]:
    metric = MeanAveragePrecision(
        iou_thresholds=_IOU_THRESHOLDS, rec_thresholds=_RECALL_THRESHOLDS, backend="faster_coco_eval"
    )
    metric.warn_on_many_detections = False
    true, crowds = _as_dicts(targets, image_size, crowd=False), _as_dicts(ignored, image_size, crowd=True)
    annotated = [
        {name: torch.cat([values, crowd[name]]) for name, values in each.items()}
        for each, crowd in zip(true, crowds, strict=True)
    ]
    metric.update(_as_dicts(predictions, image_size), annotated)
    values = metric.compute()
    found = {name: float(values[key]) for key, name in _AP_NAMES.items()}
    return {name: value for name, value in found.items() if value >= 0}  # -1: undefined


def _as_dicts(
    objects: Objects, image_size: tuple[int, int], *, crowd: bool | None = None
) -> list[dict[str, Tensor]]:
    """Those of each image, as torchmetrics takes them: with scores, or, annotated, whether they are crowds."""
    dicts = []
    for image in objects.detach().to("cpu").split():
        labels = torch.zeros_like(image.image_index) if image.labels is None else image.labels
        entry = {"boxes": image.boxes_px(image_size), "labels": labels}
        if crowd is None:
            entry["scores"] = torch.ones(len(image)) if image.scores is None else image.scores
        else:
            entry["iscrowd"] = torch.full_like(labels, crowd)
        dicts.append(entry)
    return dicts
