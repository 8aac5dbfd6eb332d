"""A small data set of scattered digits, and a recipe that trains on it in seconds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from ssdir.data.dataset import ObjectDataset
from ssdir.data.readers.registry import open_dataset
from ssdir.data.scatter.generator import ScatterConfig
from ssdir.data.scatter.writer import write_scatter
from ssdir.device import seeded
from ssdir.models.backbones.conv import ConvConfig
from ssdir.models.decoder import DecoderConfig
from ssdir.models.detected.encoders import PyramidEncoderConfig
from ssdir.models.detector.ssd import AnchorConfig, SSDConfig
from ssdir.models.ssdir import SSDIR, SSDIRConfig
from ssdir.training.recipe import DetectorStageConfig, Recipe, StageConfig

from .common import SIZE


@pytest.fixture(scope="session")
def scattered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes 64 training and 16 validation images of scattered digits."""
    folder = tmp_path_factory.mktemp("data") / "scattered"
    write_scatter(folder, "digits", ScatterConfig(canvas=SIZE, grids=(2, 3), train=64, val=16, test=0))
    return folder


@pytest.fixture(scope="session")
def deserted(scattered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes the same images with annotated objects in the first image of each split only."""
    folder = tmp_path_factory.mktemp("data") / "deserted"
    shutil.copytree(scattered, folder)
    for file in (folder / "annotations").iterdir():
        content = json.loads(file.read_text())
        first = [image["id"] for image in content["images"][:1]]
        kept = [entry for entry in content["annotations"] if entry["image_id"] in first]
        file.write_text(json.dumps({**content, "annotations": kept}))
    return folder


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """Returns a recipe of two stages of three epochs of four steps."""
    stage: dict[str, Any] = {"epochs": 3, "batch_size": 16, "lr": 2e-3}
    return Recipe(
        name="tiny",
        model=SSDIRConfig(
            ssd=SSDConfig(
                image_size=SIZE,
                backbone=ConvConfig(channels=(8, 16, 16), num_levels=2, top_down=16),
                anchors=AnchorConfig(min_sizes=(12, 24), max_sizes=(24, 48)),
                score_threshold=0.1,
                max_objects=6,
            ),
            encoder=PyramidEncoderConfig(latent_dim=8, num_hidden=1, hidden_channels=16),
            decoder=DecoderConfig(stem=16, channels=(16, 8, 8), alpha=True),
        ),
        detector=DetectorStageConfig(**stage, schedule="one_cycle", grad_clip=10),
        representation=StageConfig(**stage),
    )


@pytest.fixture
def model(recipe: Recipe) -> SSDIR:
    """Returns an untrained model of the recipe."""
    with seeded(0):
        return SSDIR(recipe.model, ["object"]).eval()


@pytest.fixture
def val(scattered: Path) -> ObjectDataset:
    return open_dataset(scattered, "val", "object", SIZE, preload=True)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Sets one thread, because exact repetition needs sums in one order."""
    torch.set_num_threads(1)
