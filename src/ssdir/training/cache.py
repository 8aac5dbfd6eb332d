"""Frozen features, computed once and read back.

What the frozen detector makes of an image does not change from epoch to epoch. Its detections are kept, and
its feature maps where the encoders read them; the rest of a training step costs only encoders and decoder.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from ssdir.data.dataset import ObjectDataset, fingerprint
from ssdir.models.detected_vae import DetectedVAE
from ssdir.objects import Objects
from ssdir.training.loading import CachedDataset, make_loader

DETECTED = ("image_index", "z_where", "scores", "labels", "anchor_index")

Progress = Callable[[int, int], None]


def cache_key(model: DetectedVAE, dataset: ObjectDataset) -> str:
    """Names what the cache depends on: the detector's weights and options, and the data."""
    digest = hashlib.sha256(fingerprint(dataset).encode())
    digest.update(model.config.detector.model_dump_json().encode())
    digest.update(b"maps" if model.reads_detector else b"detections")
    for name, tensor in model.detector.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:20]


def build_cache(
    model: DetectedVAE,
    dataset: ObjectDataset,
    folder: Path,
    *,
    limit_mb: int,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> CachedDataset:
    """Runs the frozen detector over a data set once.

    Args:
        model: on the device to compute on; its detector is in evaluation mode.
        dataset: without augmentation.
        folder: where features larger than `limit_mb` are written, in a subfolder named by `cache_key`; a complete
            one is read back, and one for other weights or data is never touched or used.
        limit_mb: features up to this size stay in memory.
        batch_size: images at a time.
        progress: called with (images done, images in all).
    """
    device = model.device
    # For a GPU, maps would have to come from the host in each step; it reads them anew instead.
    shapes = model.detector.map_shapes if model.reads_detector and device.type == "cpu" else []
    megabytes = sum(np.prod(shape) for shape in shapes) * len(dataset) * 2 / 2**20
    target = folder / cache_key(model, dataset) if megabytes > limit_mb else None
    if target is not None and (target / "complete.json").exists():
        return _read(dataset, target, len(shapes))
    levels = [_allocate(target, index, (len(dataset), *shape)) for index, shape in enumerate(shapes)]
    parts: list[Objects] = []
    done = 0
    loader = make_loader(dataset, batch_size, device)
    with torch.no_grad():  # not inference_mode, whose tensors could not take part in autograd later
        for images, _ in loader:
            found, features = model.detector.find(images.to(device))
            parts.append(found.to("cpu"))
            for level, feature in zip(levels, features, strict=False):
                level[done : done + len(images)] = feature.half().cpu().numpy()
            done += len(images)
            if progress is not None:
                progress(done, len(dataset))
    objects = Objects.cat(parts)
    if target is not None:
        _finish(target, objects, levels)
        return _read(dataset, target, len(shapes))
    return CachedDataset(dataset, objects, levels)


def _allocate(target: Path | None, level: int, shape: tuple[int, ...]) -> np.ndarray:
    """Half precision: normalised activations lose nothing that a training notices, and the disk half the size."""
    if target is None:
        return np.empty(shape, dtype=np.float16)
    target.mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(target / f"level{level}.npy", mode="w+", dtype=np.float16, shape=shape)


def _finish(target: Path, objects: Objects, levels: Sequence[np.ndarray]) -> None:
    for level in levels:
        if isinstance(level, np.memmap):
            level.flush()
    tensors = {name: tensor.numpy() for name in DETECTED if (tensor := getattr(objects, name)) is not None}
    np.savez(target / "objects.npz", **tensors)
    # Written last: a cache without it was interrupted, and is built again.
    (target / "complete.json").write_text(json.dumps({"images": objects.batch_size}), encoding="utf-8")


def _read(dataset: ObjectDataset, target: Path, num_levels: int) -> CachedDataset:
    with np.load(target / "objects.npz") as stored:
        tensors = {name: torch.from_numpy(stored[name]) for name in stored.files}
    objects = Objects(batch_size=len(dataset), **tensors)
    levels = [np.load(target / f"level{level}.npy", mmap_mode="r") for level in range(num_levels)]
    return CachedDataset(dataset, objects, levels)


def remove_cache(folder: Path) -> None:
    """Deletes the caches of a run."""
    shutil.rmtree(folder, ignore_errors=True)
