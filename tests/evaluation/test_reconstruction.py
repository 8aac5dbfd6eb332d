from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from ssdir.evaluation.reconstruction import ReconstructionMeter
from ssdir.objects import Objects, Scene

from .fakes import boxes_to_objects


def images(seed: int, count: int) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def test_streaming_is_torchmetrics_on_everything() -> None:
    truth, drawn = images(0, 5), images(1, 5) * 0.5
    meter = ReconstructionMeter()
    for rows in (slice(0, 3), slice(3, 5)):
        scene = Scene(drawn[rows], torch.zeros(0, 3, 8, 8))
        meter.update(truth[rows], Objects.empty(len(truth[rows])), scene)
    psnr = PeakSignalNoiseRatio(data_range=1.0, dim=(1, 2, 3), reduction="elementwise_mean")
    ssim = StructuralSimilarityIndexMeasure(data_range=1.0)
    assert meter.compute() == pytest.approx(
        {
            "reconstruction/mse": float(F.mse_loss(drawn, truth)),
            "reconstruction/psnr": float(psnr(drawn, truth)),
            "reconstruction/ssim": float(ssim(drawn, truth)),
        },
        rel=1e-5,
    )


def test_perfect_is_finite() -> None:
    meter = ReconstructionMeter()
    meter.update(images(0, 2), Objects.empty(2), Scene(images(0, 2), torch.zeros(0, 3, 8, 8)))
    assert meter.compute() == {
        "reconstruction/mse": 0,
        "reconstruction/psnr": 100,
        "reconstruction/ssim": pytest.approx(1),
    }


def test_object_error_is_within_its_box() -> None:
    canvas = torch.zeros(2, 3, 32, 32)
    canvas[1, :, 8:24, 16:32] = 0.5
    objects = Objects.cat([boxes_to_objects([]), boxes_to_objects([[0.5, 0.25, 1, 0.75], [0, 0, 0.25, 0.25]])])
    meter = ReconstructionMeter()
    meter.update(canvas, objects, Scene(canvas, torch.full((2, 3, 8, 8), 0.4)))
    assert meter.compute()["reconstruction/object_mse"] == pytest.approx((0.1**2 + 0.4**2) / 2)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="reconstructions must be"):
        ReconstructionMeter().update(
            images(0, 1), Objects.empty(1), Scene(torch.zeros(1, 3, 8, 8), torch.zeros(0, 3, 8, 8))
        )


def test_nothing_seen() -> None:
    assert ReconstructionMeter().compute() == {}
