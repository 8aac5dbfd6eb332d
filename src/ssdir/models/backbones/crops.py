"""Embeddings of image crops by a whole pretrained network: a common baseline where boxes are given."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from ssdir.models.backbones.base import ImageNetwork
from ssdir.models.backbones.pretrained import load_network
from ssdir.models.backbones.timm_net import TimmConfig


class CropNetwork(ImageNetwork):
    """Embeds crops by the global average of the network's last feature map, the input of its classifier.

    The network is frozen: it has no gradients, and stays in evaluation mode. It is a baseline for models with a
    backbone of the same config, since both start from the same weights.

    Args:
        config: names the network and its weights; its other keys, about pyramids, are not used.

    Attributes:
        num_features: F, 1280 for EfficientNet-Lite0.
    """

    def __init__(self, config: TimmConfig) -> None:
        net = load_network(config.name, config.weights)
        super().__init__(net.pretrained_cfg["mean"], net.pretrained_cfg["std"])
        self.net = net
        self.num_features: int = net.head_hidden_size
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode, whatever `mode` is."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Embeds crops float (M, 3, S, S) in [0, 1] to float (M, F)."""
        features: Tensor = self.net(self.normalize(images))
        return features
