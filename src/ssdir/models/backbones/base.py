"""The base classes of backbones, which compute a feature pyramid, fine to coarse, from images."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation, FeaturePyramidNetwork

from ssdir.errors import InputError
from ssdir.ops.precision import in_full_precision

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageNetwork(nn.Module):
    """A network that normalises its images itself; nothing else in the package normalises images.

    Args:
        mean: mean of the pixels of each channel, in [0, 1].
        std: their standard deviation.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def normalize(self, images: Tensor) -> Tensor:
        """Normalises images float (B, 3, H, W) in [0, 1]."""
        return (images - self.mean) / self.std


class Backbone(ImageNetwork):
    """A network that computes a feature pyramid from images.

    Attributes:
        channels: channels of each level, fine to coarse.
        finer_channels: channels of the map one step finer than the pyramid; None if there is no such map.
        kept: cache of images and their maps within `reading_once`; None outside of it.
    """

    def __init__(
        self, channels: list[int], mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
    ) -> None:
        super().__init__(mean, std)
        self.channels = channels
        self.finer_channels: int | None = None
        self.kept: dict[tuple[int, bool, bool], tuple[Tensor, list[Tensor]]] | None = None

    def forward(self, images: Tensor, finer: bool = False) -> list[Tensor]:
        """Computes the pyramid, each level (B, channels, h, w).

        Args:
            images: float (B, 3, H, W) in [0, 1].
            finer: put the map with `finer_channels` before the pyramid.
        """
        if self.kept is None:
            return self.pyramid(self.normalize(images), finer)
        # The images are kept too, because a freed tensor's id could be reused.
        call = (id(images), finer, torch.is_autocast_enabled(images.device.type))
        if call not in self.kept:
            self.kept[call] = images, self.pyramid(self.normalize(images), finer)
        return self.kept[call][1]

    def pyramid(self, images: Tensor, finer: bool = False) -> list[Tensor]:
        """Computes the pyramid of normalised images; see `forward`."""
        raise NotImplementedError

    def clone(self, finer: bool = False, every_stage: bool = False) -> Backbone:
        """Returns a copy with the same weights, trainable except for its frozen parts.

        Args:
            finer: end one stage earlier: the pyramid has as many levels, each one step finer, and no top-down
                pathway.
            every_stage: with `finer`, the pyramid has one level for each stage of the network instead.

        Raises:
            InputError: if there is no stage finer than the pyramid.
        """
        copied = copy.deepcopy(self)
        if finer:
            copied.shift_finer(every_stage)
        copied.requires_grad_(True)
        copied.freeze()
        return copied.train()

    def freeze(self) -> None:
        """Freezes the parts that the config names; the base class freezes nothing."""

    def shift_finer(self, every_stage: bool) -> None:
        """Makes the pyramid one step finer, and drops the parts that are then unused; see `clone`."""
        raise NotImplementedError

    @torch.no_grad()
    def feature_sizes(self, image_size: int, finer: bool = False) -> list[int]:
        """Returns the cells along each side of each map of `forward`, for square images of `image_size` pixels."""
        was_training = self.training
        self.eval()
        blank = torch.zeros(1, 3, image_size, image_size, device=self.mean.device)
        sizes = [feature.shape[-1] for feature in self(blank, finer)]
        self.train(was_training)
        return sizes


@in_full_precision
def in_single_precision(images: Tensor, first: nn.Module) -> Tensor:
    """Applies the first layers of a net in single precision, even if the others multiply in bfloat16.

    In bfloat16, a large area of one colour would get the same rounding error everywhere, which is large compared
    with the variation of some channels. Batch norm would adapt to it, and the model would differ in single
    precision.
    """
    features: Tensor = first(images)
    return features


@contextmanager
def reading_once(*models: object) -> Iterator[None]:
    """Caches the feature maps of these models' backbones within the block, by their input images.

    Several calls on the same batch then take the time of one pass of the backbone. Neither images nor maps may be
    changed meanwhile.

    Args:
        models: models, which may share backbones; objects that are not modules are ignored.
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


class TopDownBackbone(Backbone):
    """A bottom-up network whose last levels may pass through a top-down pathway (torchvision's FPN)."""

    def __init__(
        self,
        channels: list[int],
        num_levels: int,
        top_down: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        neck_depth: int = 0,
    ) -> None:
        if num_levels > len(channels):
            raise InputError(f"num_levels is {num_levels}, but the backbone has {len(channels)} stages")
        kept = channels[-num_levels:]
        super().__init__([top_down] * num_levels if top_down else kept, mean, std)
        self.num_levels, self.stage_channels = num_levels, channels
        self.finer_channels = channels[-num_levels - 1] if num_levels < len(channels) else None
        norm = nn.BatchNorm2d if neck_depth else None
        self.top_down = FeaturePyramidNetwork(kept, top_down, norm_layer=norm) if top_down else None
        self.neck = nn.ModuleList(
            nn.Sequential(*(Conv2dNormActivation(top_down, top_down, 3) for _ in range(neck_depth)))
            for _ in range(num_levels if neck_depth else 0)
        )

    def bottom_up(self, images: Tensor) -> list[Tensor]:
        """Computes the features of every stage, fine to coarse."""
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
        self.finer_channels, self.neck = None, nn.ModuleList()

    def pyramid(self, images: Tensor, finer: bool = False) -> list[Tensor]:  # noqa: D102
        stages = self.bottom_up(images)
        before, features = stages[: -self.num_levels], stages[-self.num_levels :]
        if self.top_down is not None:
            named = self.top_down(OrderedDict((str(level), feature) for level, feature in enumerate(features)))
            features = list(named.values())
            if len(self.neck):
                features = [
                    convolutions(level.relu()) for convolutions, level in zip(self.neck, features, strict=True)
                ]
        return [before[-1], *features] if finer else features


def init_xavier(module: nn.Module) -> None:
    """Initialises a convolution or linear layer with Xavier weights and zero biases."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
