"""The inference form of a model gives the same results with less computation."""

import copy

import pytest
import torch
from torch import Tensor, nn

from ssdir.device import seeded
from ssdir.models.backbones.build import BackboneConfig, build_backbone
from ssdir.models.backbones.conv import ConvConfig
from ssdir.models.backbones.timm_net import TimmConfig
from ssdir.models.backbones.vgg import VGGConfig
from ssdir.models.inference_form import inference_form
from ssdir.models.io import load_model
from ssdir.models.registry import build_model
from ssdir.models.shipped import shipped_models
from ssdir.models.ssdir import SSDIR
from ssdir.training.recipe import read_recipe

from .tiny import NAMES, assert_same_objects, noise, tiny_model, truth

BACKBONES = [
    pytest.param(VGGConfig(), 0, id="vgg11_bn"),
    pytest.param(ConvConfig(channels=(8, 12, 16), num_levels=2, top_down=8), 0, id="conv"),
    # conv1, bn1, …, the downsampling branches are Sequential: those three are folded, the rest stay.
    pytest.param(TimmConfig(name="resnet18"), 17, id="timm"),
]


def trained_norms(model: nn.Module) -> None:
    """Sets statistics and affine parameters as after training; initial ones would hardly change anything."""
    g = torch.Generator().manual_seed(3)
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        for tensor, low, high in [(norm.running_mean, -0.3, 0.3), (norm.running_var, 0.5, 2.0)]:
            assert tensor is not None
            tensor.uniform_(low, high, generator=g)
        with torch.no_grad():
            norm.weight.uniform_(0.5, 1.5, generator=g)
            norm.bias.uniform_(-0.3, 0.3, generator=g)


def count_norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize(("config", "remaining"), BACKBONES)
def test_features_are_the_same_without_batch_norm(config: BackboneConfig, remaining: int) -> None:
    with seeded(0):
        backbone = build_backbone(config).eval()
    trained_norms(backbone)
    fast = inference_form(backbone)
    assert (count_norms(backbone) > remaining, count_norms(fast)) == (True, remaining)
    images = torch.nn.functional.interpolate(noise(1), 300)
    with torch.no_grad():
        expected, got = backbone(images), fast(images.contiguous(memory_format=torch.channels_last))
    for one, other in zip(expected, got, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-4 * float(one.abs().max()))


@pytest.mark.parametrize(
    "changes",
    [{}, {"encoder": {"kind": "aligned", "samples": 4}, "clone_backbone": True}],
    ids=["cells", "aligned"],
)
def test_objects_are_the_same(changes: dict[str, object]) -> None:
    model = tiny_model(**changes)
    trained_norms(model)
    fast = inference_form(model)
    assert_same_objects(fast.embed(noise(3), truth(2, 0, 3)), model.embed(noise(3), truth(2, 0, 3)))
    # Thresholds leave nothing within rounding of them in these images.
    objects = model.encode(noise(3))
    assert len(objects)
    assert_same_objects(fast.encode(noise(3)), objects)


@pytest.mark.parametrize("name", sorted(shipped_models()))
def test_shipped_models_are_the_same(name: str) -> None:
    model = load_model(name)
    images = torch.nn.functional.interpolate(noise(2), model.image_size)
    boxes = truth(4, 3)
    assert_same_objects(inference_form(model).embed(images, boxes), model.embed(images, boxes))


@pytest.mark.parametrize("preset", ["tiny-glimpses", "spair-64", "space-64", "slots-32"])
def test_other_kinds_are_the_same(preset: str) -> None:
    recipe = read_recipe(preset)
    with seeded(0):
        model = build_model(recipe.model, ["object"]).eval()
    trained_norms(model)
    images, boxes = torch.nn.functional.interpolate(noise(2), model.image_size), truth(2, 1)
    assert_same_objects(inference_form(model).embed(images, boxes), model.embed(images, boxes))


def test_the_model_stays_as_it_is() -> None:
    model = tiny_model().train()
    before = copy.deepcopy(model.state_dict())
    needs_gradient = [parameter.requires_grad for parameter in model.parameters()]
    fast = inference_form(model)
    assert isinstance(fast, SSDIR)
    assert not fast.training
    assert model.training
    assert [parameter.requires_grad for parameter in model.parameters()] == needs_gradient
    after = model.state_dict()
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor), name
        assert after[name].stride() == tensor.stride(), name


def test_weights_have_their_channels_last() -> None:
    weights = [p for p in inference_form(tiny_model()).parameters() if p.ndim == 4]
    assert weights
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


class Reversed(nn.Sequential):
    """A sequence of layers that are applied in the opposite order."""

    def forward(self, images: Tensor) -> Tensor:
        for layer in reversed(self):
            images = layer(images)
        return images


class ActivatedNorm(nn.BatchNorm2d):
    """Batch norm that activates, as timm's does."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).relu()


@pytest.mark.parametrize(
    "layers",
    [
        pytest.param(Reversed(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)), id="another order"),
        pytest.param(nn.Sequential(nn.Conv2d(3, 3, 1), ActivatedNorm(3)), id="another norm"),
        pytest.param(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.BatchNorm2d(3)), id="something between"),
    ],
)
def test_what_is_no_plain_pair_is_left_alone(layers: nn.Sequential) -> None:
    trained_norms(layers)
    fast = inference_form(layers)
    assert count_norms(fast) == 1
    with torch.no_grad():
        torch.testing.assert_close(fast(noise(1)), layers.eval()(noise(1)))


def test_detectors_class_scores_are_the_same() -> None:
    model = tiny_model()
    trained_norms(model)
    with torch.no_grad():
        expected, got = model.detector(noise(2))[1], inference_form(model).detector(noise(2))[1]
    torch.testing.assert_close(got.class_logits, expected.class_logits, rtol=1e-4, atol=1e-4)
    assert expected.class_logits.shape[-1] == len(NAMES) + 1
