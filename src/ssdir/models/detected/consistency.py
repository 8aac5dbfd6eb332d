"""The consistency term: the same object, seen again in another size, tilt and hand, keeps its code.

A departure from the paper, which only hopes that codes are scale-invariant. Objects are shown again (see
`models.views`), once or more often, and a contrastive loss (InfoNCE: van den Oord et al. 2018; with a projection
head as in SimCLR: Chen et al. 2020) asks that two codes of an object find each other among those of all objects of
the batch. No label is used. Decoupled (Yeh et al. 2022), an object's own pair is not among those that it is told
from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ssdir.models.backbone import init_xavier
from ssdir.models.detected.views import ViewConfig
from ssdir.ops.distributed import gather_rows
from ssdir.ops.precision import in_full_precision

TEMPERATURE = 0.2
"""Temperature of the softmax over the objects of the batch in InfoNCE."""


class ConsistencyConfig(ViewConfig):
    """The further views, and how codes are compared.

    Attributes:
        weight: coefficient of the term, per object and in nats; 0 leaves it out.
        views: how often an object is seen again; each view is compared with each other, and with what is there.
        decoupled: whether an object's other view is left out of those that it is told from.
    """

    weight: float = Field(0.0, ge=0)
    views: int = Field(1, ge=1, le=100)
    decoupled: bool = False


class ProjectionHead(nn.Sequential):
    """Maps codes to where they are compared, so that codes keep what the decoder needs."""

    def __init__(self, latent_dim: int, hidden: int = 512, compared_dim: int = 128) -> None:
        super().__init__(
            nn.Linear(latent_dim, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, compared_dim),
        )
        self.apply(init_xavier)


@in_full_precision
def info_nce(first: Tensor, second: Tensor, temperature: float, decoupled: bool = False) -> Tensor:
    """Mean over rows of -log of the chance that a row finds its partner among all rows, both ways.

    Args:
        first: float (M, D), compared by cosine.
        second: float (M, D), row-aligned.
        temperature: divisor of the cosines.
        decoupled: whether the partner is left out of what it is told from: odds then, not chances, and a partner
            that is found with ease still pulls. May be negative.

    Returns:
        A scalar; 0 where there is nothing to be told apart: fewer than two rows.
    """
    if len(first) < 2:
        return first.sum() * 0
    logits = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / temperature
    own = torch.eye(len(first), dtype=torch.bool, device=first.device)
    among = logits.masked_fill(own, -math.inf) if decoupled else logits
    return ((among.logsumexp(0) + among.logsumexp(1)) / 2 - logits.diagonal()).mean()


def agreement(
    codes: Tensor, again: Sequence[tuple[Tensor, Tensor]], temperature: float, decoupled: bool = False
) -> Tensor:
    """Measures how well embeddings identify objects across views: the mean of `info_nce` over pairs of views.

    Args:
        codes: float (M, D), of all objects as they are.
        again: of each further view, codes (N, D), N differing, and which object each is of, int64 (N,).
        temperature: see `info_nce`.
        decoupled: likewise.

    Returns:
        A scalar, in nats per object.
    """
    pairs = [(codes[rows], seen) for seen, rows in again]
    for (first, first_rows), (second, second_rows) in combinations(again, 2):
        here, there = (first_rows[:, None] == second_rows).nonzero(as_tuple=True)
        pairs.append((first[here], second[there]))
    every = [(gather_rows(first), gather_rows(second)) for first, second in pairs]
    return torch.stack([info_nce(*pair, temperature, decoupled) for pair in every]).mean()
