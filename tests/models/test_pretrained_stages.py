"""Tests of embeddings from the stages of a pretrained network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ssdir.config import parse
from ssdir.device import seeded
from ssdir.errors import InputError
from ssdir.models.backbones.timm_net import TimmConfig
from ssdir.models.decoder import DecoderConfig
from ssdir.models.detected.encoders import AlignedEncoderConfig
from ssdir.models.inference_form import inference_form
from ssdir.models.io import load_model, save_model
from ssdir.models.ssdir import SSDIR, SSDIRConfig

from .tiny import NAMES, assert_same_objects, detector_config, noise, truth

NETWORK = TimmConfig(name="test_efficientnet", num_levels=2, top_down=8)


@pytest.fixture
def pretrained(network_file: Callable[..., str]) -> SSDIR:
    """Builds a model that embeds objects from the stages of a network with weights of its own."""
    weights = network_file("test_efficientnet")
    ssd = detector_config(backbone=NETWORK.model_copy(update={"weights": weights}), score_threshold=0.0)
    encoder = AlignedEncoderConfig(
        latent_dim=6, features="pretrained", samples=4, hidden_channels=8, mlp_channels=12
    )
    decoder = DecoderConfig(stem=12, channels=(12, 8, 8), alpha=True)
    with seeded(2):
        return SSDIR(SSDIRConfig(ssd=ssd, encoder=encoder, decoder=decoder), NAMES)


def test_stages_are_a_copy_of_what_the_detector_started_from(pretrained: SSDIR) -> None:
    assert pretrained.backbone is not None
    copied, detector = pretrained.backbone.net.state_dict(), pretrained.detector.backbone.net.state_dict()
    assert copied.keys() == detector.keys()
    assert all(torch.equal(copied[name], tensor) for name, tensor in detector.items())
    images = noise(1)
    stages = pretrained.backbone(images)
    assert [stage.shape[-1] for stage in stages] == [16, 8, 4, 2]  # strides 4 to 32
    assert not pretrained.reads_detector
    # Of the pyramid's top-down pathway there is nothing, and nothing is learned.
    assert not any(parameter.requires_grad for parameter in pretrained.backbone.parameters())


def test_a_step_changes_the_detector_and_the_decoder_but_never_the_stages(pretrained: SSDIR) -> None:
    pretrained.detector.requires_grad_(True)
    pretrained.train()
    before = {name: tensor.clone() for name, tensor in pretrained.state_dict().items()}
    parameters = [parameter for parameter in pretrained.parameters() if parameter.requires_grad]
    images = noise(2)
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    total = pretrained.detector.loss(images, truth(2, 3))["total"] + pretrained.loss(images)["total"] / 1e4
    total.backward()
    optimizer.step()
    changed = {name for name, tensor in pretrained.state_dict().items() if not torch.equal(tensor, before[name])}
    assert not any(name.startswith("backbone.") for name in changed)
    assert any(name.startswith("detector.backbone.net.") and name.endswith("weight") for name in changed)
    assert not any(name.startswith("encoder.pooled.") for name in changed)
    assert any(name.startswith("decoder.") for name in changed)
    assert any(name.startswith("encoder.net.") for name in changed)


def test_a_saved_model_needs_no_weights_of_others(pretrained: SSDIR, tmp_path: Path) -> None:
    save_model(pretrained.eval(), tmp_path / "model")
    assert isinstance(pretrained.config.ssd.backbone, TimmConfig)
    Path(str(pretrained.config.ssd.backbone.weights)).unlink()
    loaded, images = load_model(tmp_path / "model"), noise(2)
    assert isinstance(loaded, SSDIR)
    expected = pretrained.encode(images)
    assert len(expected) > 2
    assert_same_objects(loaded.encode(images), expected, atol=0)
    assert_same_objects(inference_form(loaded).encode(images), expected)


@pytest.mark.parametrize("count", [0, 1])
def test_batches_of_next_to_nothing_can_be_learned(pretrained: SSDIR, count: int) -> None:
    pretrained.train()
    losses = pretrained.loss_of(noise(2), truth(count, 0), [])
    losses["total"].backward()
    assert torch.isfinite(losses["total"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"clone_backbone": True},
            "encoder.features=pretrained reads a copy of its own: leave out clone_backbone",
        ),
        ({"ssd": {"backbone": {"kind": "conv"}}}, "encoder.features=pretrained needs ssd.backbone.kind=timm"),
    ],
)
def test_what_pretrained_features_need(changes: dict[str, Any], message: str) -> None:
    values = {
        "ssd": {"backbone": {"kind": "timm", "name": "test_efficientnet"}},
        "encoder": {"kind": "aligned", "features": "pretrained"},
    }
    parse(SSDIRConfig, values, source="the test")
    with pytest.raises(InputError, match=message):
        parse(SSDIRConfig, values | changes, source="the test")
