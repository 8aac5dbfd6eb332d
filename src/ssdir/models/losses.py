"""Likelihoods and divergences that several models' losses are made of."""

from __future__ import annotations

from math import log

from torch import Tensor

# Keeps the logarithms of the Bernoulli likelihood finite where nothing was drawn.
LIKELIHOOD_MARGIN = 1e-4


def bernoulli_nll(predicted: Tensor, intensity: Tensor) -> Tensor:
    """Bernoulli negative log-likelihood of intensities in [0, 1], per element."""
    safe = LIKELIHOOD_MARGIN + (1 - 2 * LIKELIHOOD_MARGIN) * predicted
    return -(intensity * safe.log() + (1 - intensity) * (1 - safe).log())


def gaussian_kl(loc: Tensor, scale: Tensor | float) -> Tensor:
    """KL(N(loc, scale) ‖ N(0, 1)), per element."""
    log_scale = scale.log() if isinstance(scale, Tensor) else log(scale)
    return 0.5 * (loc.square() + scale**2 - 1) - log_scale
