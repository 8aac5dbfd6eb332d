"""Which epoch of a detector's training is kept, and when no better one is expected."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from ssdir.data.dataset import ObjectDataset
from ssdir.errors import InputError
from ssdir.evaluation.detection import RANKING_THRESHOLD, detection_metrics
from ssdir.models.detector.ssd import SSD
from ssdir.objects import Objects
from ssdir.training.modules import LitStage
from ssdir.training.recipe import StageConfig

AP50 = "detection/ap50"


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


class BestEpoch(Callback):
    """Measures AP50 on the validation split after each epoch, keeps the best weights, and stops in time.

    All that it knows is part of the checkpoint, so that a resumed run chooses the epoch that an uninterrupted one
    chooses.

    Args:
        split: the validation split, in the order of the trainer's validation batches.
        config: of the detector's stage.

    Attributes:
        epoch: the epoch whose weights are kept, counted from 0; None before the first.
        ap50: its AP50.
        has_stopped: whether training stopped because AP50 had stopped rising.
    """

    def __init__(self, split: ObjectDataset, config: StageConfig) -> None:
        self.config = config
        self._targets = split.all_objects()
        self._ignored = Objects.cat([split.ignored(index) for index in range(len(split))])
        self.epoch: int | None = None
        self.ap50 = 0.0
        self.has_stopped = False
        self._best: tuple[int, float] | None = None
        self._weights: dict[str, Tensor] = {}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Ends a resumed training that had stopped already."""
        trainer.should_stop = trainer.should_stop or self.has_stopped

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Measures an epoch."""
        assert isinstance(pl_module, LitStage)
        model, epoch = pl_module.model, trainer.current_epoch
        assert isinstance(model, SSD)
        ap50 = self._measure(model, trainer.val_dataloaders, pl_module.device)
        pl_module.log("val/ap50", ap50)
        is_better = self._best is None or ap50 > self._best[1]
        if is_better:
            self._best = (epoch, ap50)
        if is_better or self.config.keep == "last":
            self.epoch, self.ap50 = epoch, ap50
        if is_better and self.config.keep == "best":
            self._weights = {
                name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()
            }
        assert self._best is not None
        if self.config.patience is not None and epoch - self._best[0] >= self.config.patience:
            self.has_stopped = trainer.should_stop = True

    @torch.no_grad()
    def _measure(self, model: SSD, batches: Any, device: torch.device) -> float:
        threshold = min(RANKING_THRESHOLD, model.config.score_threshold)
        detected = [model.encode(images.to(device), threshold).to("cpu") for images, _ in batches]
        side = model.image_size
        return detection_metrics(Objects.cat(detected), self._targets, (side, side), self._ignored).get(AP50, 0.0)

    def restore(self, stage: LitStage) -> None:
        """Gives the trained model the weights of the epoch that is kept."""
        if self._weights:
            stage.model.load_state_dict(self._weights)

    @property
    def notes(self) -> dict[str, float | None]:
        """What the summary of the stage says of the epoch that is kept."""
        return {"kept_epoch": self.epoch, "kept_ap50": self.ap50}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {
            "epoch": self.epoch,
            "ap50": self.ap50,
            "best": self._best,
            "has_stopped": self.has_stopped,
            "weights": self._weights,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what a checkpoint holds of it."""
        self.epoch, self.ap50 = state_dict["epoch"], state_dict["ap50"]
        self._best, self.has_stopped = state_dict["best"], state_dict["has_stopped"]
        self._weights = state_dict["weights"]
