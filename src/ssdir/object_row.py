"""`ObjectRow`: a single object of `Objects`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_SINGULAR = {"scores": "score", "labels": "label"}


@dataclass(frozen=True, eq=False, repr=False)
class ObjectRow:
    """One object: numbers are Python's, vectors are tensors on their device, and what is unknown is None.

    Attributes:
        image_index: the image of the batch that the object is in.
        z_where: float (4,), cxcywh relative to the image.
        score: confidence in [0, 1].
        label: class index.
        class_name: the class.
        z_what: float (D,), the embedding.
        z_what_scale: float (D,), its standard deviation.
        z_depth: larger is nearer.
        anchor_index: the anchor that produced the object.
        source_index: for ground truth, the source glyph or asset that the object shows.
        track_id: the object's number through a clip, from 1.
        visible: the share of the object that nothing hides, in [0, 1].
    """

    image_index: int
    z_where: Tensor
    score: float | None = None
    label: int | None = None
    class_name: str | None = None
    z_what: Tensor | None = None
    z_what_scale: Tensor | None = None
    z_depth: float | None = None
    anchor_index: int | None = None
    source_index: int | None = None
    track_id: int | None = None
    visible: float | None = None

    def __repr__(self) -> str:
        known: list[str] = [f"image {self.image_index}"]
        known += [] if self.class_name is None else [self.class_name]
        known += [] if self.score is None else [f"score {self.score:.2f}"]
        known.append(f"box {[round(side, 3) for side in self.box.tolist()]}")
        known += [] if self.z_what is None else [f"z_what ({len(self.z_what)},)"]
        known += [] if self.z_depth is None else [f"z_depth {self.z_depth:.2f}"]
        return f"ObjectRow({', '.join(known)})"

    @property
    def box(self) -> Tensor:
        """The box, float (4,): xyxy relative to the image, clipped to [0, 1]."""
        center, half = self.z_where[:2], self.z_where[2:] / 2
        return torch.cat([center - half, center + half]).clamp(0, 1)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], number: int, class_names: Sequence[str] | None) -> ObjectRow:
        """Takes one row of the tensors of `Objects`, by their names.

        Raises:
            IndexError: if there is no such row.
        """
        count = len(tensors["image_index"])
        if not -count <= number < count:
            raise IndexError(f"there is no object {number} among {count}")
        values: dict[str, Any] = {
            _SINGULAR.get(name, name): tensor[number] if tensor.ndim > 1 else tensor[number].item()
            for name, tensor in tensors.items()
        }
        if class_names is not None and "labels" in tensors:
            values["class_name"] = class_names[values["label"]]
        return cls(**values)
