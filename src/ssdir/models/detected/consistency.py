"""The consistency term of the loss, which makes embeddings invariant to size, rotation, shear and distortion.

This departs from the paper, whose loss does not ask for scale-invariant embeddings. Each object is also embedded
in one or more augmented views (see `models.detected.views`), and a contrastive loss (InfoNCE: van den Oord et al.
2018; with a projection head as in SimCLR: Chen et al. 2020) makes the embeddings of one object more similar to
each other than to those of all other objects of the batch. It uses no labels. The decoupled form (Yeh et al. 2022)
leaves the positive pair out of the denominator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ssdir.models.backbones.base import init_xavier
from ssdir.models.detected.views import ViewConfig
from ssdir.ops.distributed import gather_rows
from ssdir.ops.precision import in_full_precision

TEMPERATURE = 0.2
"""Temperature of the softmax over the objects of the batch in InfoNCE."""


class ConsistencyConfig(ViewConfig):
    """The augmented views, and the contrastive loss over them.

    Attributes:
        weight: coefficient of the term, per object and in nats; 0 leaves it out.
        views: number of augmented views; each is compared with every other view and with the original image.
        decoupled: whether the positive pair is left out of the denominator (Yeh et al. 2022).
    """

    weight: float = Field(0.0, ge=0)
    views: int = Field(1, ge=1, le=100)
    decoupled: bool = False


class ProjectionHead(nn.Sequential):
    """Maps embeddings to the space in which they are compared, so that they keep what the decoder needs."""

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
    """Computes InfoNCE in both directions: the cross-entropy of matching each row with its partner.

    Args:
        first: float (M, D), compared by cosine.
        second: float (M, D), row-aligned.
        temperature: divisor of the cosines.
        decoupled: leave the partner out of the denominator; the loss then has a gradient even for easy pairs, and
            may be negative.

    Returns:
        A scalar, in nats per row; 0 for fewer than two rows.
    """
    if len(first) < 2:
        return first.sum() * 0
    logits = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / temperature
    own = torch.eye(len(first), dtype=torch.bool, device=first.device)
    among = logits.masked_fill(own, -math.inf) if decoupled else logits
    return ((among.logsumexp(0) + among.logsumexp(1)) / 2 - logits.diagonal()).mean()


def agreement(
    embeddings: Tensor, again: Sequence[tuple[Tensor, Tensor]], temperature: float, decoupled: bool = False
) -> Tensor:
    """Computes the mean of `info_nce` over all pairs of views, the original image included.

    Args:
        embeddings: float (M, D), of the objects in the original images.
        again: for each augmented view, embeddings (N, D) and the object of each, int64 (N,); N may differ. With
            several processes, M and N are this process's, and objects are numbered over all of them.
        temperature: see `info_nce`.
        decoupled: see `info_nce`.

    Returns:
        A scalar, in nats per object.
    """
    # An object is compared with those of all processes, as in one process that has the whole batch.
    pairs = pairs_of_views(embeddings, again)
    return torch.stack([info_nce(*pair, temperature, decoupled) for pair in pairs]).mean()


def pairs_of_views(values: Tensor, again: Sequence[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """Pairs what is known of objects in each two views, the original images included, of all processes.

    Args:
        values: float (M, ...), of the objects in the original images.
        again: for each augmented view, the same (N, ...) and the object of each row, int64 (N,), see `agreement`.

    Returns:
        For each pair of views, two row-aligned tensors of the objects that both have.
    """
    values = gather_rows(values)
    again = [(gather_rows(seen), gather_rows(rows)) for seen, rows in again]
    pairs = [(values[rows], seen) for seen, rows in again]
    for (first, first_rows), (second, second_rows) in combinations(again, 2):
        here, there = (first_rows[:, None] == second_rows).nonzero(as_tuple=True)
        pairs.append((first[here], second[there]))
    return pairs
