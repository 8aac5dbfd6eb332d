"""Fits principal components of pooled features, in one pass without gradients."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from ssdir.data.dataset import ObjectDataset, Sample, collate
from ssdir.errors import InputError
from ssdir.models.detected.model import pool_pyramid
from ssdir.models.pooled_features import PooledFeatures
from ssdir.models.ssdir import SSDIR
from ssdir.training.loading import CachedDataset, make_loader
from ssdir.training.recipe import Recipe
from ssdir.training.run_folder import read_summary, write_summary
from ssdir.training.session import UNWATCHED, Session

_IMAGES_AT_ONCE = 16


def fit_components(
    model: PooledFeatures, train_split: ObjectDataset, recipe: Recipe, folder: Path, session: Session = UNWATCHED
) -> None:
    """Fits a model's principal components, and writes the stage's summary into `folder`.

    Raises:
        InputError: if the detector detects fewer than two objects.
    """
    started, before = time.perf_counter(), read_summary(folder.parent, folder.name).wall_seconds
    with session.watching("pooling features") as advance:
        pooled = gather_features(model, train_split, recipe.seed, recipe.representation.batch_size, advance)
    _check_enough(pooled)
    share = model.fit(pooled, recipe.seed)
    folder.mkdir(parents=True, exist_ok=True)
    seconds = before + time.perf_counter() - started
    variance = share if math.isfinite(share) else None  # undefined where all objects have the same features
    write_summary(folder, seconds, ended=True, objects=len(pooled), explained_variance=variance)


def _check_enough(pooled: Tensor) -> None:
    if len(pooled) < 2:
        raise InputError(
            f"the detector detects {len(pooled)} objects in the training split, and principal components need "
            "two: train it longer, or with a lower model.ssd.score_threshold"
        )


@torch.no_grad()
def gather_features(
    model: PooledFeatures,
    dataset: Dataset[Sample],
    seed: int,
    batch_size: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Pools the features of detections, from images in random order, until there are `fit_objects`.

    Args:
        model: on the device to compute on, in evaluation mode.
        dataset: without augmentation.
        seed: decides the order of the images.
        batch_size: images at a time.
        on_progress: called with (objects so far, `fit_objects`).

    Returns:
        float (n, F), on the host; n is at most `fit_objects`, less where all images have fewer.
    """
    limit, count = model.config.fit_objects, 0
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))  # type: ignore[arg-type]
    parts: list[Tensor] = []
    for images, _ in DataLoader(Subset(dataset, order.tolist()), batch_size=batch_size, collate_fn=collate):
        objects, maps = model.detector.detect(images.to(model.device))
        parts.append(pool_pyramid(model.detector.pyramid(maps), objects, model.config.pool_size).cpu())
        count += len(parts[-1])
        if on_progress is not None:
            on_progress(min(count, limit), limit)
        if count >= limit:
            break
    return torch.cat(parts)[:limit]


@torch.no_grad()
def fit_pooled_stages(
    model: SSDIR, cached: CachedDataset, seed: int, on_progress: Callable[[int, int], None] | None = None
) -> None:
    """Fits the principal components of an encoder that reads pretrained features, on all detections.

    Args:
        model: on the device to compute on.
        cached: the training split and its detections; images are read without augmentation.
        seed: of the components' solver.
        on_progress: called with (images done, images in all).

    Raises:
        InputError: if the detector detects fewer than two objects.
    """
    assert model.backbone is not None
    assert model.pooled_stages is not None
    as_they_are, pooled, done = CachedDataset(cached.dataset.with_transform(None), cached.objects, []), [], 0
    for batch in make_loader(as_they_are, _IMAGES_AT_ONCE, model.device):
        images, objects = batch.images.to(model.device), batch.objects.to(model.device)
        maps = model.backbone(images)
        pooled.append(model.pooled_stages.pool(maps[-2:], objects.image_index, objects.boxes).cpu())
        done += len(images)
        if on_progress is not None:
            on_progress(done, len(cached))
    features = torch.cat(pooled)
    _check_enough(features)
    model.pooled_stages.fit(features, seed)
