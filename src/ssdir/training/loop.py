"""The training loop of one stage: epochs of steps, validation and a checkpoint after each, resumable."""

from __future__ import annotations

import gc
import math
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler

from ssdir.console import Advance, warn
from ssdir.device import device_name
from ssdir.errors import InputError
from ssdir.formatting import about_seconds
from ssdir.models.base import GenerativeModel
from ssdir.models.detector.ssd import SSD
from ssdir.ops.distributed import batch_of
from ssdir.outputs import atomic_file
from ssdir.training.batch_norm import shared_batch_norm
from ssdir.training.checkpoints import read_checkpoint, run_key, write_checkpoint
from ssdir.training.graphs import DenseGraphs, has_graphs
from ssdir.training.loading import Batch, ClipBatch, Split, TrackedClips, make_loader
from ssdir.training.logs import Means, StageLog
from ssdir.training.recipe import Recipe, StageConfig
from ssdir.training.run_folder import read_fingerprint, read_summary, write_summary
from ssdir.training.selection import BestEpoch
from ssdir.training.session import OutOfTime, Session
from ssdir.training.steps import Objective, build_optimizer, build_schedule, load_optimizer

CHECKPOINT = Path("checkpoints") / "last.ckpt"
"""Within the folder of a stage."""

SECONDS_UNTIL_NOTE, SECONDS_BETWEEN_NOTES = 10.0, 60.0
"""Seconds of a stage until the first line on its progress, and between two such lines."""

SECONDS_UNTIL_SAMPLES = 20.0
"""Seconds of a stage until its first picture of reconstructions. Within the first epoch, it is renewed after twice
as many, four times as many, and so on."""

_NOTED = {"train/total": "loss", "val/total": "on validation", "val/ap50": "AP50 on validation"}
"""Labels of the values in lines on progress; files have the others."""


@dataclass(frozen=True)
class Stage:
    """A stage of a training: its model, data and options.

    Attributes:
        model: a detector, or a model whose reconstructions are shown.
        train_split: shuffled anew each epoch, by the recipe's seed.
        val_split: measured after each epoch.
        recipe: of the run.
        config: of the stage.
        folder: the stage's, within the run's.
        selection: chooses the epoch that is kept; None keeps the last one.
    """

    model: SSD | GenerativeModel
    train_split: Split
    val_split: Split
    recipe: Recipe
    config: StageConfig
    folder: Path
    selection: BestEpoch | None = None


def fit_stage(fabric: Fabric, stage: Stage, session: Session) -> None:
    """Trains one stage from its last checkpoint, if there is one; afterwards its model is on the host.

    With several processes, batch norm is that of the whole batch.

    Raises:
        InputError: if the checkpoint to go on from is damaged, or of another run; if the disk is full.
        OutOfTime: if the session's deadline came before the stage's last epoch.
    """
    batch_norm = shared_batch_norm(stage.model) if fabric.world_size > 1 else nullcontext()
    with batch_norm, closing(StageLoop(fabric, stage, session)) as loop:
        loop.resume()
        with loop.graphs(), session.watching(stage.folder.name) as advance:
            while not loop.is_done and not loop.is_out_of_time:
                loop.run_epoch(advance)
        if not loop.is_done:
            raise OutOfTime(
                f"'{stage.folder.parent}', {stage.folder.name}: {loop.epoch} of {stage.config.epochs} epochs"
            )
        loop.finish()


class StageLoop:
    """The state of a stage in training.

    What an epoch draws depends on the recipe's seed and on the epoch alone, so a resumed run equals an
    uninterrupted one, on any number of devices. A step whose loss or gradient is not finite changes no weight; it
    is counted in `skipped_steps`. (The running statistics of batch norm have seen its images by then; those no
    longer finite are set back to the epoch's start.) Batches without a single object are counted in
    `empty_batches`. Of several processes, each has its part of each batch, and the first one writes.
    """

    def __init__(self, fabric: Fabric, stage: Stage, session: Session) -> None:
        self.fabric, self.stage, self.session = fabric, stage, session
        self.started = time.perf_counter()
        config, recipe, folder = stage.config, stage.recipe, stage.folder
        self.seconds_before = read_summary(folder.parent, folder.name).wall_seconds
        self.log = StageLog(folder) if fabric.is_global_zero else None
        # All processes go through the batches of one process, of which each computes its part.
        self.sampler: DistributedSampler[Any] = DistributedSampler(
            stage.train_split, 1, 0, seed=recipe.seed * 100_003
        )
        process = (fabric.global_rank, fabric.world_size)
        self.train_loader, self.val_loader = (
            make_loader(split, config.batch_size, fabric.device, sampler, recipe.workers, process)
            for split, sampler in ((stage.train_split, self.sampler), (stage.val_split, None))
        )
        self.steps_per_epoch = len(self.train_loader)
        self.objective = Objective(stage.model).to(fabric.device)
        if fabric.device.type == "cpu":  # Convolutions and RoIAlign read all channels of a pixel at once.
            self.objective.to(memory_format=torch.channels_last)
        self.parameters = [p for p in self.objective.parameters() if p.requires_grad]
        self.optimizer = build_optimizer(self.objective, config)
        self.schedule = build_schedule(self.optimizer, config, config.epochs * self.steps_per_epoch)
        self.compute_losses = fabric.strategy.setup_module(self.objective)
        self.epoch, self.skipped_steps, self.empty_batches = 0, 0, 0
        self.longest_epoch, self.began, self.first_epoch = 0.0, time.monotonic(), 0
        self.noted = self.began + SECONDS_UNTIL_NOTE - SECONDS_BETWEEN_NOTES
        self.has_samples, self.samples_due = False, SECONDS_UNTIL_SAMPLES

    # One epoch ------------------------------------------------------------------------------------------------

    def run_epoch(self, advance: Advance) -> None:
        """Trains, validates and saves an epoch."""
        began = time.monotonic()
        values = {**self.train_epoch(advance), **self.validate()}
        selection, stage = self.stage.selection, self.stage
        if selection is not None and isinstance(stage.model, SSD) and selection.is_due(self.epoch):
            own_parts = (batch for batch, _ in self.batches(self.val_loader) if isinstance(batch, Batch))
            values["val/ap50"] = self.fabric.broadcast(selection.measure(stage.model, own_parts))
            selection.add_epoch(self.epoch, values["val/ap50"], stage.model)
        step = (self.epoch + 1) * self.steps_per_epoch
        if self.log is not None:
            self.log.add_epoch(self.epoch, step - 1, values)
        self.add_samples(step - 1)
        self.epoch += 1
        self.save()
        self.note(step, values)
        self.longest_epoch = max(self.longest_epoch, time.monotonic() - began)

    def train_epoch(self, advance: Advance) -> dict[str, float]:
        """Takes the steps of an epoch; returns the means of the losses."""
        seed = self.stage.recipe.seed * 100_003 + self.epoch
        self.sampler.set_epoch(self.epoch)
        self.train_loader.generator.manual_seed(seed)
        torch.manual_seed(seed)
        self.objective.train()
        statistics = [
            (buffer, buffer.clone()) for buffer in self.objective.buffers() if buffer.is_floating_point()
        ]
        means, total = Means(), self.stage.config.epochs * self.steps_per_epoch
        for number, (batch, images) in enumerate(
            self.batches(self.train_loader), start=1 + self.epoch * self.steps_per_epoch
        ):
            skipped, losses = self.skipped_steps, self.step(batch)
            if self.skipped_steps > skipped:
                for buffer, before in statistics:
                    if not buffer.isfinite().all():
                        buffer.copy_(before)
            means.add(losses, images)
            shown = f"epoch {self.epoch + 1} of {self.stage.config.epochs}"
            advance(number, total, f"{self.stage.folder.name}, {shown}: loss {losses['total']:.4g}")
            if number < total and time.monotonic() - self.noted > SECONDS_BETWEEN_NOTES:
                self.note(number, {"train/total": losses["total"]})
            if self.epoch == self.first_epoch and time.monotonic() - self.began > self.samples_due:
                self.samples_due *= 2
                self.add_samples(number - 1)
        counts = {"train/skipped_steps": self.skipped_steps, "train/empty_batches": self.empty_batches}
        return {**means.named("train"), **{name: float(count) for name, count in counts.items() if count}}

    def batches(self, loader: DataLoader[Any]) -> Iterator[tuple[Batch | ClipBatch, int]]:
        """Yields this process's part of each batch of a loader, on the device, and the size of the whole batch."""
        size, images, device = self.stage.config.batch_size, len(loader.dataset), self.fabric.device  # type: ignore[arg-type]
        for start, batch in zip(range(0, images, size), loader, strict=True):
            total = min(size, images - start)
            has_part = isinstance(batch, Batch)
            with batch_of(batch.size, total, device) if has_part else nullcontext():
                yield batch.to(device), total

    def step(self, batch: Batch | ClipBatch) -> dict[str, float]:
        """Takes a step, unless its loss or gradient is not finite; returns the losses."""
        try:
            with self.fabric.autocast():
                losses = self.compute_losses(batch)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            stage = self.stage.folder.name
            raise InputError(
                f"{stage}: batch norm can't normalise a batch of {batch.size} whose coarsest map is 1×1: choose a "
                f"{stage}.batch_size that leaves no single image for the last batch"
            ) from error
        self.optimizer.zero_grad()
        self.fabric.backward(losses["total"])
        limit = self.stage.config.grad_clip
        norm = nn.utils.clip_grad_norm_(self.parameters, math.inf if limit is None else limit)
        # Losses and gradients are looked at together, after both: the host waits for a GPU once.
        *values, length, filled = self.values([*losses.values(), norm, norm.new_tensor(not batch.is_empty)])
        named = dict(zip(losses, values, strict=True))
        self.empty_batches += not filled
        if math.isfinite(named["total"]) and math.isfinite(length):
            self.optimizer.step()
        else:
            self.skipped_steps += 1
        if self.schedule is not None:
            self.schedule.step()
        return named

    def values(self, scalars: list[Tensor]) -> list[float]:
        """The values of scalars on a device: their means over all processes."""
        stacked = torch.stack([scalar.detach().float() for scalar in scalars])
        means: Any = self.fabric.all_reduce(stacked, reduce_op="mean")
        return list(means.tolist())

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The means of the losses on the validation split."""
        self.objective.eval()
        means = Means()
        for batch, images in self.batches(self.val_loader):
            with self.fabric.autocast():
                losses = self.objective(batch)
            means.add(dict(zip(losses, self.values(list(losses.values())), strict=True)), images)
        return means.named("val")

    def note(self, step: int, values: dict[str, float]) -> None:
        """Prints how far the stage is after a step, the time that is left, and losses."""
        self.noted, epochs = time.monotonic(), self.stage.config.epochs
        if not self.fabric.is_global_zero:
            return
        epoch, rest = divmod(step, self.steps_per_epoch)
        done = f"step {rest} of {self.steps_per_epoch} in epoch {epoch + 1}" if rest else f"epoch {epoch}"
        left = (self.noted - self.began) * (epochs * self.steps_per_epoch - step)
        left /= max(1, step - self.first_epoch * self.steps_per_epoch)
        until = f", about {about_seconds(left)} left" if left > 0 else ""
        shown = ", ".join(f"{label} {values[name]:.4g}" for name, label in _NOTED.items() if name in values)
        self.session.note(f"{self.stage.folder.name}: {done} of {epochs}{until}: {shown}")

    def add_samples(self, step: int) -> None:
        """Writes a picture of reconstructions of validation images; prints its path the first time."""
        model, session = self.stage.model, self.session
        if self.log is None or not isinstance(model, GenerativeModel):
            return
        training, device = self.objective.training, self.fabric.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            self.objective.eval()
            picture = self.log.add_samples(self.epoch, step, model, self.stage.val_split)
            self.objective.train(training)
        if session.preview is not None:
            with atomic_file(session.preview, force=True) as temporary:
                shutil.copyfile(picture, temporary)
        if not self.has_samples:
            session.note(f"{self.stage.folder.name}: reconstructions so far: {session.preview or picture}")
        self.has_samples = True

    # Between epochs -------------------------------------------------------------------------------------------

    @property
    def is_done(self) -> bool:
        """True once the last epoch is over."""
        selection = self.stage.selection
        return self.epoch >= self.stage.config.epochs or (selection is not None and selection.has_stopped)

    @property
    def is_out_of_time(self) -> bool:
        """True if another epoch would probably end after the session's deadline; the first one may."""
        is_over = self.longest_epoch > 0 and self.session.ends_within(self.longest_epoch)
        return bool(self.fabric.broadcast(is_over))

    @property
    def key(self) -> str:
        """Names what the stage's checkpoints belong to."""
        folder = self.stage.folder
        return run_key(self.stage.recipe, read_fingerprint(folder.parent), folder.name)

    def save(self) -> None:
        """Writes a checkpoint in the place of the one before, and the time so far."""
        if self.log is None:
            return
        state = {
            "epoch": self.epoch,
            "model": self.objective.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "selection": None if self.stage.selection is None else self.stage.selection.state_dict(),
            "skipped_steps": self.skipped_steps,
            "empty_batches": self.empty_batches,
            "rows": self.log.rows,
        }
        write_checkpoint(self.stage.folder / CHECKPOINT, state, self.key)
        self.write_summary(ended=False)

    def resume(self) -> None:
        """Goes on from the last checkpoint, if there is one."""
        checkpoint = self.stage.folder / CHECKPOINT
        if not checkpoint.exists():
            return
        state = read_checkpoint(checkpoint, self.key)
        self.epoch = self.first_epoch = state["epoch"]
        self.objective.model.load_state_dict(state["model"])
        load_optimizer(self.optimizer, state["optimizer"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        if self.stage.selection is not None:
            self.stage.selection.load_state_dict(state["selection"])
        self.skipped_steps, self.empty_batches = state["skipped_steps"], state["empty_batches"]
        if self.log is not None:
            self.log.rows = state["rows"]

    @contextmanager
    def graphs(self) -> Iterator[None]:
        """Within the block, steps replay CUDA graphs of the model's dense parts, where that is possible."""
        graphs, device = DenseGraphs(), self.fabric.device
        split, size = self.stage.train_split, self.stage.config.batch_size
        is_dense = not isinstance(split, TrackedClips)
        if is_dense and has_graphs(device) and self.fabric.world_size == 1 and len(split) >= size:
            try:
                with self.fabric.autocast():
                    graphs.capture(self.objective, size)
            except RuntimeError as error:  # A backbone of anyone's may do what no graph can hold.
                reason = str(error).partition("\n")[0]
                warn(f"a CUDA graph could not be captured, so steps go kernel by kernel: {reason}")
        try:
            with warnings.catch_warnings():
                # Graphs are captured on a stream of their own, as torch remarks.
                warnings.filterwarnings("ignore", "(?s).*AccumulateGrad node's stream")
                # Gradients of weights that have channels last are copied before processes sum them.
                warnings.filterwarnings("ignore", "(?s).*Grad strides do not match")
                yield
        finally:
            graphs.release()

    def finish(self) -> None:
        """Gives the model the weights that are kept, on the host, and frees the device."""
        self.objective.cpu().to(memory_format=torch.contiguous_format)
        if self.stage.selection is not None:
            self.stage.selection.restore(self.stage.model)
        if self.log is not None:
            self.write_summary(ended=True)
            if self.skipped_steps or self.empty_batches:
                warn(
                    f"{self.stage.folder.name}: {self.skipped_steps} steps were skipped (loss or gradient not "
                    f"finite), {self.empty_batches} batches had no object"
                )
        del self.compute_losses, self.optimizer, self.schedule, self.train_loader, self.val_loader
        if self.fabric.device.type == "cuda":  # The next stage asks how much memory is free.
            gc.collect()
            torch.cuda.empty_cache()

    def close(self) -> None:
        """Ends the writing of events, which has a thread, whether the stage has ended or not."""
        if self.log is not None:
            self.log.close()

    def write_summary(self, *, ended: bool) -> None:
        """Writes the time so far, and what was counted."""
        selection = self.stage.selection if ended else None
        write_summary(
            self.stage.folder,
            self.seconds_before + time.perf_counter() - self.started,
            ended=ended,
            **({} if selection is None else selection.notes),
            skipped_steps=self.skipped_steps,
            empty_batches=self.empty_batches,
            device=device_name(self.fabric.device),
            precision=str(self.fabric.strategy.precision.precision),
        )
