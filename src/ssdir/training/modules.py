"""Lightning modules of the two stages."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from ssdir.models.base import GenerativeModel
from ssdir.models.detected.vae import DetectedVAE
from ssdir.models.detector.ssd import SSD
from ssdir.objects import Objects
from ssdir.training.loading import Batch
from ssdir.training.recipe import StageConfig


class LitStage(lightning.LightningModule):
    """What both stages share: optimiser, schedule, logging, and what happens to a step gone wrong.

    A step whose loss or gradient is not finite changes no weight; it is counted in `skipped_steps` and shown. (The
    running statistics of batch norm have seen its images by then.)
    Batches without a single object are counted in `empty_batches`.

    Args:
        config: the stage's.
        seed: what each epoch draws depends on it and on the epoch alone, so that a resumed run equals an
            uninterrupted one.
    """

    model: SSD | GenerativeModel

    def __init__(self, config: StageConfig, seed: int) -> None:
        super().__init__()
        self.config, self.seed = config, seed
        self.skipped_steps, self.empty_batches = 0, 0

    def compute_losses(self, batch: Any) -> dict[str, Tensor]:
        """Named losses of a batch, with `total`."""
        raise NotImplementedError

    def on_train_epoch_start(self) -> None:  # noqa: D102
        torch.manual_seed(self.seed * 100_003 + self.current_epoch)

    def training_step(self, batch: Any, batch_index: int) -> Tensor:  # noqa: D102
        losses = self.compute_losses(batch)
        self._step_losses = {name: value.detach() for name, value in losses.items()}
        self._step_images = _batch_size(batch)
        self.empty_batches += not _num_objects(batch)
        return losses["total"]

    def validation_step(self, batch: Any, batch_index: int) -> None:  # noqa: D102
        losses = self.compute_losses(batch)
        self._log_losses("val", losses, _are_finite(losses), _batch_size(batch))

    def configure_gradient_clipping(  # noqa: D102
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        finite = self.check_step(self._step_losses)
        self._log_losses("train", self._step_losses, finite, self._step_images)

    def check_step(self, losses: dict[str, Tensor]) -> dict[str, bool]:
        """Clips the gradients of a step, or drops them where it went wrong.

        Losses and gradients are looked at together, after both: the host waits for a GPU once.

        Args:
            losses: of the step, `total` among them.

        Returns:
            Which losses are finite.
        """
        parameters = [p for p in self.parameters() if p.grad is not None]
        limit = self.config.grad_clip if self.config.grad_clip is not None else float("inf")
        norm = nn.utils.clip_grad_norm_(parameters, limit)
        finite = _are_finite({**losses, "norm": norm})
        if not (finite["total"] and finite["norm"]):
            self.skipped_steps += 1
            for parameter in parameters:
                parameter.grad = None
        return finite

    def _log_losses(self, split: str, losses: dict[str, Tensor], finite: dict[str, bool], batch_size: int) -> None:
        """Shows finite terms of a training step in the progress bar, and logs their means over the epoch."""
        for name, value in losses.items():
            if not finite[name]:
                continue
            self.log(f"{split}/{name}", value.detach(), on_step=False, on_epoch=True, batch_size=batch_size)
            if split == "train" and self.trainer.progress_bar_callback is not None:
                self.log(name, value.detach(), prog_bar=True, logger=False, batch_size=batch_size)
        if split == "train":
            for name in ("skipped_steps", "empty_batches"):
                if count := getattr(self, name):
                    self.log(f"train/{name}", float(count), prog_bar=True, batch_size=batch_size)

    def configure_optimizers(self) -> OptimizerLRScheduler:  # noqa: D102
        optimizer = _optimizer([p for p in self.parameters() if p.requires_grad], self.config)
        if self.config.schedule == "constant":
            return optimizer
        steps = max(2, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.config.lr, total_steps=steps, pct_start=0.15
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:  # noqa: D102
        checkpoint["counts"] = (self.skipped_steps, self.empty_batches)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:  # noqa: D102
        self.skipped_steps, self.empty_batches = checkpoint["counts"]


class LitModel(LitStage):
    """Trains what has a loss of images and true objects: the SSD, or a model that needs no detector."""

    def __init__(self, model: SSD | GenerativeModel, config: StageConfig, seed: int) -> None:
        super().__init__(config, seed)
        self.model = model

    def compute_losses(self, batch: tuple[Tensor, Objects]) -> dict[str, Tensor]:  # noqa: D102
        return self.model.loss(*batch)


class LitRepresentation(LitStage):
    """Trains what and depth encoders and the decoder on the frozen detector's objects."""

    model: DetectedVAE

    def __init__(self, model: DetectedVAE, config: StageConfig, seed: int) -> None:
        super().__init__(config, seed)
        self.model = model

    def compute_losses(self, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        features = batch.features
        if not features and self.model.reads_detector:
            with torch.no_grad():
                features = self.model.detector.read(batch.images)
        return self.model.loss_of(batch.images, batch.objects, features)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:  # noqa: D102
        return Batch(batch.images.to(device), batch.objects.to(device), [f.to(device) for f in batch.features])


def _optimizer(parameters: list[nn.Parameter], config: StageConfig) -> torch.optim.Optimizer:
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)
    from ssdir.training.muon import PortableMuon  # timm takes a second to import

    muon: torch.optim.Optimizer = PortableMuon(
        parameters, lr=config.lr, weight_decay=config.weight_decay, betas=(0.9, 0.999)
    )
    return muon


def _are_finite(values: dict[str, Tensor]) -> dict[str, bool]:
    """Which of some scalars are finite; a device is waited for once."""
    flags = torch.stack([value.detach().float() for value in values.values()]).isfinite().tolist()
    return dict(zip(values, flags, strict=True))


def _batch_size(batch: Any) -> int:
    return len(batch.images) if isinstance(batch, Batch) else len(batch[0])


def _num_objects(batch: Any) -> int:
    return len(batch.objects) if isinstance(batch, Batch) else len(batch[1])
