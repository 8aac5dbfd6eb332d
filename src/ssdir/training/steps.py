"""The parts of a training step: loss of a batch, optimiser, and schedule of the learning rate."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from ssdir.models.base import GenerativeModel
from ssdir.models.detected.vae import DetectedVAE
from ssdir.models.detector.ssd import SSD
from ssdir.models.ssdir import SSDIR
from ssdir.training.loading import Batch, ClipBatch
from ssdir.training.muon import BlockMuon
from ssdir.training.recipe import StageConfig


class Objective(nn.Module):
    """The losses of a batch, as the module that several devices and CUDA graphs need.

    Args:
        model: a detector, a representation of a frozen detector's objects, or a model without one.
    """

    def __init__(self, model: SSD | GenerativeModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch | ClipBatch) -> dict[str, Tensor]:
        """Named losses of a batch, with `total`."""
        if isinstance(batch, ClipBatch):
            assert isinstance(self.model, SSDIR)
            assert self.model.memory is not None
            return self.model.memory.loss(batch.views)
        if not isinstance(self.model, DetectedVAE):
            return self.model.loss(batch.images, batch.objects)
        features = list(batch.features)
        if not features and self.model.reads_detector:
            with torch.no_grad():
                features = self.model.detector.read(batch.images)
        return self.model.loss_of(batch.images, batch.objects, features)


def build_optimizer(module: nn.Module, config: StageConfig) -> torch.optim.Optimizer:
    """The optimiser of the parameters of a module that are not frozen."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)
    muon: torch.optim.Optimizer = BlockMuon(
        parameters, lr=config.lr, weight_decay=config.weight_decay, betas=(0.9, 0.999)
    )
    return muon


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Loads the state of an optimiser, with the memory layout of its parameters.

    Fused steps read a parameter and its state in the order of memory, and so need both to be laid out alike.
    """
    optimizer.load_state_dict(state)
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def build_schedule(optimizer: torch.optim.Optimizer, config: StageConfig, steps: int) -> LRScheduler | None:
    """The schedule of the learning rate over all steps of a stage; None where it is constant."""
    if config.schedule == "constant":
        return None
    if config.schedule == "exponential":

        def factor(step: int) -> float:
            warm = min(1.0, step / config.warmup_steps) if config.warmup_steps else 1.0
            return float(warm * 0.5 ** (step / config.half_life))

        return LambdaLR(optimizer, factor)
    return OneCycleLR(optimizer, config.lr, total_steps=max(2, steps), pct_start=0.15)
