"""`Objects` as NumPy arrays, for files and engines that do without torch, which takes seconds to import."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
BoxUnit: TypeAlias = Literal["pixels", "relative"]


@dataclass(frozen=True, eq=False)
class ObjectArrays:
    """The objects of a batch of images, packed: the fields of `Objects` as NumPy arrays.

    Attributes:
        image_index: int64 (M,), never decreasing.
        batch_size: number of images B.
        z_where: float (M, 4), cxcywh in [0, 1].
        scores: float (M,).
        labels: int64 (M,).
        z_what: float (M, D).
        z_what_scale: float (M, D).
        z_depth: float (M,).
        anchor_index: int64 (M,).
        track_id: int64 (M,).
        visible: float (M,).
    """

    image_index: Integers
    batch_size: int
    z_where: Floats
    scores: Floats | None = None
    labels: Integers | None = None
    z_what: Floats | None = None
    z_what_scale: Floats | None = None
    z_depth: Floats | None = None
    anchor_index: Integers | None = None
    track_id: Integers | None = None
    visible: Floats | None = None

    @classmethod
    def empty(cls, batch_size: int) -> Self:
        """Returns a batch of images without any object."""
        return cls(np.zeros(0, np.int64), batch_size, np.zeros((0, 4), np.float32))

    def __len__(self) -> int:
        return len(self.image_index)

    def __getitem__(self, rows: NDArray[np.bool_]) -> Self:
        """Selects rows by mask (M,); the batch size stays."""
        arrays: dict[str, Any] = {
            name: value[rows] for name, value in vars(self).items() if isinstance(value, np.ndarray)
        }
        return replace(self, **arrays)

    @property
    def boxes(self) -> Floats:
        """Boxes (M, 4), xyxy relative to the image, clipped to [0, 1]."""
        center, half = self.z_where[:, :2], self.z_where[:, 2:] / 2
        return np.concatenate([center - half, center + half], axis=1).clip(0, 1)

    @property
    def counts(self) -> Integers:
        """Objects per image, int64 (B,)."""
        return np.bincount(self.image_index, minlength=self.batch_size)

    def problem(self, num_classes: int, latent_dim: int) -> str | None:
        """Describes the first fault of these objects as the end of a sentence; None if there is none.

        Args:
            num_classes: number of the model's classes K.
            latent_dim: size D of its `z_what`.
        """
        count = len(self)
        sizes = {"z_where": (count, 4), "z_what": (count, latent_dim), "z_what_scale": (count, latent_dim)}
        for name, values in vars(self).items():
            if not isinstance(values, np.ndarray):
                continue
            if values.shape != sizes.get(name, (count,)):
                return f"{name} has the shape {values.shape}, expected {sizes.get(name, (count,))}"
            if not np.isfinite(values).all():
                return f"{name} holds a number that is not finite"
        if count and (self.image_index.min() < 0 or self.image_index.max() >= self.batch_size):
            return f"image_index is outside 0 ... {self.batch_size - 1}"
        if (np.diff(self.image_index) < 0).any():
            return "image_index decreases"
        for name, values, most in (("labels", self.labels, num_classes - 1), ("scores", self.scores, 1)):
            if values is not None and ((values < 0) | (values > most)).any():
                return f"{name} holds a value outside 0 ... {most}"
        return "z_where has a negative size" if (self.z_where[:, 2:] < 0).any() else None
