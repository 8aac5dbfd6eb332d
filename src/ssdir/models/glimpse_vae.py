"""GlimpseVAE: the paper's "SSD+STN+VAE" (Table 1), which encodes a crop of the image for each object.

It is the baseline that shows what single-shot encoding changes: detector, decoder, compositor, latent size and
loss are SSDIR's; only the encoder differs, and runs once per object.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from ssdir.models.backbones.base import init_xavier
from ssdir.models.detected.encoders import LatentConfig
from ssdir.models.detected.vae import DetectedVAE, DetectedVAEConfig
from ssdir.models.sizes import MAX_DECODED_SIDE, MAX_WIDTH, Widths
from ssdir.objects import Objects
from ssdir.ops.glimpses import crop_glimpses


class GlimpseEncoderConfig(LatentConfig):
    """A convolutional encoder of glimpses.

    Attributes:
        glimpse_size: side S of a glimpse, in pixels.
        channels: channels of the convolutions; each halves the side.
        mlp_channels: width of the hidden layer behind them.
    """

    glimpse_size: int = Field(64, ge=4, le=MAX_DECODED_SIDE)
    channels: Widths = (32, 64, 128, 128)
    mlp_channels: int = Field(256, ge=1, le=MAX_WIDTH)


class GlimpseVAEConfig(DetectedVAEConfig):
    """A glimpse VAE.

    Attributes:
        encoder: encoder of glimpses.
    """

    kind: Literal["GlimpseVAE"] = "GlimpseVAE"
    encoder: GlimpseEncoderConfig = GlimpseEncoderConfig()


class GlimpseEncoder(nn.Module):
    """Encodes glimpses (M, 3, S, S) to the means of `z_what` (M, D) and `z_depth` (M,)."""

    def __init__(self, config: GlimpseEncoderConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        side = config.glimpse_size
        for before, after in pairwise((3, *config.channels)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU(inplace=True)]
            side = (side + 1) // 2
        self.net = nn.Sequential(
            *layers,
            nn.Flatten(),
            nn.Linear(config.channels[-1] * side**2, config.mlp_channels),
            nn.LayerNorm(config.mlp_channels),
            nn.ReLU(inplace=True),
            nn.Linear(config.mlp_channels, config.latent_dim + 1),
        )
        self.apply(init_xavier)

    def forward(self, glimpses: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the means of `z_what` (M, D) and `z_depth` (M,)."""
        outputs: Tensor = self.net(glimpses)
        return outputs[:, :-1], outputs[:, -1]


class GlimpseVAE(DetectedVAE):
    """A VAE that infers `z_what` and `z_depth` of each object from a crop of the image."""

    config: GlimpseVAEConfig

    def build_encoder(self) -> None:
        """Builds the encoder of glimpses."""
        self.encoder = GlimpseEncoder(self.config.encoder)

    def posterior(self, objects: Objects, images: Tensor, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Computes the means of `z_what` (M, D) and `z_depth` (M,)."""
        glimpses = crop_glimpses(images, objects.boxes, objects.image_index, self.config.encoder.glimpse_size)
        what_loc, depth_loc = self.encoder(glimpses)
        return what_loc, depth_loc
