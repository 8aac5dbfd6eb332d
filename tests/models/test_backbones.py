from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssdir.errors import InputError
from ssdir.models.backbones.base import Backbone, TopDownBackbone, reading_once
from ssdir.models.backbones.build import build_backbone
from ssdir.models.backbones.conv import ConvConfig
from ssdir.models.backbones.timm_net import TimmBackbone, TimmConfig, frozen_stages
from ssdir.models.backbones.vgg import VGGConfig
from ssdir.models.detector.ssd import SSD, AnchorConfig, SSDConfig


def test_vgg_has_the_papers_pyramid() -> None:
    backbone = build_backbone(VGGConfig())
    assert backbone.feature_sizes(300) == [18, 9, 5, 3, 1]
    assert backbone.channels == [512, 512, 512, 256, 256]


@pytest.mark.parametrize(
    ("config", "sizes", "channels"),
    [
        (ConvConfig(channels=(4, 6, 8), num_levels=2, top_down=0), [16, 8], [6, 8]),
        (ConvConfig(channels=(4, 6, 8), num_levels=3, top_down=10), [32, 16, 8], [10, 10, 10]),
        (TimmConfig(name="test_resnet", num_levels=2, top_down=0), [4, 2], [192, 96]),
        (TimmConfig(name="test_resnet", num_levels=3, top_down=7), [8, 4, 2], [7, 7, 7]),
    ],
)
def test_levels_are_the_last_stages(config: Any, sizes: list[int], channels: list[int]) -> None:
    backbone = build_backbone(config).eval()
    features = backbone(torch.rand(2, 3, 64, 64))
    assert [feature.shape[-1] for feature in features] == backbone.feature_sizes(64) == sizes
    assert [feature.shape[1] for feature in features] == backbone.channels == channels


@pytest.mark.parametrize("name", ["test_vit", "swin_tiny_patch4_window7_224", "levit_128s"])
def test_transformers_are_made_for_the_images_of_the_detector(name: str) -> None:
    config = TimmConfig(name=name, num_levels=1, top_down=0)
    backbone = build_backbone(config, 128).eval()
    images = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        (features,) = backbone(images)
        assert [features.shape[-1]] == backbone.feature_sizes(128)
        assert features.shape[1] == backbone.channels[0]
        finer = backbone.clone(finer=True).eval()
        assert finer(images)[-1].shape[-1] >= features.shape[-1]
        anchors = AnchorConfig(min_sizes=(32,), max_sizes=(64,))
        detector = SSD(SSDConfig(image_size=128, backbone=config, anchors=anchors), ["object"]).eval()
        assert detector.encode(images, score_threshold=0.0).batch_size == 1


def test_a_backbone_for_other_image_sizes_is_refused() -> None:
    with pytest.raises(InputError, match=r"'efficientformer_l1' takes no images of 128×128 pixels"):
        build_backbone(TimmConfig(name="efficientformer_l1"), 128).feature_sizes(128)


class Passing(Backbone):
    def pyramid(self, images: Tensor, finer: bool = False) -> list[Tensor]:
        return [images]


def test_images_are_normalised_once() -> None:
    backbone = Passing([3])
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    bright = mean + torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    torch.testing.assert_close(backbone(mean)[0], torch.zeros_like(mean))
    torch.testing.assert_close(backbone(bright)[0], torch.ones_like(mean))


def test_measuring_the_pyramid_leaves_no_trace() -> None:
    backbone = build_backbone(ConvConfig(channels=(4, 6), num_levels=1, top_down=0)).train()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    backbone.feature_sizes(32)
    assert backbone.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


def test_unknown_timm_model_names_the_nearest() -> None:
    with pytest.raises(InputError, match="timm has no model 'test_resnt'; did you mean 'test_resnet'"):
        build_backbone(TimmConfig(name="test_resnt"))


def test_too_many_levels_is_one_sentence() -> None:
    with pytest.raises(InputError, match="num_levels is 4, but the backbone has 2 stages"):
        build_backbone(ConvConfig(channels=(4, 6), num_levels=4))


def test_weights_out_of_reach_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: Any, **kwargs: Any) -> Any:
        raise OSError("no route")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", unreachable)
    with pytest.raises(InputError, match=r"'test_resnet' could not be fetched.*null to train from scratch"):
        build_backbone(TimmConfig(name="test_resnet", weights="hub"))


FINER = {
    "vgg": VGGConfig(),
    "conv": ConvConfig(channels=(4, 6, 7, 8), num_levels=2, top_down=5),
    "timm": TimmConfig(name="test_resnet", num_levels=2, top_down=5),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(FINER))
def test_a_batch_is_read_once_within_a_block(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = build_backbone(FINER[kind]).eval()
    other = backbone.clone().eval()
    images, later = torch.rand(2, 1, 3, 300, 300)
    read: list[Tensor] = []
    monkeypatch.setattr(type(backbone), "pyramid", _noting(type(backbone).pyramid, read))
    first = backbone(images)
    with reading_once(nn.ModuleList([backbone]), nn.ModuleList([backbone, other])):
        for _ in range(2):
            assert all(torch.equal(one, two) for one, two in zip(backbone(images), first, strict=True))
            assert len(backbone(images, finer=True)) == len(first) + 1
            assert not torch.equal(backbone(later)[0], first[0])
            other(images)
        with torch.autocast("cpu", torch.bfloat16):
            backbone(images)
        assert backbone(images)[0].dtype == torch.float32
    assert len(read) == 1 + 5
    backbone(images)
    assert len(read) == 1 + 5 + 1  # nothing is remembered afterwards


def _noting(pyramid: Callable[..., list[Tensor]], read: list[Tensor]) -> Callable[..., list[Tensor]]:
    def noted(self: Backbone, images: Tensor, finer: bool = False) -> list[Tensor]:
        read.append(images)
        return pyramid(self, images, finer)

    return noted


@pytest.mark.parametrize("kind", list(FINER))
def test_finer_clone_is_the_same_net_ending_a_level_earlier(kind: str) -> None:
    backbone = build_backbone(FINER[kind]).eval().requires_grad_(False)
    plain, finer = backbone.clone().eval(), backbone.clone(finer=True).eval()
    images = torch.rand(1, 3, 300, 300)
    features, copied, fine = backbone(images), plain(images), finer(images)
    assert all(torch.equal(one, other) for one, other in zip(features, copied, strict=True))
    assert len(fine) == len(features)
    assert [feature.shape[1] for feature in fine] == finer.channels
    assert [feature.shape[-1] for feature in fine[1:]] == [feature.shape[-1] for feature in features[:-1]]
    assert fine[0].shape[-1] > fine[1].shape[-1]
    assert all(p.requires_grad for p in finer.parameters())
    torch.stack([feature.sum() for feature in fine]).sum().backward()
    assert all(p.grad is not None for p in finer.parameters())  # nothing unused is left
    if isinstance(backbone, TopDownBackbone):
        stages = backbone.bottom_up((images - backbone.mean) / backbone.std)
        assert torch.equal(fine[-1], stages[-2])
    assert all(p.grad is None for p in backbone.parameters())


@pytest.mark.parametrize("kind", list(FINER))
def test_the_finer_map_comes_before_the_same_pyramid(kind: str) -> None:
    backbone = build_backbone(FINER[kind]).eval()
    images = torch.rand(1, 3, 300, 300)
    finer, *pyramid = backbone(images, finer=True)
    assert all(torch.equal(*pair) for pair in zip(pyramid, backbone(images), strict=True))
    assert torch.equal(finer, backbone.clone(finer=True).eval()(images)[0])
    assert backbone.finer_channels == finer.shape[1]


def test_a_pyramid_of_all_stages_has_no_finer_map() -> None:
    assert build_backbone(ConvConfig(channels=(4, 6), num_levels=2)).finer_channels is None
    assert build_backbone(FINER["vgg"]).clone(finer=True).finer_channels is None


@pytest.mark.parametrize("kind", list(FINER))
def test_clone_of_every_stage_halves_the_image_from_the_start(kind: str) -> None:
    backbone = build_backbone(FINER[kind]).eval()
    every, finer = backbone.clone(True, every_stage=True).eval(), backbone.clone(True).eval()
    images = torch.rand(1, 3, 256, 256)
    stages, fine = every(images), finer(images)
    assert [feature.shape[1] for feature in stages] == every.channels
    assert [feature.shape[-1] for feature in stages[:3]] == [128, 64, 32]
    assert all(torch.equal(*pair) for pair in zip(stages[-len(fine) :], fine, strict=True))
    torch.stack([feature.sum() for feature in stages]).sum().backward()
    assert all(p.grad is not None for p in every.parameters())


def test_finer_clone_needs_a_finer_stage() -> None:
    with pytest.raises(InputError, match="needs a stage finer than the pyramid: num_levels is 2"):
        build_backbone(ConvConfig(channels=(4, 6), num_levels=2)).clone(finer=True)


@pytest.mark.parametrize("config", [VGGConfig(), ConvConfig(channels=(6, 8, 8), num_levels=2, top_down=0)])
def test_first_batch_norm_learns_what_single_precision_makes_of_one_colour(config: Any) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(config).train()
    norms = [module for module in backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    black = torch.zeros(1, 3, 300, 300)
    means = []
    for bf16 in (False, True):
        for norm in norms:
            norm.reset_running_stats()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            features = backbone(black)
        means.append(norms[0].running_mean.clone())
    assert features[-1].dtype == torch.bfloat16
    torch.testing.assert_close(means[1], means[0], rtol=1e-6, atol=1e-6)


def timm_net(**changes: Any) -> TimmConfig:
    return TimmConfig(**{"name": "test_efficientnet", "num_levels": 2, "top_down": 6, **changes})


def test_a_neck_follows_the_top_down_pathway() -> None:
    plain, deep = build_backbone(timm_net()).eval(), build_backbone(timm_net(neck_depth=2)).eval()
    assert isinstance(plain, TopDownBackbone)
    assert isinstance(deep, TopDownBackbone)
    assert not len(plain.neck)
    layers = [[module for module in level.modules() if isinstance(module, nn.Conv2d)] for level in deep.neck]
    assert [[tuple(conv.weight.shape) for conv in convs] for convs in layers] == [[(6, 6, 3, 3)] * 2] * 2
    # With batch norm, the pathway's own convolutions have one each too.
    for backbone, norms in ((plain, 0), (deep, 4)):
        assert backbone.top_down is not None
        assert sum(isinstance(module, nn.BatchNorm2d) for module in backbone.top_down.modules()) == norms
    images = torch.rand(1, 3, 64, 64)
    features = deep(images)
    assert deep.top_down is not None
    stages = deep.bottom_up(deep.normalize(images))[-2:]
    for number, level in enumerate(deep.top_down({str(n): stage for n, stage in enumerate(stages)}).values()):
        expected = level.relu()
        for block in deep.neck[number]:
            expected = block[2](block[1](block[0](expected)))
        torch.testing.assert_close(features[number], expected)
    assert deep.feature_sizes(64) == plain.feature_sizes(64)


def test_a_neck_needs_a_pathway() -> None:
    with pytest.raises(ValueError, match="neck_depth needs top_down channels"):
        timm_net(neck_depth=1, top_down=0)


def test_a_finer_copy_has_neither_pathway_nor_neck() -> None:
    backbone = build_backbone(timm_net(neck_depth=1))
    finer = backbone.clone(finer=True, every_stage=True).eval()
    assert isinstance(finer, TopDownBackbone)
    assert finer.top_down is None
    assert not len(finer.neck)
    assert finer.channels == [16, 24, 32, 48]
    assert [level.shape[1] for level in finer(torch.rand(1, 3, 64, 64))] == finer.channels


def test_stages_are_counted_from_the_first_of_the_pyramid() -> None:
    """DLA has a map before the first one that timm returns."""
    backbone = build_backbone(timm_net(name="dla46_c", frozen_stages=2)).eval()
    assert isinstance(backbone, TimmBackbone)
    trained = {name.partition(".")[0] for name, weight in backbone.net.named_parameters() if weight.requires_grad}
    assert trained == {"level3", "level4", "level5"}
    finer = backbone.clone(finer=True, every_stage=True).eval()
    assert [level.shape[1] for level in finer(torch.rand(1, 3, 64, 64))] == finer.channels


def test_stages_that_can_not_be_frozen_alone_are_refused() -> None:
    with pytest.raises(InputError, match=r"frozen_stages=1 would freeze them all: set it to 0 or 5"):
        build_backbone(timm_net(name="hrnet_w18_small", frozen_stages=1))
    whole = build_backbone(timm_net(name="hrnet_w18_small", frozen_stages=5))
    assert isinstance(whole, TimmBackbone)
    assert not any(weight.requires_grad for weight in whole.net.parameters())


def test_frozen_stages_begin_where_the_resolution_is_a_quarter() -> None:
    config = timm_net(neck_depth=1, frozen_stages=1)
    stages = frozen_stages(config, 64).train()
    assert stages.channels == [24, 32, 48, 64]
    images = torch.rand(4, 3, 64, 64)
    before = {name: tensor.clone() for name, tensor in stages.state_dict().items()}
    first = stages(images)
    assert [level.shape[-1] for level in first] == [16, 8, 4, 2]
    # In training mode, too, batch norm neither learns from a batch nor normalises by it.
    assert all(torch.equal(tensor, before[name]) for name, tensor in stages.state_dict().items())
    torch.testing.assert_close(first, stages.eval()(images))
    assert not any(level.requires_grad for level in first)
