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
    B, N, M = targets.batch_size, anchors.shape[0], len(targets)
    if not M:
        return torch.full((B, N), -1, dtype=torch.int64, device=anchors.device)
    overlaps = box_iou(to_xyxy(targets.z_where), to_xyxy(anchors))
    image, counts = targets.image_index, targets.counts
    first = counts.cumsum(0) - counts
    place = torch.arange(M, device=image.device) - first[image]
    # Without a loop over images, for each of whose steps a GPU would have to be told.
    padded = overlaps.new_full((B, max(targets.per_image), N), -1)
    padded[image, place] = overlaps
    best_iou, best = padded.max(dim=1)
    matches = torch.where(best_iou >= iou_threshold, best + first[:, None], -1).flatten()
    forced_iou, forced_anchor = overlaps.max(dim=1)
    claimed = image * N + forced_anchor
    # Of objects that share their best anchor, the one with the larger overlap.
    claim = overlaps.new_zeros(B * N).scatter_reduce(0, claimed, forced_iou, "amax")
    rows = torch.where(forced_iou == claim[claimed], torch.arange(M, device=image.device), -1)
    forced = torch.full_like(matches, -1).scatter_reduce(0, claimed, rows, "amax")
    return torch.where(forced >= 0, forced, matches).view(B, N)
