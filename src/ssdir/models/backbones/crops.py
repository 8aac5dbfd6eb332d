"""Embeddings of image crops by a whole pretrained network: what people use who have boxes."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from ssdir.models.backbones.base import ImageNetwork
from ssdir.models.backbones.pretrained import load_network
from ssdir.models.backbones.timm_net import TimmConfig


class CropNetwork(ImageNetwork):
    """Crops to embeddings: the global average of the network's last features, which its classifier would read.

    The network is frozen: it has no gradients, and stays in evaluation mode. Whatever describes objects by the
    backbone of the same config can be compared with it, since both start from the same weights.

    Args:
        config: names the network and its weights; its other keys are about pyramids, and don't matter here.

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
        """Images float (M, 3, S, S) in [0, 1], one crop each, to embeddings float (M, F)."""
        features: Tensor = self.net(self.normalize(images))
        return features
