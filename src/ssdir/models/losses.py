"""Likelihoods and divergences in the losses of several models."""

from __future__ import annotations

from math import log, pi

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from ssdir.ops.precision import at_least_single

# Keeps the logarithms of the Bernoulli likelihood finite where nothing was decoded.
LIKELIHOOD_MARGIN = 1e-4
# Keeps the logarithm of a mixture's weight finite.
LOG_MARGIN = 1e-5


def bernoulli_nll(predicted: Tensor, intensity: Tensor) -> Tensor:
    """Bernoulli negative log-likelihood of intensities in [0, 1], per element."""
    safe = LIKELIHOOD_MARGIN + (1 - 2 * LIKELIHOOD_MARGIN) * at_least_single(predicted)
    # Over pixels, `Bernoulli.log_prob` takes 7.7 times as long on a CPU, and `binary_cross_entropy` 3.8 times.
    return -(intensity * safe.log() + (1 - intensity) * (1 - safe).log())


def laplacian_l1(predicted: Tensor, target: Tensor, weights: Tensor | None = None, levels: int = 3) -> Tensor:
    """Computes the L1 distance of the Laplacian pyramids of images (Bojanowski et al. 2018).

    Each level of the pyramid holds details of one size. A likelihood per pixel is largest for the mean of all
    plausible values, which blurs edges; this distance penalises blurred edges. The coarsest level, the mean
    colour, is left out.

    Args:
        predicted: float (M, C, S, S), S a multiple of 2^levels.
        target: float (M, C, S, S).
        weights: float (M, 1, S, S), weights of the pixels; None weights all alike.
        levels: number of levels; the first holds details of the size of a pixel.

    Returns:
        float (M,), summed over levels, channels and pixels.
    """
    rest, total = at_least_single(predicted - target), at_least_single(predicted).new_zeros(len(predicted))
    for _ in range(levels):  # The pyramid is linear: that of the difference is the difference of both.
        coarse = F.avg_pool2d(rest, 2)
        details = (rest - F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)).abs()
        if weights is not None:
            details, weights = details * weights, F.avg_pool2d(weights, 2)
        total, rest = total + details.sum(dim=(1, 2, 3)), coarse
    return total


def normal_kl(
    loc: Tensor, scale: Tensor | float, prior_loc: Tensor | float = 0.0, prior_scale: Tensor | float = 1.0
) -> Tensor:
    """KL(N(loc, scale) ‖ N(prior_loc, prior_scale)), per element, in nats; all four broadcast."""
    # Validation would make a GPU wait for its result.
    posterior = Normal(loc, scale, validate_args=False)
    return kl_divergence(posterior, Normal(prior_loc, prior_scale, validate_args=False))


def gaussian_log_prob(values: Tensor, mean: Tensor, sigma: float) -> Tensor:
    """Computes the logarithm of N(values; mean, sigma²), per element."""
    # `Normal.log_prob` takes 1.7 times as long on a CPU: it makes a map of sigma as large as the images.
    return -0.5 * ((values - mean) / sigma).square() - log(sigma) - 0.5 * log(2 * pi)


def mixture_log_likelihood(log_foreground: Tensor, log_background: Tensor, coverage: Tensor) -> Tensor:
    """Computes log(α p_fg(x) + (1 - α) p_bg(x)), summed over the values of an image (Lin et al. 2020, eq. 1).

    Args:
        log_foreground: float (B, 3, H, W), log p_fg(x).
        log_background: float (B, 3, H, W), log p_bg(x).
        coverage: float (B, 1, H, W) in [0, 1], α, the foreground's mixing weight.

    Returns:
        float (B,), in nats.
    """
    seen = log_foreground + (coverage + LOG_MARGIN).log()
    behind = log_background + (1 - coverage + LOG_MARGIN).log()
    return torch.logaddexp(seen, behind).sum(dim=(1, 2, 3))
