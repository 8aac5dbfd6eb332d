"""Records of a stage's epochs: means of losses, `metrics.csv`, TensorBoard events and image grids."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from ssdir.inference.sample_grid import sample_grid
from ssdir.models.base import GenerativeModel
from ssdir.outputs import atomic_file
from ssdir.training.loading import Split, TrackedClips, images_of
from ssdir.training.tracks import memory_grid

SAMPLES = 4
"""Validation images that are reconstructed after each epoch."""


class Means:
    """Means of the finite among named values over batches, weighted by their numbers of images."""

    def __init__(self) -> None:
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._images: defaultdict[str, int] = defaultdict(int)

    def add(self, values: Mapping[str, float], images: int) -> None:
        """Adds the values of a batch."""
        for name, value in values.items():
            if math.isfinite(value):
                self._sums[name] += value * images
                self._images[name] += images

    def named(self, split: str) -> dict[str, float]:
        """The means, as `split/name`."""
        return {f"{split}/{name}": total / self._images[name] for name, total in self._sums.items()}


class StageLog:
    """Writes the metrics and the pictures of a stage's epochs.

    Args:
        folder: the stage's; gets `metrics.csv`, `tensorboard/` and `samples/epoch-000.png` and so on.

    Attributes:
        rows: of `metrics.csv`, one per epoch. They are part of the checkpoint, and the file is written from them,
            so that the file of a resumed run has each epoch once.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.rows = folder, list[dict[str, float]]()
        self._events = SummaryWriter(folder / "tensorboard")

    def add_epoch(self, epoch: int, step: int, values: Mapping[str, float]) -> None:
        """Records the values of an epoch, whose last step is `step`."""
        self.rows.append({"epoch": epoch, "step": step, **values})
        names = dict.fromkeys(sorted({name for row in self.rows for name in row} - {"epoch", "step"}))
        with (
            atomic_file(self.folder / "metrics.csv", force=True) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, ["epoch", "step", *names])
            writer.writeheader()
            writer.writerows(self.rows)
        for name, value in values.items():
            self._events.add_scalar(name, value, step)
        self._events.flush()

    @torch.no_grad()
    def add_samples(self, epoch: int, step: int, model: GenerativeModel, split: Split) -> Path:
        """Writes a picture of a few images, or tracks, of a split and their reconstructions; returns its path."""
        if isinstance(split, TrackedClips):
            grid = memory_grid(model, split, SAMPLES)
        else:
            grid = sample_grid(model, images_of(split), range(min(SAMPLES, len(split))))
        samples = self.folder / "samples"
        samples.mkdir(exist_ok=True)
        picture = samples / f"epoch-{epoch:03d}.png"
        Image.fromarray(grid).save(picture)
        self._events.add_image("samples", grid, step, dataformats="HWC")
        return picture

    def close(self) -> None:
        """Ends the file of events."""
        self._events.close()
