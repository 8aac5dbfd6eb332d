"""The teacher's embeddings of all training objects, computed once, before the representation is trained."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from sklearn.decomposition import PCA
from torch import Tensor
from torch.nn import functional as F

from ssdir.data.crops import crop_boxes
from ssdir.data.images import Image8, read_image
from ssdir.models.backbones.crops import CropNetwork
from ssdir.models.backbones.timm_net import TimmConfig
from ssdir.models.detected.distillation import TEACHER_COMPONENTS, Teacher
from ssdir.models.detected.vae import DetectedVAE
from ssdir.objects import Objects
from ssdir.ops.boxes import clip_cxcywh, grow_boxes
from ssdir.ops.precision import multiplies_bf16
from ssdir.training.loading import CachedDataset

_SIDES = (0.12, 0.95)
"""Shortest and longest side of random boxes before their proportions change, relative to the image."""
_PROPORTIONS = 2.0
"""Largest ratio of a random box's width and height."""


def teach(
    model: DetectedVAE, cached: CachedDataset, seed: int, progress: Callable[[int, int], None] | None = None
) -> CachedDataset:
    """Gives a model the teacher's embeddings of its training objects, and of random boxes.

    Args:
        model: with `distillation`; its `student` gets the targets.
        cached: the training split with its detections.
        seed: of the random boxes.
        progress: called with (images done, images in all).

    Returns:
        The split with the random boxes, whose scores are 0, among the detections; each has a `source_index`.
    """
    assert model.student is not None
    assert isinstance(model.config.ssd.backbone, TimmConfig)
    dataset = cached.dataset
    network = CropNetwork(model.config.ssd.backbone).to(model.device)
    teacher = Teacher(network.to(memory_format=torch.channels_last))
    objects = _with_random_boxes(cached, model, model.config.distillation.random_boxes, seed)
    # Crops of the images' own pixels, which are more than the detector's.
    boxes = dataset.letterbox(range(len(dataset))).to_image(objects.replace(anchor_index=None))
    embedded = []
    for image, part in enumerate(boxes.split()):
        embedded.append(_embed(teacher, read_image(dataset.image_paths[image]), part, model))
        if progress is not None:
            progress(image + 1, len(dataset))
    model.student.targets = _principal_components(torch.cat(embedded)).to(model.device)
    return CachedDataset(dataset, objects, cached.levels)


def _with_random_boxes(cached: CachedDataset, model: DetectedVAE, per_image: int, seed: int) -> Objects:
    """The detections and, of score 0, boxes at random places of each image."""
    detected, B = cached.objects, len(cached)
    random = torch.Generator().manual_seed(seed)
    low, high = (math.log(side) for side in _SIDES)
    side = (low + (high - low) * torch.rand(B * per_image, 1, generator=random)).exp()
    proportion = (2 * torch.rand(B * per_image, 1, generator=random) - 1) * math.log(_PROPORTIONS) / 2
    sides = (side * torch.cat([proportion, -proportion], dim=1).exp()).clamp(max=1)
    center = sides / 2 + (1 - sides) * torch.rand(B * per_image, 2, generator=random)
    image_index = torch.arange(B).repeat_interleave(per_image)
    scores = torch.zeros(len(image_index))
    boxes = Objects(image_index, B, torch.cat([center, sides], dim=1), scores)
    boxes = cached.dataset.letterbox(range(B)).to_square(boxes)
    order = torch.cat([detected.image_index, boxes.image_index]).argsort(stable=True)
    assert detected.scores is not None
    z_where = torch.cat([detected.z_where, boxes.z_where])[order]
    labels = None
    if detected.labels is not None:
        labels = torch.cat([detected.labels, torch.zeros_like(image_index)])[order]
    return Objects(
        torch.cat([detected.image_index, boxes.image_index])[order],
        B,
        z_where,
        torch.cat([detected.scores, scores])[order],
        labels,
        anchor_index=model.detector.assign(z_where.to(model.device)).cpu(),
        source_index=torch.arange(len(order)),
    )


def _embed(teacher: Teacher, image: Image8, boxes: Objects, model: DetectedVAE) -> Tensor:
    """The teacher's embeddings (M, F) of the boxes of one image."""
    crops = []
    for margin in teacher.margins:
        around = boxes.replace(z_where=clip_cxcywh(grow_boxes(boxes.z_where, 1 + 2 * margin)))
        crops.append(crop_boxes([image], around, teacher.side).to(model.device, memory_format=torch.channels_last))
    device = model.device.type
    with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=multiplies_bf16(device)):
        return teacher(crops).float().cpu()


def _principal_components(embeddings: Tensor) -> Tensor:
    """Reduces embeddings (N, F) to their largest principal components, (N, T) of length 1."""
    count = min(TEACHER_COMPONENTS, *embeddings.shape)
    reduced = torch.from_numpy(PCA(count, random_state=0).fit_transform(embeddings.numpy())).float()
    return F.normalize(F.pad(reduced, (0, TEACHER_COMPONENTS - count)), dim=1)
