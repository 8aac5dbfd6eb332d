"""SPAIR's prior of the presence of cells, which follows from a prior of the number of objects (appendix A).

The number of objects C of an image's N cells is truncated geometric, p(C) ∝ q^C, and given C every choice of C
cells is as likely as any other. Cells are thus exchangeable, and a cell's prior given the earlier ones depends on
nothing but how many of those are present.
"""

from __future__ import annotations

from math import lgamma

import torch
from torch import Tensor
from torch.nn import functional as F

from ssdir.models.presence import bernoulli_kl


def count_distribution(log_odds: float, num_cells: int) -> Tensor:
    """Computes the log-probability of each count C in the truncated geometric distribution, float64 (N + 1,).

    Args:
        log_odds: log odds of q, the probability of one more object: large for a uniform count, low for few
            objects.
        num_cells: N, the most objects there can be.
    """
    counts = torch.arange(num_cells + 1, dtype=torch.float64)
    log_q = F.logsigmoid(torch.tensor(log_odds, dtype=torch.float64))
    return torch.log_softmax(counts * log_q, dim=0)


def presence_table(log_odds: float, num_cells: int) -> Tensor:
    """Computes p(z_i = 1 | c of the cells before i are present) for every i and c, float64 (N, N).

    A sequence of i cells of which c are present has probability f_i(c), the same for each such sequence:
    f_N(c) = p(c) / binom(N, c), and f_i(c) = f_{i+1}(c) + f_{i+1}(c + 1), the next cell being absent or present.
    So p(z_i = 1 | c) = f_{i+1}(c + 1) / f_i(c). Entries with c > i cannot occur, and are 0.
    """
    N = num_cells
    binomials = torch.tensor(
        [lgamma(N + 1) - lgamma(c + 1) - lgamma(N - c + 1) for c in range(N + 1)], dtype=torch.float64
    )
    later = count_distribution(log_odds, N) - binomials  # log f_{i+1}, i + 2 entries
    table = torch.zeros(N, N, dtype=torch.float64)
    for i in reversed(range(N)):
        present, absent = later[1:], later[:-1]
        now = torch.logaddexp(present, absent)
        table[i, : i + 1] = (present - now).exp()
        later = now
    return table


def count_prior_kl(present_logits: Tensor, present: Tensor, log_odds: float) -> Tensor:
    """Computes the KL of each cell's presence from its prior given the earlier cells, in nats, float (B, N).

    Summed over cells and averaged over samples this is KL(q(z) ‖ p(z)) exactly: the chain rule, each term in
    closed form given the sampled cells before it.

    Args:
        present_logits: float (B, N), log odds of the posterior, in the order in which cells were sampled.
        present: float (B, N), the samples; more than a half counts as present.
        log_odds: see `count_distribution`.
    """
    N = present_logits.shape[1]
    table = presence_table(log_odds, N).to(present_logits)
    hard = (present > 0.5).long()
    before = hard.cumsum(dim=1) - hard
    prior = table[torch.arange(N, device=before.device), before]
    return bernoulli_kl(present_logits, prior)
