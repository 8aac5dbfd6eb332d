from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DistributedSampler

from ssdir.data.dataset import ObjectDataset
from ssdir.data.readers.registry import open_dataset
from ssdir.models.ssdir import SSDIR
from ssdir.training.cache import build_cache
from ssdir.training.fit import train
from ssdir.training.loading import CachedDataset, ResidentDataset, make_loader
from ssdir.training.recipe import Recipe
from ssdir.training.steps import Objective

from .common import SIZE, changed

CPU = torch.device("cpu")


def shuffle(split: ObjectDataset, seed: int) -> DistributedSampler[Any]:
    return DistributedSampler(split, num_replicas=1, rank=0, seed=seed)


@pytest.mark.parametrize("cached", [False, True])
def test_resident_batches_equal_loaded_ones(
    cached: bool, model: SSDIR, val: ObjectDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split: ObjectDataset | CachedDataset = val
    if cached:
        cache = build_cache(model, val, tmp_path, limit_mb=100)
        split = CachedDataset(val, cache.objects, [])
    sampler = shuffle(val, 3)
    loaded = make_loader(split, 5, CPU, sampler)
    monkeypatch.setattr("ssdir.training.loading._fits", lambda split, device: True)
    resident = make_loader(split, 5, CPU, sampler)
    assert isinstance(resident.dataset, ResidentDataset)
    assert not isinstance(loaded.dataset, ResidentDataset)
    assert len(resident) == len(loaded) == 4
    for epoch in range(2):
        sampler.set_epoch(epoch)
        for one, other in zip(resident, loaded, strict=True):
            assert torch.equal(one.images, other.images)
            assert one.objects.batch_size == other.objects.batch_size
            tensors, others = one.objects._tensors(), other.objects._tensors()
            assert tensors.keys() == others.keys()
            assert all(torch.equal(tensor, others[name]) for name, tensor in tensors.items())


def test_grey_images_take_one_channel(val: ObjectDataset) -> None:
    assert ResidentDataset(val, CPU).images.shape == (len(val), SIZE, SIZE, 1)


def test_what_changes_from_epoch_to_epoch_is_not_held(val: ObjectDataset) -> None:
    with pytest.raises(ValueError, match="transform"):
        ResidentDataset(val.with_transform(lambda image, objects: (image, objects)), CPU)


def test_training_reads_resident_data_in_each_epochs_order(
    recipe: Recipe, scattered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    look_up = ResidentDataset.__getitems__

    def note(self: ResidentDataset, indices: list[int]) -> Any:
        asked.extend(indices if len(self) == 64 else [])
        return look_up(self, indices)

    monkeypatch.setattr("ssdir.training.loading._fits", lambda split, device: True)
    monkeypatch.setattr(ResidentDataset, "__getitems__", note)
    train(changed(recipe, "detector", epochs=2), scattered, tmp_path, stage="detector")
    split = recipe.open_data(scattered, "train")
    sampler = shuffle(split, recipe.seed * 100_003)
    first = list(sampler)
    sampler.set_epoch(1)
    assert asked == [*first, *sampler]


def test_maps_that_are_not_kept_are_read_anew(model: SSDIR, scattered: Path, tmp_path: Path) -> None:
    val = open_dataset(scattered, "val", "object", SIZE, preload=True)
    kept = build_cache(model, val, tmp_path, limit_mb=100)
    objective = Objective(model)
    losses = []
    for levels in (kept.levels, []):
        batch = next(iter(make_loader(CachedDataset(val, kept.objects, levels), 16, CPU)))
        torch.manual_seed(0)
        losses.append(objective(batch))
    assert len(kept.levels) > 0
    for name, value in losses[0].items():
        torch.testing.assert_close(losses[1][name], value, rtol=1e-3, atol=1e-3)
