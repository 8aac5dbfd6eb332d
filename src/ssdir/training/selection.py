"""Selection of the epoch of a detector's training that is kept, and early stopping."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ssdir.data.dataset import ObjectDataset
from ssdir.errors import InputError
from ssdir.evaluation.detection import RANKING_THRESHOLD, detection_metrics
from ssdir.models.detector.ssd import SSD
from ssdir.objects import Objects
from ssdir.ops.distributed import gather_values
from ssdir.training.loading import Batch
from ssdir.training.recipe import DetectorStageConfig

AP50 = "detection/ap50"

LARGEST_SHARE, MEASURED_COST = 0.15, 0.5
"""The largest share of the time of training that measuring may take, and the time to measure an image relative to
that of a training step per image."""


def measuring_interval(val_images: int, train_images: int) -> int:
    """Returns the least n for which measuring each n-th epoch takes no more than `LARGEST_SHARE` of the training.

    It follows from the numbers of images alone, so that a run keeps the same epoch on any machine.
    """
    share = MEASURED_COST * val_images / max(1, train_images)
    return max(1, math.ceil(share / LARGEST_SHARE))


def check_measurable(split: ObjectDataset) -> None:
    """Checks that epochs can be compared on a validation split.

    Raises:
        InputError: if it has no object.
    """
    if not len(split.all_objects()):
        raise InputError(
            "the split to validate on has no object, so no epoch can be called the best: annotate some of its "
            "images, or train with detector.keep=last detector.patience=null"
        )


class BestEpoch:
    """Measures AP50 on the validation split after epochs, keeps the best weights, and stops early.

    Its state is part of the checkpoint, so that a resumed run chooses the epoch that an uninterrupted one chooses.

    Args:
        split: the validation split, in the order of the batches that epochs are measured on.
        config: of the detector's stage.
        every: n; only every n-th epoch is measured, and the last one.

    Attributes:
        epoch: the epoch whose weights are kept, counted from 0; None before the first.
        ap50: AP50 of that epoch.
        has_stopped: whether training stopped because AP50 had stopped rising.
    """

    def __init__(self, split: ObjectDataset, config: DetectorStageConfig, every: int = 1) -> None:
        self.config, self.every = config, every
        self._letterbox = split.letterbox(range(len(split)))
        self._targets = self._letterbox.to_image(split.all_objects())
        ignored = Objects.cat([split.ignored(index) for index in range(len(split))])
        self._ignored = self._letterbox.to_image(ignored)
        self.epoch: int | None = None
        self.ap50 = 0.0
        self.has_stopped = False
        self._best: tuple[int, float] | None = None
        self._weights: dict[str, Tensor] = {}

    def is_due(self, epoch: int) -> bool:
        """True if an epoch, counted from 0, is to be measured."""
        return (epoch + 1) % self.every == 0 or epoch + 1 == self.config.epochs

    def add_epoch(self, epoch: int, ap50: float, model: SSD) -> None:
        """Keeps the weights of an epoch if it is the best so far, and decides whether training stops."""
        if is_better := self._best is None or ap50 > self._best[1]:
            self._best = (epoch, ap50)
        if is_better or self.config.keep == "last":
            self.epoch, self.ap50 = epoch, ap50
        if is_better and self.config.keep == "best":
            self._weights = {
                name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()
            }
        assert self._best is not None
        self.has_stopped = self.config.patience is not None and epoch - self._best[0] >= self.config.patience

    @torch.no_grad()
    def measure(self, model: SSD, batches: Iterable[Batch]) -> float:
        """Measures AP50 of a detector in evaluation mode on the validation split."""
        threshold, device = min(RANKING_THRESHOLD, model.config.score_threshold), model.anchors.device
        detected = []
        for batch in batches:
            own = model.encode(batch.images.to(device), threshold).to("cpu")
            detected.append(Objects.cat(gather_values(own)))
        objects, side = self._letterbox.to_image(Objects.cat(detected)), model.image_size
        return detection_metrics(objects, self._targets, (side, side), self._ignored).get(AP50, 0.0)

    def restore(self, model: nn.Module) -> None:
        """Gives the trained model the weights of the epoch that is kept."""
        if self._weights:
            model.load_state_dict(self._weights)

    @property
    def notes(self) -> dict[str, float | None]:
        """The epoch that is kept, and its AP50, for the summary of the stage."""
        return {"kept_epoch": self.epoch, "kept_ap50": self.ap50}

    def state_dict(self) -> dict[str, Any]:
        """Returns all state, for a checkpoint."""
        return {
            "epoch": self.epoch,
            "ap50": self.ap50,
            "best": self._best,
            "has_stopped": self.has_stopped,
            "weights": self._weights,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state from a checkpoint."""
        self.epoch, self.ap50 = state_dict["epoch"], state_dict["ap50"]
        self._best, self.has_stopped = state_dict["best"], state_dict["has_stopped"]
        self._weights = state_dict["weights"]
