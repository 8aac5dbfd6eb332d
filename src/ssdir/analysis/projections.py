"""Projections of embeddings: t-SNE to two dimensions, principal components, and latent traversals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssdir.errors import InputError

Decode: TypeAlias = Callable[[Tensor], Tensor]
"""Decodes `z_what` (M, D) to appearances (M, 3, S, S) in [0, 1]."""

MAX_TSNE_POINTS = 2000
MIN_TSNE_POINTS = 5


class Projection(NamedTuple):
    """A sample of embeddings in the plane.

    Attributes:
        points: float (n, 2).
        rows: int64 (n,), the row of each point's embedding, ascending.
    """

    points: NDArray[np.float32]
    rows: NDArray[np.int64]


def tsne(z_what: Tensor, seed: int = 0, max_points: int = MAX_TSNE_POINTS) -> Projection:
    """Computes t-SNE of embeddings (M, D), D > 1, initialised with their principal components.

    Args:
        z_what: the embeddings.
        seed: seed of the sample and of t-SNE.
        max_points: maximum number of points; of more embeddings, a random sample is taken.

    Raises:
        ValueError: if there are fewer than five embeddings.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if len(z_what) < MIN_TSNE_POINTS:
        raise ValueError(f"t-SNE needs at least {MIN_TSNE_POINTS} points, got {len(z_what)}")
    rows = np.sort(np.random.default_rng(seed).permutation(len(z_what))[:max_points])
    projection = TSNE(init="pca", perplexity=min(30.0, (len(rows) - 1) / 3), random_state=seed)
    # One thread is faster: with so few points, several threads mostly wait for each other.
    with threadpool_limits(1):
        return Projection(projection.fit_transform(z_what.float().numpy()[rows]), rows)


@torch.no_grad()
def traverse(decode: Decode, z_what: Tensor, directions: Tensor, steps: int = 7, extent: float = 3.0) -> Tensor:
    """Decodes latent traversals: objects at steps along directions of the latent space.

    Args:
        decode: the model's what decoder.
        z_what: float (n, D), the centre of each traversal.
        directions: float (k, D), see `PrincipalAxes`.
        steps: images per traversal, odd: the middle one is the object itself.
        extent: distance from the centre to either end, in multiples of the direction's length.

    Returns:
        float (n, k, steps, 3, S, S).
    """
    if steps % 2 == 0:
        raise ValueError(f"steps must be odd, got {steps}")
    offsets = torch.arange(-(steps // 2), steps // 2 + 1).to(z_what) * (extent / max(steps // 2, 1))
    moved = z_what[:, None, None] + offsets[:, None] * directions[:, None].to(z_what)
    appearances = decode(moved.flatten(0, 2))
    return appearances.view(*moved.shape[:3], *appearances.shape[1:])


@dataclass(frozen=True)
class PrincipalAxes:
    """Principal components of embeddings as axes along which an embedding can be changed.

    Attributes:
        mean: float (D,), the mean embedding.
        directions: float (P, D), orthogonal, by falling variance; each is one standard deviation long.
        explained: float (P,), share of the variance along each axis.
    """

    mean: Tensor
    directions: Tensor
    explained: Tensor

    @classmethod
    def fit(cls, z_what: Tensor, count: int = 6) -> PrincipalAxes:
        """Fits at most `count` axes to embeddings (M, D), leaving out axes along which they don't vary.

        Raises:
            InputError: if there are fewer than two embeddings.
        """
        from sklearn.decomposition import PCA

        if len(z_what) < 2:
            raise InputError(f"principal axes need the embeddings of at least two objects, got {len(z_what)}")
        pca = PCA(min(count, *z_what.shape)).fit(z_what.double().numpy())
        variances, total = torch.from_numpy(pca.explained_variance_).to(z_what), z_what.var(dim=0).sum()
        kept = variances > 1e-8 * total.clamp(min=1e-12)
        directions = torch.from_numpy(pca.components_ * np.sqrt(pca.explained_variance_)[:, None]).to(z_what)
        return cls(z_what.mean(dim=0), directions[kept], variances[kept] / total)

    def coordinates(self, z_what: Tensor) -> Tensor:
        """Returns coordinates (..., P) of embeddings (..., D), in standard deviations from the mean."""
        return (z_what - self.mean) @ (self.directions / self.directions.square().sum(1, keepdim=True)).T

    def with_coordinates(self, z_what: Tensor, coordinates: Tensor) -> Tensor:
        """Moves embeddings (..., D) to coordinates (..., P); their component orthogonal to all axes is kept."""
        return z_what + (coordinates - self.coordinates(z_what)) @ self.directions
