"""Which anchor answers for which object (SSD's matching)."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_iou

from ssdir.objects import Objects
from ssdir.ops.boxes import to_xyxy


def match_anchors(targets: Objects, anchors: Tensor, iou_threshold: float = 0.5) -> Tensor:
    """Assigns to every anchor of every image the row of `targets` that it should detect.

    An anchor takes the object that it overlaps most, if by at least `iou_threshold`; and every object
    gets the anchor that overlaps it most, whatever the overlap, so that none goes unlearned. Where two
    objects share their best anchor, the one with the larger overlap keeps it.

    Args:
        targets: true objects of B images.
        anchors: float (N, 4), cxcywh.
        iou_threshold: least overlap of a match.

    Returns:
        int64 (B, N): row of `targets`, or -1 for background.
    """
    B, N = targets.batch_size, anchors.shape[0]
    matches = torch.full((B, N), -1, dtype=torch.int64, device=anchors.device)
    if not len(targets):
        return matches
    overlaps = box_iou(to_xyxy(targets.z_where), to_xyxy(anchors))
    first = 0
    for image, iou in enumerate(overlaps.split(targets.counts.tolist())):
        if len(iou):
            best_iou, best_row = iou.max(dim=0)
            row = torch.where(best_iou >= iou_threshold, best_row, -1)
            forced_iou, forced_anchor = iou.max(dim=1)
            # Of objects that share their best anchor, the one with the larger overlap.
            claim = iou.new_zeros(N).scatter_reduce(0, forced_anchor, forced_iou, "amax")
            winner = (forced_iou == claim[forced_anchor]).nonzero()[:, 0]
            row[forced_anchor[winner]] = winner
            matches[image] = torch.where(row >= 0, row + first, -1)
        first += len(iou)
    return matches
