"""Small models and scenes that the tests of this folder share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ssdir.device import seeded
from ssdir.models.backbones.conv import ConvConfig
from ssdir.models.decoder import DecoderConfig
from ssdir.models.detected.encoders import AlignedEncoderConfig, EncoderConfig, PyramidEncoderConfig
from ssdir.models.detector.ssd import SSD, AnchorConfig, SSDConfig
from ssdir.models.ssdir import SSDIR, SSDIRConfig
from ssdir.objects import Objects

NAMES = ["cat", "dog", "eel"]
SIZE = 64


def detector_config(**changes: Any) -> SSDConfig:
    """Returns the config of a detector of 16² + 8² = 320 cells and 640 anchors, two squares per cell."""
    return SSDConfig(
        image_size=SIZE,
        backbone=ConvConfig(channels=(8, 12, 16), num_levels=2, top_down=0),
        anchors=AnchorConfig(min_sizes=(8, 24), max_sizes=(24, 56)),
    ).model_copy(update=changes)


def tiny_detector(names: list[str] | None = None, **changes: Any) -> SSD:
    """Returns an untrained detector whose heads have large enough weights to detect objects in noise."""
    with seeded(1):
        detector = SSD(detector_config(**changes), names or NAMES)
    with torch.no_grad():
        for head in detector.class_heads:
            head.weight.mul_(6)
    return detector.eval()


def _encoder_config(**changes: Any) -> EncoderConfig:
    if changes.get("kind") == "aligned":
        return AlignedEncoderConfig(**{"latent_dim": 6, "hidden_channels": 12, **changes})
    return PyramidEncoderConfig(**{"latent_dim": 6, "num_hidden": 1, "hidden_channels": 12, **changes})


def tiny_model(
    detector: dict[str, Any] | None = None,
    alpha: bool = True,
    encoder: dict[str, Any] | None = None,
    **changes: Any,
) -> SSDIR:
    config = SSDIRConfig(
        ssd=detector_config(**(detector or {})),
        encoder=_encoder_config(**(encoder or {})),
        decoder=DecoderConfig(stem=12, channels=(12, 8, 8), alpha=alpha),
        **changes,
    )
    frozen = tiny_detector(**(detector or {})).requires_grad_(False)  # as after its own stage
    with seeded(2):
        return SSDIR(config, NAMES, frozen).eval()


def noise(batch_size: int, seed: int = 0) -> Tensor:
    """Returns images of coarse coloured noise, float (B, 3, SIZE, SIZE)."""
    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch_size, 3, 8, 8, generator=g)
    return torch.nn.functional.interpolate(coarse, SIZE, mode="nearest")


def truth(*counts: int, seed: int = 0) -> Objects:
    """Returns random true objects; `counts` are the numbers of objects of the images."""
    g = torch.Generator().manual_seed(seed)
    M = sum(counts)
    sides = 0.1 + 0.4 * torch.rand(M, 2, generator=g)
    centres = sides / 2 + (1 - sides) * torch.rand(M, 2, generator=g)
    return Objects(
        image_index=torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)),
        batch_size=len(counts),
        z_where=torch.cat([centres, sides], dim=1),
        labels=torch.randint(0, len(NAMES), (M,), generator=g),
    )


def assert_same_objects(first: Objects, second: Objects, atol: float = 1e-4) -> None:
    """Asserts that every field of the objects is equal up to rounding."""
    assert first.batch_size == second.batch_size
    for name in ("image_index", "labels", "anchor_index"):
        one, other = getattr(first, name), getattr(second, name)
        assert (one is None) == (other is None), name
        assert one is None or torch.equal(one, other), name
    for name in ("z_where", "scores", "z_what", "z_what_scale", "z_depth"):
        one, other = getattr(first, name), getattr(second, name)
        assert (one is None) == (other is None), name
        if one is not None:
            torch.testing.assert_close(
                one, other, rtol=1e-3, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
            )
