"""`Objects` without torch, which takes seconds to import: what other engines find, and what files hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

    from ssdir.objects import Objects

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


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

    @classmethod
    def of(cls, objects: Objects) -> Self:
        """Copies objects from wherever they are."""

        def host(tensor: Tensor | None) -> Any:
            return None if tensor is None else tensor.detach().cpu().numpy()

        return cls(
            host(objects.image_index),
            objects.batch_size,
            host(objects.z_where),
            host(objects.scores),
            host(objects.labels),
            host(objects.z_what),
            host(objects.z_what_scale),
            host(objects.z_depth),
            host(objects.anchor_index),
        )

    def to_objects(self) -> Objects:
        """The same as tensors, on the CPU."""
        import torch

        from ssdir.objects import Objects

        tensors = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return Objects(
            batch_size=self.batch_size,
            **{name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in tensors.items()},
        )

    @classmethod
    def empty(cls, batch_size: int) -> Self:
        """A batch of images without any object."""
        return cls(np.zeros(0, np.int64), batch_size, np.zeros((0, 4), np.float32))

    def __len__(self) -> int:
        return len(self.image_index)

    @property
    def boxes(self) -> Floats:
        """Boxes (M, 4), xyxy relative to the image, clipped to [0, 1]."""
        center, half = self.z_where[:, :2], self.z_where[:, 2:] / 2
        return np.concatenate([center - half, center + half], axis=1).clip(0, 1)

    @property
    def counts(self) -> Integers:
        """Objects per image, int64 (B,)."""
        return np.bincount(self.image_index, minlength=self.batch_size)
