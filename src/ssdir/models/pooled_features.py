"""PooledFeatures: the detector's own features of each object, a baseline for learned embeddings.

It is what users of a detector get without further training: only the detector is learned, and principal components
reduce its pooled features to the size of the other models' embeddings. It has no decoder.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from ssdir.errors import InputError
from ssdir.models.detected.model import DetectedConfig, DetectedModel, pool_pyramid
from ssdir.models.detector.ssd import SSD
from ssdir.models.sizes import MAX_WIDTH
from ssdir.objects import Objects
from ssdir.ops.precision import in_full_precision


class PooledFeaturesConfig(DetectedConfig):
    """A PooledFeatures model.

    Attributes:
        latent_dim: size D of `z_what`: principal components kept.
        pool_size: samples of each level along each side of a box.
        fit_objects: most objects that the principal components are fitted on.
    """

    kind: Literal["PooledFeatures"] = "PooledFeatures"
    latent_dim: int = Field(256, ge=1, le=MAX_WIDTH)
    pool_size: int = Field(3, ge=1, le=64)
    fit_objects: int = Field(20_000, ge=2, le=10_000_000)


class PooledFeatures(DetectedModel):
    """Embeds each detection by RoIAlign of the frozen detector's pyramid, reduced to principal components.

    Attributes:
        mean: float (F,), mean of the pooled features.
        scale: float (F,), their standard deviations, because the levels of a pyramid differ in scale.
        components: float (D, F), orthonormal rows by falling variance; if there are fewer than D, zeros follow.
        num_fitted: int64 (), number of objects that the components were fitted on; 0 before fitting.

    Args:
        config: the model's config.
        class_names: the detector's K foreground classes.
        detector: a trained detector to build on; None makes a new one.
    """

    config: PooledFeaturesConfig
    mean: Tensor
    scale: Tensor
    components: Tensor
    num_fitted: Tensor

    def __init__(self, config: PooledFeaturesConfig, class_names: list[str], detector: SSD | None = None) -> None:
        super().__init__(config, class_names, detector)
        F = config.pool_size**2 * sum(self.detector.backbone.channels)
        self.register_buffer("mean", torch.zeros(F))
        self.register_buffer("scale", torch.ones(F))
        self.register_buffer("components", torch.zeros(config.latent_dim, F))
        self.register_buffer("num_fitted", torch.zeros((), dtype=torch.int64))

    def infer(self, objects: Objects, images: Tensor, features: list[Tensor]) -> Objects:
        """Adds z_what, the coordinates of principal components.

        Args:
            objects: M objects with z_where.
            images: not used.
            features: the detector's feature maps, see `SSD.read`.

        Raises:
            InputError: if the components have not been fitted.
        """
        if not self.num_fitted:
            raise InputError(
                "this PooledFeatures model is a detector only, its principal components are not fitted: "
                "go on with its training (ssdir train --resume) and take the run's model"
            )
        pooled = pool_pyramid(self.detector.pyramid(features), objects, self.config.pool_size)
        return objects.replace(z_what=_project(pooled, self.mean, self.scale, self.components))

    def fit(self, pooled: Tensor, seed: int) -> float:
        """Fits the principal components of standardised features.

        Args:
            pooled: float (n, F), features of n objects, see `pool_pyramid`, on the CPU.
            seed: seed of the randomised solver, which is used for large n and F.

        Returns:
            The share of the standardised features' variance that the components explain.

        Raises:
            ValueError: if there are fewer than two objects.
        """
        from sklearn.decomposition import PCA
        from sklearn.preprocessing import StandardScaler

        if len(pooled) < 2:
            raise ValueError(f"pooled must be of at least two objects, got {len(pooled)}")
        scaler = StandardScaler().fit(pooled.numpy())
        rows = scaler.transform(pooled.numpy())
        pca = PCA(min(self.latent_dim, *rows.shape), random_state=seed).fit(rows)
        # Standardised features have mean 0 but for rounding, so there is no second mean to subtract.
        self.mean.copy_(torch.from_numpy(scaler.mean_))
        self.scale.copy_(torch.from_numpy(scaler.scale_))
        self.components.zero_()
        self.components[: pca.n_components_] = torch.from_numpy(pca.components_).to(self.components)
        self.num_fitted.fill_(len(pooled))
        return float(pca.explained_variance_ratio_.sum())


@in_full_precision
def _project(pooled: Tensor, mean: Tensor, scale: Tensor, components: Tensor) -> Tensor:
    return (pooled - mean) / scale @ components.T
