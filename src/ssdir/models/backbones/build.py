"""The registry of backbones: the one place that lists them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ssdir.models.backbones.base import Backbone
from ssdir.models.backbones.conv import ConvBackbone, ConvConfig
from ssdir.models.backbones.timm_net import TimmBackbone, TimmConfig
from ssdir.models.backbones.vgg import VGG11Backbone, VGGConfig

BackboneConfig = Annotated[VGGConfig | ConvConfig | TimmConfig, Field(discriminator="kind")]


def build_backbone(config: BackboneConfig, image_size: int | None = None) -> Backbone:
    """Builds the backbone of a config.

    Args:
        config: the backbone's config.
        image_size: side of the square images in pixels; only some transformers depend on it.
    """
    match config:
        case VGGConfig():
            return VGG11Backbone(config)
        case ConvConfig():
            return ConvBackbone(config)
        case TimmConfig():
            return TimmBackbone(config, image_size)
