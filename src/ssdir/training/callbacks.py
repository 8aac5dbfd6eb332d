"""Callbacks that only this project needs."""

from __future__ import annotations

from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image

from ssdir.data.dataset import ObjectDataset, collate
from ssdir.models.base import GenerativeModel
from ssdir.plots import reconstruction_grid
from ssdir.training.modules import LitModel, LitRepresentation


class SampleReconstructions(Callback):
    """Draws a few validation images and what the model makes of them after each epoch.

    Args:
        dataset: where the images come from.
        folder: gets `epoch-000.png` and so on.
        count: how many images.
    """

    def __init__(self, dataset: ObjectDataset, folder: Path, count: int = 4) -> None:
        self.images, _ = collate([dataset[index] for index in range(min(count, len(dataset)))])
        self.folder = folder

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Writes the picture and hands it to TensorBoard."""
        assert isinstance(pl_module, (LitModel, LitRepresentation))
        model = pl_module.model
        assert isinstance(model, GenerativeModel)
        pixels = self.images.to(pl_module.device)
        objects = model.encode(pixels)
        scene = model.reconstruct(pixels, objects).to("cpu")
        grid = reconstruction_grid(self.images, objects.to("cpu"), scene, model.class_names)
        self.folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grid).save(self.folder / f"epoch-{trainer.current_epoch:03d}.png")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("samples", grid, trainer.global_step, dataformats="HWC")
