from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ssdir.data.dataset import ObjectDataset, collate
from ssdir.data.readers.registry import open_dataset
from ssdir.data.transforms import AugmentConfig, build_augmentation
from ssdir.models.backbones.conv import ConvConfig
from ssdir.models.detected.encoders import AlignedEncoderConfig
from ssdir.models.detector.refiner import RefinerConfig
from ssdir.models.ssdir import SSDIR
from ssdir.training.cache import build_cache, cache_key
from ssdir.training.loading import Batch, CachedDataset, collate_batch
from ssdir.training.recipe import Recipe

from .common import SIZE


def everything(cached: CachedDataset) -> Batch:
    return collate_batch([cached[index] for index in range(len(cached))])


def assert_same_batch(first: Batch, second: Batch) -> None:
    assert torch.equal(first.images, second.images)
    for name in ("image_index", "z_where", "scores", "labels", "anchor_index"):
        assert torch.equal(getattr(first.objects, name), getattr(second.objects, name)), name
    assert len(first.features) == len(second.features)
    for one, other in zip(first.features, second.features, strict=True):
        assert torch.equal(one, other)


@contextmanager
def counted_images(model: SSDIR) -> Iterator[list[int]]:
    """Yields a list of the number of images in each call of the detector's backbone."""
    calls: list[int] = []

    def count(module: Any, inputs: tuple[torch.Tensor], output: Any) -> None:
        calls.append(len(inputs[0]))

    handle = model.detector.backbone.register_forward_hook(count)
    yield calls
    handle.remove()


def test_cached_equals_computed(model: SSDIR, val: ObjectDataset, tmp_path: Path) -> None:
    cached = everything(build_cache(model, val, tmp_path, limit_mb=100, batch_size=5))
    images, _ = collate([val[index] for index in range(len(val))])
    with torch.no_grad():
        objects, features = model.detector.detect(images)
    assert torch.equal(cached.images, images)
    assert len(objects) > 0
    assert torch.equal(cached.objects.counts, objects.counts)
    assert torch.equal(cached.objects.anchor_index, objects.anchor_index)  # type: ignore[arg-type]
    torch.testing.assert_close(cached.objects.z_where, objects.z_where, rtol=1e-4, atol=1e-5)
    for stored, feature in zip(cached.features, features, strict=True):
        assert stored.dtype == torch.float32
        torch.testing.assert_close(stored, feature, rtol=2e-3, atol=1e-4)  # stored in half precision
    losses = []
    for objects_, features_ in ((cached.objects, cached.features), (objects, features)):
        torch.manual_seed(0)
        losses.append(model.loss_of(images, objects_, features_)["total"])
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-3, atol=0)


def test_a_step_on_cached_features_learns_without_the_detector(
    model: SSDIR, val: ObjectDataset, tmp_path: Path
) -> None:
    model.train()
    with counted_images(model) as calls:
        cached = build_cache(model, val, tmp_path, limit_mb=100, batch_size=5)
        for _epoch in range(3):
            for batch in DataLoader(cached, batch_size=8, collate_fn=collate_batch):
                model.zero_grad()
                model.loss_of(batch.images, batch.objects, batch.features)["total"].backward()
    assert sum(calls) == len(val)  # each image once, in all
    assert all(p.grad is not None for p in model.encoder.parameters())
    assert all(p.grad is None for p in model.detector.parameters())


def test_mapped_equals_in_memory(model: SSDIR, val: ObjectDataset, tmp_path: Path) -> None:
    in_memory = build_cache(model, val, tmp_path / "none", limit_mb=100)
    assert not (tmp_path / "none").exists()
    mapped = build_cache(model, val, tmp_path, limit_mb=0)
    assert all(isinstance(level, np.memmap) for level in mapped.levels)
    assert_same_batch(everything(mapped), everything(in_memory))
    with counted_images(model) as calls:
        again = build_cache(model, val, tmp_path, limit_mb=0)
    assert not calls  # read back
    assert_same_batch(everything(again), everything(in_memory))


def test_incomplete_cache_is_built_again(model: SSDIR, val: ObjectDataset, tmp_path: Path) -> None:
    expected = everything(build_cache(model, val, tmp_path, limit_mb=0))
    folder = tmp_path / cache_key(model, val)
    (folder / "complete.json").unlink()
    (folder / "level0.npy").write_bytes(b"cut off")
    (folder / "objects.safetensors").unlink()
    assert_same_batch(everything(build_cache(model, val, tmp_path, limit_mb=0)), expected)


def test_interrupted_cache_is_not_taken_for_complete(model: SSDIR, val: ObjectDataset, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_cache(model, val, tmp_path, limit_mb=0, batch_size=5, progress=interrupt)
    expected = build_cache(model, val, tmp_path, limit_mb=100)
    assert_same_batch(everything(build_cache(model, val, tmp_path, limit_mb=0)), everything(expected))


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "level cut": lambda folder: (folder / "level0.npy").write_bytes((folder / "level0.npy").read_bytes()[:-7]),
    "level of other numbers": lambda folder: flip(folder / "level1.npy"),
    "level missing": lambda folder: (folder / "level1.npy").unlink(),
    "objects empty": lambda folder: (folder / "objects.safetensors").write_bytes(b""),
    "objects of other numbers": lambda folder: flip(folder / "objects.safetensors"),
    "note empty": lambda folder: (folder / "complete.json").write_bytes(b""),
    "note of another version": lambda folder: (folder / "complete.json").write_text('{"images": 16}'),
    "note of other types": lambda folder: (folder / "complete.json").write_text('{"checksums": [1]}'),
    "a pickle": lambda folder: np.save(folder / "level0.npy", np.array([{}], dtype=object), allow_pickle=True),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_made_anew_with_a_warning(
    damage: str, model: SSDIR, val: ObjectDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = everything(build_cache(model, val, tmp_path, limit_mb=0))
    assert capsys.readouterr().err == ""
    DAMAGE[damage](tmp_path / cache_key(model, val))
    assert_same_batch(everything(build_cache(model, val, tmp_path, limit_mb=0)), expected)
    printed = capsys.readouterr().err
    assert printed.startswith("warning: the cache of the detector's features is made anew: ")
    assert printed.count("\n") == 1
    build_cache(model, val, tmp_path, limit_mb=0)
    assert capsys.readouterr().err == ""


def test_a_cache_of_other_shapes_is_made_anew(
    model: SSDIR, val: ObjectDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache is complete, as if another version had written it under the same name."""
    folder = tmp_path / cache_key(model, val)
    expected = everything(build_cache(model, val, tmp_path, limit_mb=0))
    level = np.load(folder / "level0.npy")
    np.save(folder / "level0.npy", level[:, :1])
    note = json.loads((folder / "complete.json").read_text())
    note["checksums"]["level0.npy"] = zlib.crc32((folder / "level0.npy").read_bytes())
    (folder / "complete.json").write_text(json.dumps(note))
    assert_same_batch(everything(build_cache(model, val, tmp_path, limit_mb=0)), expected)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system can't reserve space on a disk")
def test_disk_space_is_reserved_before_memory_is_mapped(
    model: SSDIR, val: ObjectDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing to mapped memory on a full disk would kill the process."""

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        build_cache(model, val, tmp_path, limit_mb=0)


def test_key_follows_weights_options_and_data(
    model: SSDIR, val: ObjectDataset, recipe: Recipe, scattered: Path
) -> None:
    keys = {cache_key(model, val)}
    assert cache_key(model, open_dataset(scattered, "val", "object", SIZE)) in keys
    keys.add(cache_key(model, open_dataset(scattered, "train", "object", SIZE)))
    keys.add(cache_key(model, open_dataset(scattered, "val", "object", 32)))
    with torch.no_grad():
        model.encoder.depth[0].weight.add_(1)  # no part of the detector
        assert cache_key(model, val) in keys
        model.detector.box_heads[0].bias[0] += 1e-3
    keys.add(cache_key(model, val))
    for change in ({"score_threshold": 0.3}, {"nms": False}):
        detector = recipe.model.ssd.model_copy(update=change)
        model.config = recipe.model.model_copy(update={"ssd": detector})
        keys.add(cache_key(model, val))
    assert len(keys) == 6


def test_cloned_backbone_needs_detections_alone(
    recipe: Recipe, val: ObjectDataset, model: SSDIR, tmp_path: Path
) -> None:
    clone = SSDIR(recipe.model.model_copy(update={"clone_backbone": True}), ["object"], model.detector).eval()
    cached = build_cache(clone, val, tmp_path, limit_mb=0)
    batch = everything(cached)
    assert batch.features == []
    expected = everything(build_cache(model, val, tmp_path, limit_mb=100))
    assert torch.equal(batch.objects.z_where, expected.objects.z_where)
    assert cache_key(clone, val) != cache_key(model, val)
    losses = clone.loss_of(batch.images, batch.objects, batch.features)
    assert torch.isfinite(losses["total"])


def test_a_copy_that_reads_the_detector_too_needs_its_features(
    recipe: Recipe, val: ObjectDataset, model: SSDIR, tmp_path: Path
) -> None:
    # The network has three stages, so that one is finer than the pyramid.
    small = recipe.model.ssd
    detector = small.model_copy(
        update={
            "refiner": RefinerConfig(size=3, channels=8, hidden=8),
            "backbone": ConvConfig(channels=(8, 16, 16), num_levels=len(small.anchors.min_sizes), top_down=16),
        }
    )
    encoder = AlignedEncoderConfig(latent_dim=8, samples=4, hidden_channels=16, refiner_features=True)
    changes = {"ssd": detector, "encoder": encoder, "clone_backbone": True}
    both = SSDIR(recipe.model.model_copy(update=changes), ["object"]).eval()
    batch = everything(build_cache(both, val, tmp_path, limit_mb=100))
    with torch.no_grad():
        expected = both.encode(batch.images).z_what
        z_what = both.infer(batch.objects, batch.images, batch.features).z_what
    torch.testing.assert_close(z_what, expected, rtol=1e-2, atol=1e-2)  # The cache is in half precision.


def test_detections_move_with_augmented_images(model: SSDIR, val: ObjectDataset, tmp_path: Path) -> None:
    plain = build_cache(model, val, tmp_path, limit_mb=100)
    mirror = build_augmentation(AugmentConfig(flip=1), SIZE)
    mirrored = build_cache(model, val.with_transform(mirror), tmp_path, limit_mb=100)
    assert len(plain.objects) > 10
    assert torch.equal(mirrored.objects.z_where, plain.objects.z_where)  # Detected once, in images as they are.
    batch, expected = everything(mirrored), everything(plain)
    assert torch.equal(batch.images, expected.images.flip(3))
    x, *rest = expected.objects.z_where.unbind(1)
    assert torch.allclose(batch.objects.z_where, torch.stack([1 - x, *rest], dim=1), atol=1e-6)
    assert batch.objects.per_image == expected.objects.per_image
    assert not batch.features


def test_moved_detections_take_the_anchor_that_fits_them(model: SSDIR, val: ObjectDataset, tmp_path: Path) -> None:
    batch = everything(build_cache(model, val, tmp_path, limit_mb=100))
    moved = batch.objects.replace(z_where=batch.objects.z_where * torch.tensor([0.5, 0.5, 1, 1]))
    fitting = moved.replace(anchor_index=model.detector.assign(moved.z_where))
    assert not torch.equal(fitting.anchor_index, batch.objects.anchor_index)  # type: ignore[arg-type]
    losses = []
    for objects in (fitting, moved.replace(anchor_index=None)):
        torch.manual_seed(0)
        losses.append(model.loss_of(batch.images, objects, list(batch.features))["total"])
    assert torch.equal(*losses)


def test_feature_maps_of_images_as_they_are_are_not_read_for_augmented_ones(
    model: SSDIR, val: ObjectDataset, tmp_path: Path
) -> None:
    plain = build_cache(model, val, tmp_path, limit_mb=100)
    with pytest.raises(ValueError, match="as they are"):
        CachedDataset(
            val.with_transform(build_augmentation(AugmentConfig(flip=1), SIZE)), plain.objects, plain.levels
        )


def test_progress_counts_images(model: SSDIR, val: ObjectDataset, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    build_cache(model, val, tmp_path, limit_mb=100, batch_size=6, progress=lambda *step: seen.append(step))
    assert seen == [(6, 16), (12, 16), (16, 16)]
