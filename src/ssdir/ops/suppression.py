"""Non-maximum suppression of a whole batch at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from ssdir.ops.precision import widest

_NO_LIMIT = 2**31 - 1


def keep_best(
    boxes: Tensor, scores: Tensor, image_index: Tensor, iou_threshold: float, max_objects: int
) -> Tensor:
    """Suppresses detections that overlap one of a higher score in the same image.

    Args:
        boxes: float (M, 4), xyxy.
        scores: float (M,).
        image_index: int64 (M,), the image of each.
        iou_threshold: IoU above which the weaker of two detections is suppressed; from 1 on, all stay.
        max_objects: maximum number of detections kept per image.

    Returns:
        int64: rows that stay, ordered by image, then by falling score.
    """
    if iou_threshold < 1:
        # One pass over all images, or image by image from a thousand boxes on, where that is faster. The pass
        # moves the boxes of each image away from the others', which needs more than single precision.
        precise = widest(boxes.device)
        keep: Tensor = batched_nms(boxes.to(precise), scores.to(precise), image_index, iou_threshold)
    else:
        keep = torch.arange(len(scores), device=scores.device)
    keep = keep[scores[keep].argsort(descending=True, stable=True)]
    keep = keep[image_index[keep].argsort(stable=True)]
    owner = image_index[keep]
    rank = torch.arange(len(keep), device=keep.device) - torch.searchsorted(owner, owner)
    return keep[rank < max_objects]


@torch.library.custom_op("ssdir::suppress", mutates_args=())
def suppress(boxes: Tensor, scores: Tensor, iou_threshold: float, max_objects: int) -> Tensor:
    """Computes `keep_best` on dense detections, as one operator: ONNX's `NonMaxSuppression`.

    Args:
        boxes: float (B, N, 4), xyxy.
        scores: float (B, N); negative where there is no detection.
        iou_threshold: see `keep_best`.
        max_objects: see `keep_best`.

    Returns:
        int64 (M, 2): image and anchor of each detection that stays, ordered by image, then by falling score.
    """
    image_index, anchor_index = (scores >= 0).nonzero(as_tuple=True)
    packed = boxes[image_index, anchor_index], scores[image_index, anchor_index], image_index
    keep = keep_best(*packed, iou_threshold, max_objects)
    return torch.stack([image_index[keep], anchor_index[keep]], dim=1)


@suppress.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float, max_objects: int) -> Tensor:
    """Returns the shape while a graph is traced: the number of rows is known only when it runs."""
    return boxes.new_empty((torch.library.get_ctx().new_dynamic_size(), 2), dtype=torch.int64)


def suppress_refined(boxes: Tensor, scores: Tensor, image_index: Tensor, iou_threshold: float) -> Tensor:
    """Computes `keep_best` on the result of `suppress` after its boxes were refined, by the same operator.

    Args:
        boxes: float (M, 4), xyxy, inside the unit square.
        scores: float (M,); negative where there is no detection any more.
        image_index: int64 (M,).
        iou_threshold: see `keep_best`.

    Returns:
        int64: rows that stay, ordered by image, then by falling score.
    """
    apart = boxes + 2 * image_index[:, None].to(boxes)  # Boxes of different images don't overlap.
    rows = suppress(apart[None], scores[None], iou_threshold, _NO_LIMIT)[:, 1]
    place = torch.arange(rows.shape[0], device=rows.device)  # ONNX has no stable sort.
    ordered: Tensor = rows[(_NO_LIMIT * image_index[rows] + place).argsort()]
    return ordered
