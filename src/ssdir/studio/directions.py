"""Directions of the code that matter: the principal components of a data set's `z_what`, as knobs to turn."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ssdir.errors import InputError
from ssdir.plots import principal_directions


@dataclass(frozen=True)
class LatentDirections:
    """Knobs of an appearance code; each is measured in standard deviations of the data along its direction.

    Attributes:
        mean: float (D,), the average code.
        components: float (P, D), orthonormal, of falling variance.
        scales: float (P,), standard deviation of the data along each, > 0.
        explained: float (P,), share of the data's variance along each.
    """

    mean: Tensor
    components: Tensor
    scales: Tensor
    explained: Tensor

    @classmethod
    def fit(cls, z_what: Tensor, count: int = 6) -> LatentDirections:
        """The principal components of codes (M, D), at most `count`, none along which the codes don't vary.

        Raises:
            InputError: if there are fewer than two codes.
        """
        if len(z_what) < 2:
            raise InputError(f"directions need the codes of at least two objects, got {len(z_what)}")
        directions = principal_directions(z_what, count)
        scales = directions.norm(dim=1)
        spread = z_what.var(dim=0).sum()
        kept = scales > 1e-4 * spread.sqrt().clamp(min=1e-6)
        scales, directions = scales[kept], directions[kept]
        return cls(z_what.mean(dim=0), directions / scales[:, None], scales, scales.square() / spread)

    def __len__(self) -> int:
        return len(self.scales)

    def read(self, z_what: Tensor) -> Tensor:
        """Where the knobs of codes (..., D) stand: (..., P), in standard deviations from the mean."""
        return (z_what - self.mean) @ self.components.T / self.scales

    def turn(self, z_what: Tensor, settings: Tensor) -> Tensor:
        """Codes (..., D) with their knobs at `settings` (..., P); what no knob tells of stays as it is."""
        return z_what + ((settings - self.read(z_what)) * self.scales) @ self.components
