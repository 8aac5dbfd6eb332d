"""Parts of models that learn without boxes: relaxed presence, its KL, and annealing."""

from __future__ import annotations

from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.distributions import Bernoulli, kl_divergence

from ssdir.config import Config
from ssdir.ops.distributed import image_rows

# Keeps the logarithms of a probability finite.
_MARGIN = 1e-6


class Schedule(Config):
    """A value that changes linearly between two training steps, and is constant before and after.

    Attributes:
        start: the value up to `from_step`.
        end: the value from `to_step` on.
        from_step: first step of the change.
        to_step: last step of the change; equal to `from_step` for a jump.
    """

    start: float = Field(ge=-1e6, le=1e6)
    end: float = Field(ge=-1e6, le=1e6)
    from_step: int = Field(0, ge=0)
    to_step: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _forward_in_time(self) -> Self:
        if self.to_step < self.from_step:
            raise ValueError(f"to_step is {self.to_step}, expected at least from_step, {self.from_step}")
        return self

    def value(self, step: int) -> float:
        """Returns the value at a training step."""
        if step >= self.to_step:
            return self.end
        if step <= self.from_step:
            return self.start
        share = (step - self.from_step) / (self.to_step - self.from_step)
        return self.start + share * (self.end - self.start)


def sample_relaxed_bernoulli(logits: Tensor, temperature: float) -> Tensor:
    """Samples from the relaxed Bernoulli (binary concrete) distribution, differentiably in the logits.

    A sample is sigmoid((logits + log u - log(1 - u)) / temperature) with u uniform (Maddison et al. 2017).

    Args:
        logits: float, any shape: log odds of presence.
        temperature: > 0; towards 0, samples become 0 or 1.

    Returns:
        float of the same shape, in [0, 1].
    """
    # `RelaxedBernoulli` computes with the probability: from log odds of 16 on, it has no gradient.
    rows = image_rows(len(logits), logits.device)
    uniform = rows.rand_like(logits).clamp(_MARGIN, 1 - _MARGIN)
    return torch.sigmoid((logits + torch.logit(uniform)) / temperature)


def bernoulli_kl(logits: Tensor, prior: Tensor | float) -> Tensor:
    """KL(Bernoulli(sigmoid(logits)) ‖ Bernoulli(prior)), per element, in nats.

    Args:
        logits: float, any shape: log odds of the posterior.
        prior: probabilities in (0, 1), a number or a tensor that broadcasts.

    Returns:
        float of the shape of `logits`, >= 0.
    """
    prior_prob = torch.as_tensor(prior, dtype=logits.dtype, device=logits.device).clamp(1e-12, 1 - _MARGIN)
    # The prior is passed as a logit, because torch clamps probabilities to at least 1.2e-7.
    posterior = Bernoulli(logits=logits, validate_args=False)
    return kl_divergence(posterior, Bernoulli(logits=prior_prob.logit(), validate_args=False))
