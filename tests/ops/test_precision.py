import pytest
import torch

from ssdir.ops.compositing import composite_alpha
from ssdir.ops.glimpses import crop_glimpses, sample_glimpses
from ssdir.ops.precision import at_least_single

BOXES = torch.tensor([[0.1003, 0.2007, 0.5011, 0.7013], [0.3001, 0.1009, 0.9007, 0.8003]])
IMAGE_INDEX = torch.tensor([0, 1])


@pytest.mark.parametrize("crop", [crop_glimpses, sample_glimpses])
def test_places_are_not_rounded_under_autocast(crop) -> None:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = crop(images, BOXES, IMAGE_INDEX, 16)
    with torch.autocast("cpu", torch.bfloat16):
        glimpses = crop(images, BOXES, IMAGE_INDEX, 16)
    assert torch.equal(glimpses, expected)


@pytest.mark.parametrize("crop", [crop_glimpses, sample_glimpses])
def test_half_precision_is_converted_without_autocast_too(crop) -> None:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert torch.equal(crop(images, BOXES, IMAGE_INDEX, 16), crop(images.float(), BOXES, IMAGE_INDEX, 16))


def test_a_scene_is_pasted_in_single_precision_under_autocast() -> None:
    g = torch.Generator().manual_seed(0)
    alpha = torch.rand(2, 1, 8, 8, generator=g)
    appearances = torch.rand(2, 3, 8, 8, generator=g) * alpha
    place = (BOXES, torch.tensor([0.5, -0.5]), IMAGE_INDEX, [1, 1], (64, 64))
    expected, _ = composite_alpha(appearances.bfloat16().float(), alpha.bfloat16().float(), *place)
    with torch.autocast("cpu", torch.bfloat16):
        scene, coverage = composite_alpha(appearances.bfloat16(), alpha.bfloat16(), *place)
    assert scene.dtype == coverage.dtype == torch.float32
    assert torch.equal(scene, expected)


def test_at_least_single_never_loses_precision() -> None:
    assert at_least_single(torch.ones(1, dtype=torch.bfloat16)).dtype == torch.float32
    assert at_least_single(torch.ones(1, dtype=torch.float16)).dtype == torch.float32
    assert at_least_single(torch.ones(1, dtype=torch.float64)).dtype == torch.float64
