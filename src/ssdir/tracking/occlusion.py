"""Occlusion: how much of each object nothing hides, by opacity and depth, or by overlap alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ssdir.models.base import GenerativeModel, ObjectModel
from ssdir.objects import Objects
from ssdir.ops.boxes import to_cxcywh, with_area
from ssdir.ops.compositing import pixel_shares
from ssdir.tracking.motion import Floats

MIN_OVERLAP = 0.1
"""Least share of an object's box that another box covers, for it to be looked at whether that one hides it."""


ALPHA_SIDE, CANVAS_SIDE = 16, 64
"""Resolution of an object's alpha and of the image, in pixels, at which it is computed what hides what."""


@torch.no_grad()
def visible_shares(objects: Objects, model: ObjectModel | None = None, threshold: float = 0.0) -> Tensor:
    """Computes the share of each object that no other one hides.

    A model that decodes opacity says it by opacity and depth, per pixel: the objects whose boxes overlap are
    decoded, and the share is the mean of an object's share of its own opaque pixels, see `pixel_shares`. Other
    models say it by boxes: the share that the object of the largest overlap leaves, unless `z_depth` has that
    object farther away.

    Args:
        objects: M objects of one or several images.
        model: the model of their `z_what` and `z_depth`; None goes by boxes.
        threshold: score below which an object is doubtful, of which detectors have many: these hide no others, and
            their own shares go by boxes.

    Returns:
        float (M,) in [0, 1], on the CPU; 1 for objects of which no other covers `MIN_OVERLAP`.
    """
    if objects.scores is not None and bool((doubtful := (objects.scores < threshold).cpu()).any()):
        visible = visible_shares(objects)
        visible[~doubtful] = visible_shares(objects[~doubtful.to(objects.device)], model)
        return visible
    if not len(objects):
        return torch.ones(0)
    # Image by image, because the memory for pairs is quadratic.
    parts = [_by_boxes(part) for part in objects.split() if len(part)]
    crowded, by_boxes = (torch.cat(each) for each in zip(*parts, strict=True))
    visible = torch.where(crowded, by_boxes, 1.0)
    if (
        crowded.any()
        and isinstance(model, GenerativeModel)
        and objects.z_what is not None
        and objects.z_depth is not None
    ):
        by_pixels = _by_pixels(objects[crowded.to(objects.device)], model)
        if by_pixels is not None:
            visible[crowded] = by_pixels
    return visible


def covered_shares(boxes: Floats, others: Floats) -> Floats:
    """Computes the share of each box that each other one covers.

    Args:
        boxes: float (T, 4), cxcywh.
        others: float (N, 4), cxcywh, in the same unit.

    Returns:
        float (T, N), in [0, 1].
    """
    half, other_half = boxes[:, None, 2:] / 2, others[None, :, 2:] / 2
    low = np.maximum(boxes[:, None, :2] - half, others[None, :, :2] - other_half)
    high = np.minimum(boxes[:, None, :2] + half, others[None, :, :2] + other_half)
    shares: Floats = (high - low).clip(min=0).prod(axis=2) / boxes[:, 2:].prod(axis=1).clip(min=1e-12)[:, None]
    return shares


def _by_boxes(objects: Objects) -> tuple[Tensor, Tensor]:
    """Returns whether each object of an image overlaps another one, bool (M,), and its share by boxes (M,)."""
    boxes = to_cxcywh(objects.boxes.cpu()).double().numpy()
    overlap = torch.from_numpy(covered_shares(boxes, boxes)).float().fill_diagonal_(0)
    hides = overlap >= MIN_OVERLAP
    if objects.z_depth is not None:
        depth = objects.z_depth.float().cpu()
        overlap = overlap * (depth[None] > depth[:, None])
    return hides.any(dim=0) | hides.any(dim=1), 1 - overlap.amax(dim=1).clamp(max=1)


def _by_pixels(objects: Objects, model: GenerativeModel) -> Tensor | None:
    alpha = model.opacity(objects.to(model.device))
    if alpha is None:
        return None
    if alpha.shape[-1] > ALPHA_SIDE:
        alpha = adaptive_avg_pool2d(alpha, ALPHA_SIDE)
    alpha, objects = alpha.cpu(), objects.to("cpu")
    assert objects.z_depth is not None
    boxes = with_area(objects.boxes, CANVAS_SIDE)
    place = (boxes, objects.z_depth.to(alpha), objects.image_index, objects.per_image)
    shares = pixel_shares(alpha, *place, (CANVAS_SIDE, CANVAS_SIDE))
    opacity = alpha.sum(dim=(1, 2, 3))
    return ((shares * alpha).sum(dim=(1, 2, 3)) / opacity.clamp(min=1e-6)).clamp(0, 1)
