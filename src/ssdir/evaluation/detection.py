"""Metrics of detection: COCO average precision, and counts at the operating threshold."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from ssdir.evaluation.matching import best_target, counts_as_wrong, match_greedy
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
    """Computes COCO average precision, pooled over all images (Lin et al. 2014; at most 100 objects per image).

    Small, medium and large are COCO's areas (below 32², up to 96², above; in pixels of `image_size`).
    Labels that either side lacks count as one class.

    Args:
        predictions: ranked objects, kept at a low score threshold; without scores all rank the same.
        targets: true objects of the same images.
        image_size: (height, width) in pixels.
        ignored: regions of the same images in which a detection is neither right nor wrong (COCO's crowds).

    Returns:
        `detection/ap`, `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large`; with several classes also
        `detection/ap50_class_agnostic`. Metrics without any true object (of their size) are left out.
    """
    ignored = Objects.empty(targets.batch_size) if ignored is None else ignored
    detected, true, crowds = (_without_labels(objects) for objects in (predictions, targets, ignored))
    agnostic = _average_precision(detected, true, crowds, image_size)
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
    """Computes recall, precision and counts at the score threshold that users run the model with.

    Args:
        objects: the objects that the model returns.
        targets: true objects of the same images.
        iou_threshold: smallest IoU of a match.
        ignored: see `detection_metrics`; an unmatched detection doesn't count if at least this share of its box
            lies in one of these regions.

    Returns:
        `detection/count_error`: mean over images of |predicted - true|.
        `detection/latents_per_object`: number of predicted objects that overlap a true object more than any other
        and by at least `iou_threshold`, mean over the true objects with at least one; 1 is ideal, the paper's
        model returns more. `detection/recall` and `detection/precision`, by one-to-one matching. A ratio whose
        denominator is 0 is 0.
    """
    best = best_target(objects, targets, iou_threshold)
    covering = best[best >= 0]
    is_matched = match_greedy(objects, targets, iou_threshold) >= 0
    if ignored is not None:
        counts = counts_as_wrong(objects, ignored, iou_threshold) | is_matched
        objects, is_matched = objects[counts], is_matched[counts]
    matched = int(is_matched.sum())
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
    precisions = {name: float(values[key]) for key, name in _AP_NAMES.items()}
    return {name: value for name, value in precisions.items() if value >= 0}  # -1: undefined


def _as_dicts(
    objects: Objects, image_size: tuple[int, int], *, crowd: bool | None = None
) -> list[dict[str, Tensor]]:
    """Converts the objects of each image to torchmetrics' format.

    Detections (`crowd` is None) get scores; annotations get a flag that says whether they are crowds.
    """
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
