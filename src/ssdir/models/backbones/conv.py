"""A small convolutional backbone for CPUs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from ssdir.config import Config
from ssdir.models.backbones.base import TopDownBackbone, in_single_precision
from ssdir.models.sizes import MAX_STAGES, MAX_WIDTH, Widths


class ConvConfig(Config):
    """A small convolutional network for CPUs: stages of 3×3 convolutions that each halve the resolution.

    Attributes:
        channels: width of each stage; the first has one convolution, the others have two.
        num_levels: how many of the last stages make up the pyramid.
        top_down: channels of the top-down pathway (a feature pyramid network); 0 for none.
    """

    kind: Literal["conv"] = "conv"
    channels: Widths = (24, 48, 96, 128, 128)
    num_levels: int = Field(3, ge=1, le=MAX_STAGES)
    top_down: int = Field(96, ge=0, le=MAX_WIDTH)


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
        features = [in_single_precision(images, first)]
        for stage in others:
            features.append(stage(features[-1]))
        return features
