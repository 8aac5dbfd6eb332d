"""Principal components of wide features, batch by batch, so that those of all objects need not lie in memory."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

MAX_FITTED = 20_000
"""The number of objects, from the first on, whose features the components are fitted on."""

_PROJECTED_ROWS = 4096

Projection: TypeAlias = Pipeline


class Components:
    """Reduces features to principal components of the first objects.

    Args:
        size: components kept; fewer where there are fewer objects or features.
        standardise: first scale each feature to unit variance, for features of different scales.
        seed: seed of the randomised solver that is used for wide features.
    """

    def __init__(self, size: int, *, standardise: bool = False, seed: int = 0) -> None:
        self._size, self._standardise, self._seed = size, standardise, seed
        self._waiting: list[Tensor] = []
        self._projected: list[Tensor] = []
        self._projection: Projection | None = None

    def add(self, features: Tensor) -> None:
        """Adds a batch of features, float (n, F).

        Raises:
            ValueError: if one is not finite.
        """
        if not bool(features.isfinite().all()):
            raise ValueError("features must be finite, got NaN or infinity")
        if self._projection is not None:
            self._projected.append(project(self._projection, features))
            return
        self._waiting.append(features)
        if sum(map(len, self._waiting)) >= MAX_FITTED:
            self._fit()

    def finish(self) -> tuple[Tensor, Projection | None]:
        """Returns the reduced features of all objects, (n, size), and what projects others, if there are any."""
        if self._projection is None and any(map(len, self._waiting)):
            self._fit()
        parts = [part for part in self._projected if len(part)]
        return torch.cat(parts) if parts else torch.zeros(0, 0), self._projection

    def _fit(self) -> None:
        features = torch.cat([part for part in self._waiting if len(part)])
        self._waiting.clear()
        fitted = features[:MAX_FITTED].numpy()
        steps = [StandardScaler()] if self._standardise else []
        pca = PCA(min(self._size, *fitted.shape), random_state=self._seed)
        with np.errstate(invalid="ignore"):  # One object has no variance to explain.
            self._projection = make_pipeline(*steps, pca).fit(fitted)
        self._projected.append(project(self._projection, features))


def project(projection: Projection, features: Tensor) -> Tensor:
    """Projects features float (n, F) in chunks, because standardising wide ones all at once takes much memory."""
    parts = [
        part.new_tensor(projection.transform(part.numpy()))
        for part in features.split(_PROJECTED_ROWS)
        if len(part)
    ]
    return torch.cat(parts) if parts else torch.zeros(0, 0)
