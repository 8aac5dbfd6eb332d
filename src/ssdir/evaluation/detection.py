"""How well objects are found: COCO average precision, and counts at the operating threshold."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from ssdir.evaluation.matching import best_target, match_greedy
from ssdir.objects import Objects

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


def detection_metrics(predictions: Objects, targets: Objects, image_size: tuple[int, int]) -> dict[str, float]:
    """COCO average precision, pooled over all images (Lin et al. 2014; at most 100 objects an image).

    Small, medium and large are COCO's areas (below 32², up to 96², above; in pixels of `image_size`).
    Labels that either side lacks count as one class.

    Args:
        predictions: ranked objects, kept at a low score threshold; without scores all rank the same.
        targets: true objects of the same images.
        image_size: (height, width) in pixels.

    Returns:
        `detection/ap`, `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large`; with several classes also
        `detection/ap50_class_agnostic`. What no true object defines is left out.
    """
    agnostic = _average_precision(_without_labels(predictions), _without_labels(targets), image_size)
    if predictions.labels is None or targets.labels is None:
        return agnostic
    labels = torch.cat([predictions.labels, targets.labels])
    if bool((labels == labels[:1]).all()):
        return agnostic
    metrics = _average_precision(predictions, targets, image_size)
    if "detection/ap50" in agnostic:
        metrics["detection/ap50_class_agnostic"] = agnostic["detection/ap50"]
    return metrics


def operating_metrics(objects: Objects, targets: Objects, iou_threshold: float = 0.5) -> dict[str, float]:
    """Counts at the threshold that a user would run the model with.

    Args:
        objects: the objects that the model returns.
        targets: true objects of the same images.
        iou_threshold: smallest IoU of a match.

    Returns:
        `detection/count_error`: mean over images of |predicted - true|.
        `detection/latents_per_object`: how many predicted objects overlap a true one best, mean over the
        true objects that have any; 1 is ideal, the paper's model returns more.
        `detection/recall` and `detection/precision`, by one-to-one matching.
        A ratio without anything to count is 0.
    """
    matched = int((match_greedy(objects, targets, iou_threshold) >= 0).sum())
    best = best_target(objects, targets, iou_threshold)
    covering = best[best >= 0]
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


def _average_precision(predictions: Objects, targets: Objects, image_size: tuple[int, int]) -> dict[str, float]:
    metric = MeanAveragePrecision(
        iou_thresholds=_IOU_THRESHOLDS, rec_thresholds=_RECALL_THRESHOLDS, backend="faster_coco_eval"
    )
    metric.warn_on_many_detections = False
    metric.update(_as_dicts(predictions, image_size, scored=True), _as_dicts(targets, image_size, scored=False))
    values = metric.compute()
    found = {name: float(values[key]) for key, name in _AP_NAMES.items()}
    return {name: value for name, value in found.items() if value >= 0}  # -1: undefined


def _as_dicts(objects: Objects, image_size: tuple[int, int], *, scored: bool) -> list[dict[str, Tensor]]:
    dicts = []
    for image in objects.detach().to("cpu").split():
        labels = torch.zeros_like(image.image_index) if image.labels is None else image.labels
        entry = {"boxes": image.boxes_px(image_size), "labels": labels}
        if scored:
            entry["scores"] = torch.ones(len(image)) if image.scores is None else image.scores
        dicts.append(entry)
    return dicts
