"""Backbones that turn images into a feature pyramid, fine to coarse."""

from __future__ import annotations

import copy
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn
from torchvision.models import VGG11_BN_Weights, vgg11_bn
from torchvision.ops import Conv2dNormActivation, FeaturePyramidNetwork

from ssdir.config import Config
from ssdir.errors import InputError, nearest
from ssdir.models.sizes import MAX_STAGES, MAX_WIDTH, Widths
from ssdir.ops.precision import in_full_precision

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class VGGConfig(Config):
    """VGG11-BN and SSD's extra levels, as in the paper: 18, 9, 5, 3 and 1 cells at 300×300.

    Attributes:
        pretrained: load torchvision's ImageNet weights (from its hub or the local cache).
    """

    kind: Literal["vgg11_bn"] = "vgg11_bn"
    pretrained: bool = False


class ConvConfig(Config):
    """A small convolutional net for CPUs: stages of 3×3 convolutions that each halve the resolution.

    Attributes:
        channels: width of each stage; the first has one convolution, the others have two.
        num_levels: how many of the last stages make up the pyramid.
        top_down: channels of the top-down pathway (a feature pyramid network); 0 for none.
    """

    kind: Literal["conv"] = "conv"
    channels: Widths = (24, 48, 96, 128, 128)
    num_levels: int = Field(3, ge=1, le=MAX_STAGES)
    top_down: int = Field(96, ge=0, le=MAX_WIDTH)


class TimmConfig(Config):
    """Any timm model that offers `features_only`.

    Attributes:
        name: timm's name of the model.
        pretrained: load ImageNet weights (from timm's hub or its local cache).
        num_levels: how many of its coarsest feature maps make up the pyramid.
        top_down: channels of the top-down pathway; 0 for none.
    """

    kind: Literal["timm"] = "timm"
    name: str = Field("resnet18", max_length=200)
    pretrained: bool = False
    num_levels: int = Field(3, ge=1, le=MAX_STAGES)
    top_down: int = Field(128, ge=0, le=MAX_WIDTH)


BackboneConfig = Annotated[VGGConfig | ConvConfig | TimmConfig, Field(discriminator="kind")]


class Backbone(nn.Module):
    """Images to a feature pyramid.

    Normalisation with ImageNet's statistics happens here and nowhere else.

    Attributes:
        channels: channels of each level, fine to coarse.
        finer_channels: channels of the map one step finer than the pyramid; None where there is none.
        kept: images and their maps by call, within `reading_once`; None outside, where nothing is kept.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.channels = channels
        self.finer_channels: int | None = None
        self.kept: dict[tuple[int, bool, bool], tuple[Tensor, list[Tensor]]] | None = None
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor, finer: bool = False) -> list[Tensor]:
        """Images float (B, 3, H, W) in [0, 1] to features, each (B, channels, h, w).

        Args:
            images: a batch.
            finer: put the map with `finer_channels` before the pyramid.
        """
        if self.kept is None:
            return self.pyramid((images - self.mean) / self.std, finer)
        # Images are kept too: of a tensor that is gone, another could have the number.
        call = (id(images), finer, torch.is_autocast_enabled(images.device.type))
        if call not in self.kept:
            self.kept[call] = images, self.pyramid((images - self.mean) / self.std, finer)
        return self.kept[call][1]

    def pyramid(self, images: Tensor, finer: bool = False) -> list[Tensor]:
        """The pyramid of normalised images; see `forward`."""
        raise NotImplementedError

    def clone(self, finer: bool = False, every_stage: bool = False) -> Backbone:
        """A trainable copy with the same weights.

        Args:
            finer: end one level earlier: as many levels, each one step finer, and no top-down pathway.
            every_stage: with `finer`: not as many levels, but one for each stage, from the first that halves the
                resolution on.

        Raises:
            InputError: if there is no stage finer than the pyramid.
        """
        copied = copy.deepcopy(self)
        copied.requires_grad_(True).train()
        if finer:
            copied.shift_finer(every_stage)
        return copied

    def shift_finer(self, every_stage: bool) -> None:
        """Makes the pyramid one step finer, dropping what is then unused; see `clone`."""
        raise NotImplementedError

    @torch.no_grad()
    def feature_sizes(self, image_size: int, finer: bool = False) -> list[int]:
        """Cells along each side of each map that `forward` returns for square images of `image_size` pixels."""
        was_training = self.training
        self.eval()
        blank = torch.zeros(1, 3, image_size, image_size, device=self.mean.device)
        sizes = [feature.shape[-1] for feature in self(blank, finer)]
        self.train(was_training)
        return sizes


@in_full_precision
def _in_single_precision(images: Tensor, first: nn.Module) -> Tensor:
    """The first layers of a net whose others may multiply in bfloat16.

    There, all of a large area of one colour would get the same error, large beside what some channels vary by.
    Batch norm would learn it, and a model that is used in single precision afterwards would miss it.
    """
    features: Tensor = first(images)
    return features


@contextmanager
def reading_once(*models: object) -> Iterator[None]:
    """Within the block, a backbone of these models that is given the same images again returns the same maps.

    This lets callers ask several things of one batch at the time of one. Neither images nor maps may change
    meanwhile.

    Args:
        models: may share backbones; what is no module has none.
    """
    modules = [model for model in models if isinstance(model, nn.Module)]
    backbones = {part for module in modules for part in module.modules() if isinstance(part, Backbone)}
    for backbone in backbones:
        backbone.kept = {}
    try:
        yield
    finally:
        for backbone in backbones:
            backbone.kept = None


class VGG11Backbone(Backbone):
    """VGG11-BN cut after its 4th and 5th max-pool, and three extra levels (paper §3.1)."""

    def __init__(self, config: VGGConfig) -> None:
        super().__init__(channels=[512, 512, 512, 256, 256])
        self.finer_channels = 256
        weights = VGG11_BN_Weights.IMAGENET1K_V1 if config.pretrained else None
        layers = list(_fetch(lambda: vgg11_bn(weights=weights), "vgg11_bn").features)
        fourth = _pool_ends(layers)[3]
        self.stages = nn.ModuleList([nn.Sequential(*layers[:fourth]), nn.Sequential(*layers[fourth:])])
        self.extras = nn.ModuleList([_extra(512, 256, 512), _extra(512, 128, 256), _extra(256, 128, 256, 0)])
        for extra in self.extras:
            extra.apply(init_xavier)

    def shift_finer(self, every_stage: bool) -> None:  # noqa: D102
        first, second = self.stages
        assert isinstance(first, nn.Sequential)
        layers = list(first)
        ends = _pool_ends(layers)
        starts = [0, *ends[:-1]] if every_stage else [0, ends[2]]
        parts = [layers[start:end] for start, end in pairwise([*starts, len(layers)])]
        self.stages = nn.ModuleList([*(nn.Sequential(*part) for part in parts), second])
        self.extras = self.extras[:-1]
        channels = [64, 128, 256, 512, 512, 512, 256]
        self.channels = channels if every_stage else channels[2:]
        self.finer_channels = None

    def pyramid(self, images: Tensor, finer: bool = False) -> list[Tensor]:  # noqa: D102
        first, *others = self.stages
        assert isinstance(first, nn.Sequential)
        images, first = _in_single_precision(images, first[0]), first[1:]
        parts = [first]
        if finer:
            third = _pool_ends(first)[2]
            parts = [first[:third], first[third:]]
        features = []
        for stage in [*parts, *others, *self.extras]:
            images = stage(images)
            features.append(images)
        return features


def _pool_ends(layers: Iterable[nn.Module]) -> list[int]:
    """Returns, for each max-pool, the number of layers up to and including it."""
    return [count for count, layer in enumerate(layers, 1) if isinstance(layer, nn.MaxPool2d)]


def _extra(in_channels: int, hidden: int, out_channels: int, padding: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, hidden, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(hidden, out_channels, 3, stride=2, padding=padding),
        nn.ReLU(inplace=True),
    )


class TopDownBackbone(Backbone):
    """A bottom-up net, whose last levels may pass through a top-down pathway (torchvision's FPN)."""

    def __init__(self, channels: list[int], num_levels: int, top_down: int) -> None:
        if num_levels > len(channels):
            raise InputError(f"num_levels is {num_levels}, but the backbone has {len(channels)} stages")
        kept = channels[-num_levels:]
        super().__init__(channels=[top_down] * num_levels if top_down else kept)
        self.num_levels, self.stage_channels = num_levels, channels
        self.finer_channels = channels[-num_levels - 1] if num_levels < len(channels) else None
        self.top_down = FeaturePyramidNetwork(kept, top_down) if top_down else None

    def bottom_up(self, images: Tensor) -> list[Tensor]:
        """Features of every stage, fine to coarse."""
        raise NotImplementedError

    def shift_finer(self, every_stage: bool) -> None:  # noqa: D102
        if self.num_levels + 1 > len(self.stage_channels):
            raise InputError(
                f"an aligned encoder needs a stage finer than the pyramid: num_levels is {self.num_levels}, "
                f"the backbone has {len(self.stage_channels)} stages"
            )
        self.stage_channels = self.stage_channels[:-1]
        if every_stage:
            self.num_levels = len(self.stage_channels)
        self.channels, self.top_down = self.stage_channels[-self.num_levels :], None
        self.finer_channels = None

    def pyramid(self, images: Tensor, finer: bool = False) -> list[Tensor]:  # noqa: D102
        stages = self.bottom_up(images)
        before, features = stages[: -self.num_levels], stages[-self.num_levels :]
        if self.top_down is not None:
            named = self.top_down(OrderedDict((str(level), feature) for level, feature in enumerate(features)))
            features = list(named.values())
        return [before[-1], *features] if finer else features


class ConvBackbone(TopDownBackbone):
    """Stages of 3×3 convolutions with batch norm, from torchvision's block."""

    def __init__(self, config: ConvConfig) -> None:
        super().__init__(list(config.channels), config.num_levels, config.top_down)
        self.stages = nn.ModuleList()
        previous = 3
        for index, width in enumerate(config.channels):
            convs = [Conv2dNormActivation(previous, width, 3, stride=2)]
            if index:
                convs.append(Conv2dNormActivation(width, width, 3))
            self.stages.append(nn.Sequential(*convs))
            previous = width

    def shift_finer(self, every_stage: bool) -> None:  # noqa: D102
        super().shift_finer(every_stage)
        self.stages = self.stages[:-1]

    def bottom_up(self, images: Tensor) -> list[Tensor]:  # noqa: D102
        first, *others = self.stages
        features = [_in_single_precision(images, first)]
        for stage in others:
            features.append(stage(features[-1]))
        return features


class TimmBackbone(TopDownBackbone):
    """Any timm model with `features_only`.

    Args:
        config: which.
        image_size: side of the images. Transformers by windows or patches are made for it; None for their own.
    """

    def __init__(self, config: TimmConfig, image_size: int | None = None) -> None:
        import timm

        if not timm.is_model(config.name):
            raise InputError(f"timm has no model '{config.name}'{nearest(config.name, timm.list_models())}")
        known = timm.get_pretrained_cfg(config.name)
        bound = image_size is not None and known is not None and known.fixed_input_size
        self.options = {"features_only": True, **({"img_size": image_size} if bound else {})}
        net = _fetch(
            lambda: timm.create_model(config.name, pretrained=config.pretrained, **self.options), config.name
        )
        super().__init__(list(net.feature_info.channels()), config.num_levels, config.top_down)
        self.name, self.net = config.name, net
        self.layout = "b h w c -> b c h w" if _channels_last(net) else "b c h w -> b c h w"

    def shift_finer(self, every_stage: bool) -> None:  # noqa: D102
        import timm

        super().shift_finer(every_stage)
        # timm drops what comes after the last of `out_indices`.
        stages = tuple(range(len(self.stage_channels)))
        shorter = timm.create_model(self.name, pretrained=False, out_indices=stages, **self.options)
        trained = self.net.state_dict()
        shorter.load_state_dict({name: trained[name] for name in shorter.state_dict()})
        self.net = shorter

    def feature_sizes(self, image_size: int, finer: bool = False) -> list[int]:  # noqa: D102
        try:
            return super().feature_sizes(image_size, finer)
        except (AssertionError, RuntimeError) as error:
            raise InputError(
                f"timm's '{self.name}' takes no images of {image_size}×{image_size} pixels ({error}): choose "
                "another backbone, or the image_size that it was made for"
            ) from error

    def bottom_up(self, images: Tensor) -> list[Tensor]:  # noqa: D102
        return [rearrange(feature, self.layout) for feature in self.net(images)]


def _channels_last(net: nn.Module) -> bool:
    """Some timm models (Swin) return features as (B, h, w, C)."""
    return getattr(net, "output_fmt", None) is not None and str(net.output_fmt).endswith("NHWC")


def _fetch(build: Callable[[], Any], name: str) -> Any:
    """Builds a net; weights that cannot be fetched become one sentence."""
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)  # it tells of each of its ten attempts
    try:
        return build()
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"ImageNet weights of '{name}' could not be fetched ({type(error).__name__}): connect to the network, "
            "or pass model.ssd.backbone.pretrained=false to train from scratch"
        ) from error
    finally:
        hub.setLevel(level)


def build_backbone(config: BackboneConfig, image_size: int | None = None) -> Backbone:
    """The backbone that a config describes, for square images of `image_size` pixels, where that matters."""
    match config:
        case VGGConfig():
            return VGG11Backbone(config)
        case ConvConfig():
            return ConvBackbone(config)
        case TimmConfig():
            return TimmBackbone(config, image_size)


def init_xavier(module: nn.Module) -> None:
    """Xavier weights and zero biases for the layers that are trained from scratch."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
