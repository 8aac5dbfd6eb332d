"""The networks that encode images and glimpses, and decode objects, in SPAIR."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Self, TypeAlias

from einops import rearrange
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from ssdir.config import Config
from ssdir.models.sizes import MAX_DECODED_SIDE, MAX_STAGES, MAX_WIDTH, HiddenWidths, Widths

# Logits are kept within these, so that no sigmoid saturates for good.
LOGIT_LIMIT = 10.0


Sides: TypeAlias = Annotated[tuple[Annotated[int, Field(ge=1, le=64)], ...], Field(max_length=MAX_STAGES)]


class SPAIRGridConfig(Config):
    """The convolutions over the image; their strides multiply to the pixels per cell.

    Attributes:
        channels: channels of each convolution; ReLU after each.
        kernels: side of each kernel.
        strides: stride of each convolution.
    """

    channels: Widths = (32, 64, 128, 128)
    kernels: Sides = (4, 4, 4, 1)
    strides: Sides = (3, 2, 2, 1)

    @model_validator(mode="after")
    def _as_many_of_each(self) -> Self:
        if not len(self.channels) == len(self.kernels) == len(self.strides) > 0:
            raise ValueError("channels, kernels and strides must be equally many, and at least one")
        return self

    @property
    def pixels_per_cell(self) -> int:
        """Side of a cell in pixels."""
        pixels = 1
        for stride in self.strides:
            pixels *= stride
        return pixels

    @property
    def receptive_field(self) -> int:
        """Side of the receptive field of a cell's features, in pixels."""
        field, step = 1, 1
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            field, step = field + (kernel - 1) * step, step * stride
        return field


class GridBackbone(nn.Module):
    """Computes a feature vector per cell, from a window that is centred on the cell.

    Args:
        config: the convolutions.
        image_size: side of the images in pixels; the last cells of the grid may extend beyond them.
    """

    def __init__(self, config: SPAIRGridConfig, image_size: int) -> None:
        super().__init__()
        pixels, field = config.pixels_per_cell, config.receptive_field
        self.cells = -(-image_size // pixels)
        needed = (self.cells - 1) * pixels + field
        margin = max(0, (field - pixels) // 2)
        self.padding = (margin, needed - image_size - margin) * 2
        layers: list[nn.Module] = []
        widths = [3, *config.channels]
        for (inside, outside), kernel, stride in zip(
            pairwise(widths), config.kernels, config.strides, strict=True
        ):
            layers += [nn.Conv2d(inside, outside, kernel, stride), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Computes features (B, N, F) of images float (B, 3, H, W) in [0, 1], cells in raster order."""
        features: Tensor = self.layers(F.pad(images, self.padding))
        return rearrange(features, "b f h w -> b (h w) f")


class SPAIRGlimpseConfig(Config):
    """Size of the glimpses, and the encoder of `z_what`.

    Attributes:
        size: side S of glimpses, and of decoded objects, in samples.
        channels: channels of 3×3 convolutions with stride 2 and ReLU.
        hidden: width of the layer after them.
        latent_dim: size D of `z_what`.
    """

    size: int = Field(14, ge=2, le=MAX_DECODED_SIDE)
    channels: Widths = (16, 32)
    hidden: int = Field(128, ge=1, le=MAX_WIDTH)
    latent_dim: int = Field(50, ge=1, le=MAX_WIDTH)


class SPAIRGlimpseEncoder(nn.Module):
    """Encodes glimpses (M, 3, S, S) to the mean and the raw scale of `z_what`, (M, 2 D).

    Convolutional, as in SSDIR's comparison (paper §4); SPAIR's own is an MLP.
    """

    def __init__(self, config: SPAIRGlimpseConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        size, widths = config.size, [3, *config.channels]
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU(inplace=True)]
            size = (size + 1) // 2
        layers += [nn.Flatten(), nn.Linear(size * size * widths[-1], config.hidden), nn.ReLU(inplace=True)]
        self.net = nn.Sequential(*layers, nn.Linear(config.hidden, 2 * config.latent_dim))

    def forward(self, glimpses: Tensor) -> Tensor:
        """See the class."""
        encoded: Tensor = self.net(glimpses)
        return encoded


COLOUR_SCALE = 2.0
"""Factor of the logits of colours, so that colours, and with them shapes, are learned first [obj_logit_scale]."""
ALPHA_SCALE, ALPHA_BIAS = 0.1, 5.0
"""Factor and offset of opacity's logits: objects start opaque, which changes slowly [alpha_logit_*]."""


class SPAIRDecoderConfig(Config):
    """Options of the MLP that decodes `z_what` to a small image with opacity.

    Attributes:
        hidden: widths of its hidden layers.
        colour_bias: added to the logits of colours: SPAIR's objects start grey; where images are mostly black,
            a negative bias lets objects start dark, so that the model does not learn to drop them early.
    """

    hidden: HiddenWidths = (128, 256)
    colour_bias: float = 0.0


class SPAIRDecoder(nn.Module):
    """Decodes `z_what` (M, D) to premultiplied appearances (M, 3, S, S) and alpha (M, 1, S, S), in [0, 1]."""

    def __init__(self, latent_dim: int, size: int, config: SPAIRDecoderConfig) -> None:
        super().__init__()
        self.config, self.size = config, size
        self.net = mlp(latent_dim, config.hidden, 4 * size * size)

    def forward(self, z_what: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        logits = rearrange(self.net(z_what), "m (c s t) -> m c s t", c=4, s=self.size)
        colour = COLOUR_SCALE * logits[:, :3] + self.config.colour_bias
        alpha = ALPHA_SCALE * logits[:, 3:] + ALPHA_BIAS
        alpha = squash(alpha)
        return squash(colour) * alpha, alpha


def mlp(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    """Builds linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise([inputs, *hidden]):
        layers += [nn.Linear(before, after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear([inputs, *hidden][-1], outputs))


def squash(logits: Tensor) -> Tensor:
    """Computes the sigmoid of logits that are clamped first."""
    return logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT).sigmoid()
