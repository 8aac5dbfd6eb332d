"""Measures whether the model orders two overlapping objects correctly in depth."""

from __future__ import annotations

import torch
from torch import Tensor

from ssdir.evaluation.matching import paired_iou, pairs_within_images
from ssdir.objects import Objects

MIN_OVERLAP = 0.05


def depth_metrics(objects: Objects, targets: Objects, match: Tensor) -> dict[str, float]:
    """Compares the depth order of overlapping true objects with that of the detected objects matched to them.

    Args:
        objects: M objects with z_depth, larger is nearer.
        targets: T true objects with z_depth, larger is nearer.
        match: int64 (M,), the target of each object, or -1.

    Returns:
        `depth/pairs`: pairs of true objects of one image whose boxes' IoU exceeds 0.05, both matched, and
        not equally deep. `depth/order_accuracy`: the share of them whose nearer object has the larger
        z_depth, a tie being an error. `depth/lower_edge_accuracy`: the share of them whose nearer object's
        box ends lower in the image, as it does where a camera looks down on a floor: a floor without a model. Both
        are left out without pairs. Nothing if either side has no z_depth.
    """
    if objects.z_depth is None or targets.z_depth is None:
        return {}
    rows = torch.full((len(targets),), -1, dtype=torch.int64)
    rows[match[match >= 0]] = (match >= 0).nonzero().squeeze(1)
    first, second = pairs_within_images(targets, targets)
    overlap = paired_iou(targets.boxes[first], targets.boxes[second]) > MIN_OVERLAP
    nearer = targets.z_depth[first] > targets.z_depth[second]  # each pair once, its nearer object first
    counted = overlap & nearer & (rows[first] >= 0) & (rows[second] >= 0)
    near, far = rows[first[counted]], rows[second[counted]]
    metrics = {"depth/pairs": float(len(near))}
    if len(near):
        for name, nearness in (("order", objects.z_depth), ("lower_edge", objects.boxes[:, 3])):
            metrics[f"depth/{name}_accuracy"] = float((nearness[near] > nearness[far]).double().mean())
    return metrics
