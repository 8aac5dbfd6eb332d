"""SPACE's background: a scene mixture with autoregressive masks (Lin et al. 2020, §2.1, after GENESIS)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ssdir.config import Config
from ssdir.models.losses import LOG_MARGIN, gaussian_log_prob, normal_kl
from ssdir.models.sizes import MAX_WIDTH, Widths
from ssdir.models.space.networks import SubpixelDecoder, positive, strided
from ssdir.ops.distributed import image_rows

MASK_DIM = 32
"""Size of each mask's latent [z_mask_dim]."""
FEATURE_DIM = 64
"""Size of the image's features that masks are inferred from [img_enc_dim_bg]."""
HIDDEN_DIM = 64
"""Width of the recurrent networks over masks, and of the component prior [rnn_mask_hidden_dim]."""
BROADCAST_CHANNELS = 32
"""Channels of the four 3×3 convolutions of the spatial broadcast decoder of components."""


class SPACEBackgroundConfig(Config):
    """The background's networks.

    Attributes:
        num_components: number K of components; 1 for a single VAE without masks, 0 for black.
        component_dim: size of each component's latent.
        encoder_channels: channels of the convolutions that halve the size, for masks and for components.
        decoder_channels: channels of the subpixel decoder of masks, and, for K = 1, of the picture: its start and
            its upsampling blocks. What ends below the image's size is enlarged bilinearly: a coarse background
            leaves the details to the objects.
    """

    num_components: int = Field(5, ge=0, le=64)
    component_dim: int = Field(32, ge=1, le=MAX_WIDTH)
    encoder_channels: Widths = (64, 64, 64, 64)
    decoder_channels: Widths = Field((256, 256, 256, 128, 64, 64, 16, 16), max_length=13)


@dataclass(frozen=True)
class BackgroundDraw:
    """A background inferred from images.

    Attributes:
        pictures: float (B, 3, H, W), the mixture's mean.
        log_likelihood: float (B, 3, H, W), log p(x | background) of each value, in nats.
        kl: float (B,), of all its latents.
    """

    pictures: Tensor
    log_likelihood: Tensor
    kl: Tensor


class BlackBackground(nn.Module):
    """Nothing behind the objects (K = 0)."""

    def forward(self, images: Tensor, sigma: float, sample: bool = True) -> BackgroundDraw:
        """See `SceneMixture.forward`."""
        black = torch.zeros_like(images)
        return BackgroundDraw(black, gaussian_log_prob(images, black, sigma), images.new_zeros(len(images)))


class SceneMixture(nn.Module):
    """A mixture of K components, each a decoded image and a mask; each mask is conditioned on the masks before it.

    Stick-breaking makes the masks sum to one. Group norm replaces the authors' batch norm, so that the background
    of an image doesn't depend on the others of its batch.
    """

    def __init__(self, config: SPACEBackgroundConfig, image_size: int) -> None:
        super().__init__()
        self.config, self.image_size = config, image_size
        K, C = config.num_components, config.component_dim
        side = -(-image_size // (1 << len(config.encoder_channels)))
        flat = config.encoder_channels[-1] * side**2

        def encoder(inputs: int, outputs: int) -> nn.Sequential:
            convs = strided((inputs, *config.encoder_channels), len(config.encoder_channels))
            return nn.Sequential(convs, nn.Flatten(), nn.Linear(flat, outputs))

        self.component_encoder = encoder(4, 2 * C)
        self.component_decoder: nn.Module
        if K == 1:
            self.component_decoder = SubpixelDecoder(C, config.decoder_channels, 3)
            return
        self.component_decoder = BroadcastDecoder(C, BROADCAST_CHANNELS, image_size)
        D, hidden = MASK_DIM, HIDDEN_DIM
        self.image_encoder = nn.Sequential(encoder(3, FEATURE_DIM), nn.ELU())
        self.mask_decoder = SubpixelDecoder(D, config.decoder_channels, 1)
        self.posterior_cell, self.posterior_head = (
            MaskCell(D + FEATURE_DIM, hidden),
            nn.Linear(hidden, 2 * D),
        )
        self.prior_cell, self.prior_head = MaskCell(D, hidden), nn.Linear(hidden, 2 * D)
        self.component_prior = nn.Sequential(nn.Linear(D, hidden), nn.ELU(), nn.Linear(hidden, 2 * C))
        self.first_mask = nn.Parameter(torch.zeros(D))

    def forward(self, images: Tensor, sigma: float, sample: bool = True) -> BackgroundDraw:
        """Infers what is behind the objects.

        Args:
            images: float (B, 3, H, W).
            sigma: standard deviation of each component's pixels.
            sample: sample the latents; False takes their means.
        """
        K = self.config.num_components
        if K == 1:
            masks, kl_masks, prior = torch.ones_like(images[:, None, :1]), images.new_zeros(len(images)), None
        else:
            latents, kl_masks = self._infer_masks(images, sample)
            masks = self._break_sticks(latents)
            prior = self.component_prior(latents)
        log_masks = (masks + LOG_MARGIN).log()
        inputs = torch.cat([log_masks, repeat(images, "b c h w -> b k c h w", k=K)], dim=2)
        parameters = self.component_encoder(rearrange(inputs, "b k c h w -> (b k) c h w"))
        loc, scale = _normal(rearrange(parameters, "(b k) d -> b k d", k=K))
        rows = image_rows(len(images), images.device)
        latents = loc + scale * rows.randn_like(scale) if sample else loc
        prior_loc, prior_scale = (0.0, 1.0) if prior is None else _normal(prior)
        kl = kl_masks + normal_kl(loc, scale, prior_loc, prior_scale).sum(dim=(1, 2))
        components = self._enlarged(self.component_decoder(rearrange(latents, "b k d -> (b k) d"))).sigmoid()
        components = rearrange(components, "(b k) c h w -> b k c h w", k=K)
        each = gaussian_log_prob(images[:, None], components, sigma) + log_masks
        return BackgroundDraw((components * masks).sum(dim=1), each.logsumexp(dim=1), kl)

    def _infer_masks(self, images: Tensor, sample: bool) -> tuple[Tensor, Tensor]:
        """Infers latents (B, K, D) of the masks, each given those before it, and computes their KL (B,)."""
        features, rows = self.image_encoder(images), image_rows(len(images), images.device)
        latent = self.first_mask.expand(len(images), -1)
        posterior, prior = self.posterior_cell.start(len(images)), self.prior_cell.start(len(images))
        latents, kl = [], images.new_zeros(len(images))
        for _ in range(self.config.num_components):
            posterior = self.posterior_cell(torch.cat([latent, features], dim=1), posterior)
            loc, scale = _normal(self.posterior_head(posterior[0]))
            latent = loc + scale * rows.randn_like(scale) if sample else loc
            prior_loc, prior_scale = _normal(self.prior_head(prior[0]))
            kl = kl + normal_kl(loc, scale, prior_loc, prior_scale).sum(dim=1)
            prior = self.prior_cell(latent, prior)
            latents.append(latent)
        return torch.stack(latents, dim=1), kl

    def _break_sticks(self, latents: Tensor) -> Tensor:
        """Computes masks (B, K, 1, H, W) that sum to one: each takes a share of the rest, the last all of it."""
        shares = self._enlarged(self.mask_decoder(rearrange(latents[:, :-1], "b k d -> (b k) d"))).sigmoid()
        shares = rearrange(shares, "(b k) 1 h w -> b k 1 h w", b=len(latents))
        left = torch.cat([torch.ones_like(shares[:, :1]), (1 - shares).cumprod(dim=1)], dim=1)
        return left * torch.cat([shares, torch.ones_like(shares[:, :1])], dim=1)

    def _enlarged(self, logits: Tensor) -> Tensor:
        """Resizes logits to the image's size, in single precision, also under autocast."""
        if logits.shape[-1] == self.image_size:
            return logits.float()
        size = (self.image_size, self.image_size)
        return F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False)


class MaskCell(nn.LSTMCell):
    """An LSTM cell with a learned start."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.initial = nn.Parameter(torch.zeros(2, hidden_size))

    def start(self, batch_size: int) -> tuple[Tensor, Tensor]:
        """Hidden and cell state (B, hidden) before the first mask."""
        hidden, cell = self.initial
        return hidden.expand(batch_size, -1), cell.expand(batch_size, -1)


class BroadcastDecoder(nn.Module):
    """A spatial broadcast decoder: the latent at every pixel, beside the pixel's coordinates, then convolutions.

    Four unpadded 3×3 convolutions remove the margin of four pixels on each side.
    """

    coordinates: Tensor

    def __init__(self, latent_dim: int, width: int, image_size: int) -> None:
        super().__init__()
        axis = torch.linspace(-1, 1, image_size + 8)
        self.register_buffer(
            "coordinates", torch.stack(torch.meshgrid(axis, axis, indexing="xy")), persistent=False
        )
        layers: list[nn.Module] = []
        for before in (latent_dim + 2, width, width, width):
            layers += [nn.Conv2d(before, width, 3), nn.ELU()]
        self.net = nn.Sequential(*layers, nn.Conv2d(width, 3, 1))

    def forward(self, latents: Tensor) -> Tensor:
        """Decodes latents float (M, D) to logits float (M, 3, H, W)."""
        side = self.coordinates.shape[-1]
        pixels = repeat(latents, "m d -> m d h w", h=side, w=side)
        logits: Tensor = self.net(torch.cat([pixels, self.coordinates.expand(len(latents), -1, -1, -1)], dim=1))
        return logits


def _normal(parameters: Tensor) -> tuple[Tensor, Tensor]:
    """Splits a net's output into mean and standard deviation, in single precision, also under autocast."""
    loc, raw = parameters.float().chunk(2, dim=-1)
    return loc, positive(raw)


def build_background(config: SPACEBackgroundConfig, image_size: int) -> SceneMixture | BlackBackground:
    """Builds the background model of a config."""
    return SceneMixture(config, image_size) if config.num_components else BlackBackground()
