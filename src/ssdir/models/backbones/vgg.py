"""The paper's backbone: VGG11-BN and SSD's extra levels."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from ssdir.config import Config
from ssdir.models.backbones.base import Backbone, in_single_precision, init_xavier
from ssdir.models.backbones.pretrained import Weights, load_vgg


class VGGConfig(Config):
    """VGG11-BN and SSD's extra levels, as in the paper: 18, 9, 5, 3 and 1 cells at 300×300.

    Attributes:
        weights: what it starts from: null for random weights, `hub` for torchvision's of ImageNet (fetched, or
            from its cache), or the path of a .safetensors or .pth file that holds torchvision's VGG11-BN.
    """

    kind: Literal["vgg11_bn"] = "vgg11_bn"
    weights: Weights = None


class VGG11Backbone(Backbone):
    """VGG11-BN cut after its 4th and 5th max-pool, and three extra levels (paper §3.1)."""

    def __init__(self, config: VGGConfig) -> None:
        super().__init__(channels=[512, 512, 512, 256, 256])
        self.finer_channels = 256
        layers = list(load_vgg(config.weights))
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
        images, first = in_single_precision(images, first[0]), first[1:]
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
