"""Estimates how long a training takes: some of its own steps on its own data, times their number."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import nn

from ssdir.data.clips import clips_of
from ssdir.data.dataset import ObjectDataset, fingerprint
from ssdir.data.transforms import build_augmentation
from ssdir.device import device_name, seeded
from ssdir.errors import InputWarning
from ssdir.formatting import about_seconds, counted
from ssdir.models.base import GenerativeModel
from ssdir.models.detected.memory import TrackViews
from ssdir.models.detected.model import DetectedConfig, DetectedModel
from ssdir.models.detected.vae import DetectedVAE
from ssdir.models.detector.ssd import SSD
from ssdir.models.registry import build_model, without_pretrained
from ssdir.models.ssdir import SSDIR
from ssdir.training.cache import build_cache
from ssdir.training.devices import flushed_denormals, make_fabric
from ssdir.training.loading import CachedDataset, Split, TrackedClips
from ssdir.training.loop import Stage, StageLoop
from ssdir.training.recipe import Recipe, StageConfig
from ssdir.training.run_folder import RunData, prepare_folder
from ssdir.training.selection import BestEpoch, measuring_interval
from ssdir.training.session import Session
from ssdir.training.tracks import FRAMES

_LEAST_STEPS, _LEAST_SECONDS = 3, 1.0
"""The least number of steps that are timed, the first of them, which warms up, not counted; and the least time."""

MOST_TIMED = 2_000
"""Objects of an image up to which training steps are timed: they are all encoded, however few are detected."""

_FEWEST_STEPS = 100
"""The number of steps from which the time of a training is estimated; fewer are over soon."""

_BACKGROUND_LOGIT = 5.0


@dataclass(frozen=True)
class StageTime:
    """Time of a stage.

    Attributes:
        once: seconds that do not depend on the number of epochs.
        epoch: seconds of an epoch.
    """

    once: float
    epoch: float


@dataclass(frozen=True)
class TrainingTime:
    """Time of a training on one machine.

    It assumes that the machine is as busy as it was when the steps were timed, that the detector detects as many
    objects as are annotated, and that training does not stop early. Pretrained weights are there already.

    Attributes:
        device: where it runs, by name.
        threads: of the CPU that compute.
        reading: seconds to read all images.
        stages: time by stage.
    """

    device: str
    threads: int
    reading: float
    stages: dict[str, StageTime]

    def of_stage(self, stage: str, recipe: Recipe) -> float:
        """Returns the seconds of a stage with the recipe's epochs."""
        config: StageConfig = getattr(recipe, stage)
        return self.stages[stage].once + config.epochs * self.stages[stage].epoch

    def seconds(self, recipe: Recipe) -> float:
        """Returns the seconds of a training with the recipe's epochs; all else is as in the recipe measured."""
        return self.reading + sum(self.of_stage(stage, recipe) for stage in self.stages)

    def sentence(self, recipe: Recipe) -> str:
        """Formats the time of all stages, and of each: `training takes about 9 min for both stages …`."""
        seconds = {stage: self.of_stage(stage, recipe) for stage in self.stages}
        total = about_seconds(sum(seconds.values()))
        where = f"{self.device} with {counted(self.threads, 'thread')}" if self.device == "cpu" else self.device
        parts = ", ".join(f"{stage} {about_seconds(value)}" for stage, value in seconds.items())
        every = "both" if len(seconds) == 2 else "all"
        whole = f"{total} for {every} stages ({parts})" if len(seconds) > 1 else f"{total} ({next(iter(seconds))})"
        return f"training takes about {whole} on this machine ({where}), if it stays as busy as it is"


def is_worth_estimating(recipe: Recipe, train_split: ObjectDataset, stages: Sequence[str]) -> bool:
    """Returns whether stages take long enough, on one device, to time a few of their steps before they start."""
    if recipe.devices * recipe.nodes > 1:
        return False
    objects = np.bincount(train_split.table.image, minlength=1)
    steps = 0
    for stage in stages:
        config: StageConfig = getattr(recipe, stage)
        steps += config.epochs * math.ceil(num_samples(train_split, stage) / config.batch_size)
    return steps >= _FEWEST_STEPS and int(objects.max()) <= MOST_TIMED


def num_samples(split: ObjectDataset, stage: str) -> int:
    """Returns how many samples a split has for a stage: images, or for the memory clips or parts of these."""
    if stage != "memory":
        return len(split)
    return sum(math.ceil(len(clip.images) / FRAMES) for clip in clips_of(split))


def estimate_training(recipe: Recipe, data: Path, device: str | None = None) -> TrainingTime:
    """Takes a few steps of each stage on a part of the data, and counts how many there are in all.

    Weights start at random, for they make no difference to the time.

    Args:
        recipe: what to train; of several devices, one is measured.
        data: folder of a data set that the recipe can be trained on.
        device: see `choose_device`; None for the best there is.

    Raises:
        InputError: if the data can't be read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)  # They are of the data, and whoever checked them knows them.
        named = {"train": recipe.train_split, "val": recipe.val_split}
        splits = {part: recipe.open_data(data, name) for part, name in named.items()}
    return estimate_stages(recipe, splits, recipe.stages, device)


@flushed_denormals()
def estimate_stages(
    recipe: Recipe, splits: Mapping[str, ObjectDataset], stages: Sequence[str], device: str | None = None
) -> TrainingTime:
    """Does as `estimate_training`, for some stages and for data that are open; random numbers stay as they were.

    Args:
        recipe: what to train.
        splits: `train` and `val`.
        stages: names of the stages to measure.
        device: see `choose_device`.
    """
    alone = {"model": without_pretrained(recipe.model), "devices": 1, "nodes": 1}
    recipe = recipe.model_copy(update=alone)
    with warnings.catch_warnings(), TemporaryDirectory() as folder, seeded(recipe.seed):
        warnings.simplefilter("ignore", InputWarning)
        sizes = {
            stage: {split: num_samples(dataset, stage) for split, dataset in splits.items()} for stage in stages
        }
        fabric = make_fabric(recipe, device)
        fabric.launch()
        parts, reading = _read_parts(recipe, splits)
        prepare_folder(recipe, RunData(fingerprint=fingerprint(parts["train"])), Path(folder), resume=False)
        frames = sum(map(len, splits.values()))
        measured = _Measurement(fabric, recipe, parts, sizes, frames, Path(folder))
        times = {stage: measured.stage(stage) for stage in stages}
        return TrainingTime(device_name(fabric.device), torch.get_num_threads(), reading, times)


def _read_parts(recipe: Recipe, whole: Mapping[str, ObjectDataset]) -> tuple[dict[str, ObjectDataset], float]:
    """Reads as many random images of each split as are needed; returns the seconds for all, too."""
    sizes = [getattr(recipe, stage).batch_size for stage in recipe.stages if stage != "memory"]
    most = max(sizes)
    parts, seconds = {}, 0.0
    for split, count in (("train", _LEAST_STEPS * most), ("val", most)):
        table, total = whole[split].table, len(whole[split])
        count = min(count, total)
        while count > 1 and any(count % size == 1 for size in sizes):  # Batch norm can't normalise a single image.
            count -= 1
        chosen = np.sort(np.random.default_rng(recipe.seed).permutation(total)[:count])
        began = time.perf_counter()
        part = table.subset(np.arange(len(table.image)), chosen)
        parts[split] = ObjectDataset(
            part, recipe.classes, recipe.model.image_size, preload=True, resize=recipe.model.resize
        )
        seconds += (time.perf_counter() - began) * total / len(chosen)
    return parts, seconds


@dataclass(frozen=True)
class _Measurement:
    """Stages of a recipe, measured on parts of the data.

    Attributes:
        fabric: runs them.
        recipe: of the stages.
        parts: some images of each split.
        sizes: number of all samples of each split, by stage.
        frames: number of all images.
        folder: a run's, for what the stages write.
    """

    fabric: Fabric
    recipe: Recipe
    parts: dict[str, ObjectDataset]
    sizes: dict[str, dict[str, int]]
    frames: int
    folder: Path

    def stage(self, name: str) -> StageTime:
        """Measures a stage."""
        recipe, parts = self.recipe, self.parts
        names = parts["train"].class_names
        if name == "detector":
            assert isinstance(recipe.model, DetectedConfig)
            selection = BestEpoch(parts["val"], recipe.detector) if recipe.detector.measures_epochs else None
            detector = _sparing(SSD(recipe.model.ssd, names))
            return self._epochs(name, detector, self._augmented(), parts["val"], selection)
        if name == "memory":
            return self._of_memory(name, cast(SSDIR, build_model(recipe.model, names)).to(self.fabric.device))
        model = build_model(recipe.frame_model, names)
        if not isinstance(model, DetectedModel):
            return self._epochs(name, cast(GenerativeModel, model), self._augmented(), parts["val"])
        return self._of_detected(name, model.to(self.fabric.device))

    def _augmented(self) -> ObjectDataset:
        model = self.recipe.model
        transform = build_augmentation(self.recipe.augment, model.image_size, model.resize)
        return self.parts["train"].with_transform(transform)

    def _of_memory(self, name: str, model: SSDIR) -> StageTime:
        """Measures the frozen model on some frames, and steps on tracks of random embeddings."""
        _sparing(model.detector)
        size, train = 2 * self.recipe.representation.batch_size, self.parts["train"]
        images = torch.stack([train.image(i) for i in range(min(size, len(train)))]).to(model.device).float() / 255
        began = time.perf_counter()
        model.eval().encode(images)
        once = (time.perf_counter() - began) / len(images) * self.frames
        model.freeze_all_but_memory()
        tracks = max(2, math.ceil(len(train.table.image) / len(train)))
        clues = torch.ones(tracks, FRAMES)
        views = TrackViews(torch.randn(tracks, FRAMES, model.latent_dim), clues, clues, clues.bool())
        count = self.recipe.memory.batch_size
        train_clips, val_clips = (TrackedClips(self.parts[split], [views] * count) for split in ("train", "val"))
        epochs = self._epochs(name, model, train_clips, val_clips)
        return StageTime(once + epochs.once, epochs.epoch)

    def _of_detected(self, name: str, model: DetectedModel) -> StageTime:
        """Measures what is learned of a frozen detector's objects, on the annotated ones."""
        _sparing(model.detector)
        began = time.perf_counter()
        train = self._augmented() if self.recipe.augment.representation else self.parts["train"]
        splits = {"train": train, "val": self.parts["val"]}
        size = 2 * self.recipe.representation.batch_size
        with torch.no_grad():
            if not isinstance(model, DetectedVAE):
                images = torch.stack([self.parts["train"].image(i) for i in range(min(size, len(train)))])
                model.detector.detect(images.to(model.device).float() / 255)
                seconds = (time.perf_counter() - began) * self.sizes[name]["train"] / len(images)
                return StageTime(seconds, 0.0)
            cached = {}
            for split, part in splits.items():
                detected = build_cache(model, part, self.folder, limit_mb=2**40, batch_size=size)
                cached[split] = _with_annotated(detected, model)
        share = sum(self.sizes[name].values()) / sum(map(len, splits.values()))
        once = (time.perf_counter() - began) * share
        epochs = self._epochs(name, model, cached["train"], cached["val"])
        return StageTime(once + epochs.once, epochs.epoch)

    def _epochs(
        self,
        name: str,
        model: SSD | GenerativeModel,
        train: Split,
        val: Split,
        selection: BestEpoch | None = None,
    ) -> StageTime:
        """Measures the parts of an epoch."""
        config: StageConfig = getattr(self.recipe, name)
        sizes = self.sizes[name]
        endless = config.model_copy(update={"epochs": 10**6})  # The schedule of the learning rate needs an end.
        stage = Stage(model, train, val, self.recipe, endless, self.folder / name, selection)
        with closing(StageLoop(self.fabric, stage, Session(progress=lambda *_: None))) as loop:
            with loop.graphs():
                step = _step_seconds(loop)
                validation = _seconds(loop.validate)
                if selection is not None and isinstance(model, SSD):
                    detector, batches = model, loop.val_loader
                    measuring = _seconds(lambda: selection.measure(detector, batches))
                    validation += measuring / measuring_interval(sizes["val"], sizes["train"])
                saving = _seconds(loop.save)
                if loop.log is not None and isinstance(model, GenerativeModel):
                    log, shown = loop.log, self.parts["val"]
                    saving += _seconds(lambda: log.add_samples(0, 0, model, shown))
            loop.finish()
        steps = math.ceil(sizes["train"] / config.batch_size)
        return StageTime(0.0, steps * step + validation * sizes["val"] / len(val) + saving)


def _sparing(detector: SSD) -> SSD:
    """Makes an untrained detector take most places for background, as a trained one does."""
    for head in detector.class_heads:
        assert isinstance(head, nn.Conv2d)
        assert head.bias is not None
        background = head.bias.detach().view(detector.config.anchors.num_per_cell, -1)[:, 0]
        background += _BACKGROUND_LOGIT
    return detector


def _with_annotated(cached: CachedDataset, model: DetectedVAE) -> CachedDataset:
    """Puts the annotated objects in the place of the detections, for an untrained detector detects none."""
    objects = cached.dataset.all_objects()
    anchors = model.detector.assign(objects.z_where.to(model.device)).cpu()
    detected = objects.replace(
        anchor_index=anchors, scores=torch.ones(len(objects)), z_depth=None, source_index=None
    )
    return CachedDataset(cached.dataset, detected, cached.levels)


def _step_seconds(loop: StageLoop) -> float:
    """Takes steps; returns the mean seconds of one, without the first."""
    ends: list[float] = []

    def note(done: int, total: int, stage: str | None = None) -> None:
        ends.append(time.perf_counter())

    while len(ends) < _LEAST_STEPS or ends[-1] - ends[0] < _LEAST_SECONDS:
        loop.train_epoch(note)
        loop.epoch += 1
    return (ends[-1] - ends[0]) / (len(ends) - 1)


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
