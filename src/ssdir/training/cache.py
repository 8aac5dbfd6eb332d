"""A cache of the frozen detector's outputs, which do not change from epoch to epoch.

It holds the detections and, where the encoders read them, the feature maps, so that a training step computes only
encoders and decoder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ssdir.config import Record, parse
from ssdir.console import warn
from ssdir.data.dataset import ObjectDataset, fingerprint
from ssdir.documents import json_text, read_json
from ssdir.errors import InputError
from ssdir.models.detected.vae import DetectedVAE
from ssdir.objects import Objects
from ssdir.ops.distributed import are_several, gather_values, is_first, process_numbers
from ssdir.outputs import checksum
from ssdir.training.loading import CachedDataset, make_loader

DETECTED = ("image_index", "z_where", "scores", "labels", "anchor_index")

CACHE_LIMIT_MB = 2048
"""Feature maps up to this size stay in memory; larger ones are mapped from files."""

COMPLETE_FILE, OBJECTS_FILE = "complete.json", "objects.safetensors"


class _Complete(Record):
    """Contents of the file that is written once a cache is complete: the checksum of each of its files."""

    checksums: dict[str, int] = Field(max_length=100)


def cache_key(model: DetectedVAE, dataset: ObjectDataset) -> str:
    """Returns a digest of all that a cache depends on: the detector's weights and options, and the data."""
    digest = hashlib.sha256(fingerprint(dataset).encode())
    digest.update(model.config.ssd.model_dump_json().encode())
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
    limit_mb: int = CACHE_LIMIT_MB,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> CachedDataset:
    """Runs the frozen detector over the images of a data set as they are, once.

    Of several processes, each does so for a share of the images, and all get all of it. Feature maps are then
    written, whatever their size, for the processes of a machine to have them in memory once.

    Args:
        model: on the device to compute on; its detector is in evaluation mode.
        dataset: the images; with a transform, feature maps are not kept, for those of each epoch's images differ.
        folder: where features larger than `limit_mb` are written, in a subfolder named by `cache_key`; a complete
            one is read back, a damaged one is made anew with a warning, and one for other weights or data is never
            touched or used.
        limit_mb: features up to this size stay in memory.
        batch_size: images at a time.
        progress: called with (images done, images in all).
    """
    device = model.device
    # For a GPU, maps would have to come from the host in each step; it reads them anew instead.
    keeps_maps = model.reads_detector and device.type == "cpu" and dataset.transform is None
    shapes = model.detector.map_shapes if keeps_maps else []
    megabytes = sum(np.prod(shape) for shape in shapes) * len(dataset) * 2 / 2**20
    is_written = megabytes > limit_mb or (are_several() and bool(shapes))
    target = folder / cache_key(model, dataset) if is_written else None
    if target is not None and gather_values((target / COMPLETE_FILE).exists())[0]:
        try:
            return _read(dataset, target, shapes)
        except InputError as error:
            warn(f"warning: the cache of the detector's features is made anew: {error}")
            gather_values(None)  # All have read it.
            (target / COMPLETE_FILE).unlink(missing_ok=True)
    levels = _allocate_all(target, len(dataset), shapes)
    share, parts = _share(len(dataset), batch_size), list[Objects]()
    done = share.start
    loader = make_loader(dataset.with_transform(None), batch_size, device, share)
    with torch.no_grad():  # not inference_mode, whose tensors could not take part in autograd later
        for batch in loader:
            objects, features = model.detector.detect(batch.images.to(device))
            parts.append(objects.to("cpu"))
            for level, feature in zip(levels, features, strict=False):
                _write(level, done, feature.half().cpu().numpy())
            done += len(batch.images)
            if progress is not None:
                progress(done - share.start, len(share))
    every = Objects.cat(gather_values(Objects.cat(parts)))
    objects = dataset.letterbox(range(len(dataset))).inside(every)
    if target is not None:
        if is_first():
            _finish(target, objects, levels)
        gather_values(None)  # The first process has finished it.
        return _read(dataset, target, shapes)
    return CachedDataset(dataset, objects, levels)


def _share(images: int, batch_size: int) -> range:
    """Returns the images of this process: whole batches, so that they are those of one process."""
    rank, processes = process_numbers()
    batches = -(-images // batch_size)
    start, end = batches * rank // processes, batches * (rank + 1) // processes
    return range(start * batch_size, min(end * batch_size, images))


def _allocate_all(target: Path | None, images: int, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    """Makes the arrays of all levels; of several processes, the first one makes files that the others open."""
    levels: list[np.ndarray] = []
    if target is None or is_first():
        levels = [_allocate(target, index, (images, *shape)) for index, shape in enumerate(shapes)]
    gather_values(None)
    return levels or [
        np.load(cast(Path, target) / _level_file(level), mmap_mode="r") for level in range(len(shapes))
    ]


def _write(level: np.ndarray, start: int, rows: np.ndarray) -> None:
    """Writes rows of a level.

    Into a file, they are written and not mapped: machines that share it would overwrite each other's pages.
    """
    if not isinstance(level, np.memmap):
        level[start : start + len(rows)] = rows
        return
    with Path(str(level.filename)).open("rb+") as file:
        file.seek(level.offset + start * level[:1].nbytes)
        file.write(rows.tobytes())


def _allocate(target: Path | None, level: int, shape: tuple[int, ...]) -> np.ndarray:
    """Makes the array of a level, in half precision, which halves its size and changes no training noticeably."""
    if target is None:
        return np.empty(shape, dtype=np.float16)
    target.mkdir(parents=True, exist_ok=True)
    path = target / _level_file(level)
    levels = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
    if hasattr(os, "posix_fallocate"):  # Writing to mapped memory that has no place on the disk kills the process.
        with path.open("rb+") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return levels


def _level_file(level: int) -> str:
    return f"level{level}.npy"


def _finish(target: Path, objects: Objects, levels: Sequence[np.ndarray]) -> None:
    for level in levels:
        if isinstance(level, np.memmap):
            level.flush()
    tensors = {name: tensor for name in DETECTED if (tensor := getattr(objects, name)) is not None}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, target / OBJECTS_FILE)
    names = [OBJECTS_FILE, *(_level_file(level) for level in range(len(levels)))]
    # Written last: a cache without it was interrupted, and is built again.
    text = json_text({"checksums": {name: checksum(target / name) for name in names}})
    (target / COMPLETE_FILE).write_text(text, encoding="utf-8")


def _read(dataset: ObjectDataset, target: Path, shapes: Sequence[tuple[int, ...]]) -> CachedDataset:
    """Opens a cache on the disk, where its features stay.

    Raises:
        InputError: if a file is missing, damaged, or not what is expected.
    """
    file = target / COMPLETE_FILE
    checksums = parse(_Complete, read_json(file), source=f"'{file}'").checksums
    for name in (OBJECTS_FILE, *(_level_file(level) for level in range(len(shapes)))):
        path = target / name
        if not path.is_file() or checksum(path) != checksums.get(name):
            raise InputError(f"'{path}' is missing, cut or damaged")
    try:
        objects = Objects(batch_size=len(dataset), class_names=None, **load_file(target / OBJECTS_FILE))
        levels = [np.load(target / _level_file(level), mmap_mode="r") for level in range(len(shapes))]
    except (SafetensorError, TypeError, ValueError) as error:
        raise InputError(f"'{target}' is damaged ({error})") from None
    if any(level.shape != (len(dataset), *shape) for level, shape in zip(levels, shapes, strict=True)):
        raise InputError(f"'{target}' has other numbers of images or features")
    return CachedDataset(dataset, objects, levels)


def remove_cache(folder: Path) -> None:
    """Deletes the caches of a run."""
    shutil.rmtree(folder, ignore_errors=True)
