"""Fixtures that tests share, such as a small untrained model that detects something."""

from collections.abc import Callable, Sequence
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import hub_mixin
from hypothesis import settings
from numpy.typing import NDArray
from PIL import Image

from fake_hub import Hub
from ssdir.device import seeded
from ssdir.models.backbones.conv import ConvConfig
from ssdir.models.decoder import DecoderConfig
from ssdir.models.detected.encoders import PyramidEncoderConfig
from ssdir.models.detector.ssd import AnchorConfig, SSDConfig
from ssdir.models.io import save_model
from ssdir.models.ssdir import SSDIR, SSDIRConfig
from ssdir.training.recipe import Recipe, read_recipe

# The duration of an example depends on the machine's load, so it is no property of the code.
settings.register_profile("ssdir", deadline=None)
settings.load_profile("ssdir")

pytest_plugins = ["storages"]

CLASS_NAMES = ["cat", "dog", "eel"]


def build_tiny_model(class_names: list[str]) -> SSDIR:
    """Returns an untrained model; above 0.7, it detects a few objects in `picture`, none in blank images."""
    config = SSDIRConfig(
        ssd=SSDConfig(
            image_size=64,
            backbone=ConvConfig(channels=(8, 16, 16), num_levels=2, top_down=16),
            anchors=AnchorConfig(min_sizes=(8, 24), max_sizes=(24, 56)),
        ),
        encoder=PyramidEncoderConfig(latent_dim=8, num_hidden=1, hidden_channels=16),
        decoder=DecoderConfig(stem=16, channels=(16, 8, 8), alpha=True),
    )
    with seeded(0):
        model = SSDIR(config, class_names)
    with torch.no_grad():
        for head in model.detector.class_heads:
            head.weight *= 8
    return model.eval()


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(build_tiny_model(CLASS_NAMES), folder, "untrained")
    return folder


@pytest.fixture(scope="session")
def agnostic_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "agnostic"
    save_model(build_tiny_model(["object"]), folder, "untrained, class-agnostic")
    return folder


@pytest.fixture
def untrained_recipe() -> Callable[..., Recipe]:
    """Returns `read_recipe` without ImageNet's weights, which tests cannot fetch."""

    def read(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
        recipe = read_recipe(name, overrides)
        if getattr(recipe.model.ssd.backbone, "weights", None):
            recipe = read_recipe(name, [*overrides, "model.ssd.backbone.weights=null"])
        return recipe

    return read


@pytest.fixture
def picture() -> NDArray[np.uint8]:
    """Returns an image of colourful blobs, uint8 (60, 90, 3)."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((10, 10, 1), dtype=np.uint8))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(tmp_path / "hub")
    monkeypatch.setattr(hub_mixin, "HfApi", hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    return hub


@pytest.fixture
def photos(tmp_path: Path, picture: NDArray[np.uint8]) -> Path:
    """Writes three images; at a threshold of 0.7, the middle one has no objects."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, image in (("a", picture), ("b", np.zeros_like(picture)), ("c", picture[::-1])):
        Image.fromarray(image).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Returns a folder for outputs that does not exist yet."""
    return tmp_path / "out"
