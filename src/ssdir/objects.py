"""`Objects` and `Scene`: the structures that all models, metrics and plots share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssdir.object_arrays import ObjectArrays
from ssdir.object_row import ObjectRow

if TYPE_CHECKING:
    import pandas
    import pyarrow
    import supervision

_FLOAT_FIELDS = ("z_where", "scores", "z_what", "z_what_scale", "z_depth", "visible")
_TENSOR_SHAPES: dict[str, str] = {
    "image_index": "(M,)",
    "z_where": "(M, 4)",
    "scores": "(M,)",
    "labels": "(M,)",
    "z_what": "(M, D)",
    "z_what_scale": "(M, D)",
    "z_depth": "(M,)",
    "anchor_index": "(M,)",
    "source_index": "(M,)",
    "track_id": "(M,)",
    "visible": "(M,)",
}


@dataclass(frozen=True, eq=False, repr=False)
class Objects:
    """The objects of a batch of images, packed: M rows, no padding.

    Being a row means `z_present = 1`. Ground truth, detections, latents and every baseline use this
    one structure; what is unknown is None.

    Attributes:
        image_index: int64 (M,), the image of the batch that each object is in, never decreasing.
        batch_size: number of images B; images without objects count.
        z_where: float (M, 4), cxcywh relative to the image, in [0, 1] (eq. 3).
        scores: float (M,), confidence in [0, 1].
        labels: int64 (M,), class index in 0 ... K-1 (background has no label).
        z_what: float (M, D), embedding of the appearance, the posterior's mean (eq. 5).
        z_what_scale: float (M, D), its standard deviation.
        z_depth: float (M,), larger is nearer (eq. 6).
        anchor_index: int64 (M,), the anchor that produced the object.
        source_index: int64 (M,), for ground truth: the source glyph or asset that the object shows.
        track_id: int64 (M,), the object's number through a clip, from 1: of ground truth its identity, else a
            tracker's.
        visible: float (M,) in [0, 1], the share of the object that nothing hides.
        class_names: the K classes that `labels` index.

    Raises:
        ValueError: if a field's shape or dtype, or on the CPU the order of images, breaks the above. Values are
            not checked: reading them would wait for the accelerator.
    """

    image_index: Tensor
    batch_size: int
    z_where: Tensor
    scores: Tensor | None = None
    labels: Tensor | None = None
    z_what: Tensor | None = None
    z_what_scale: Tensor | None = None
    z_depth: Tensor | None = None
    anchor_index: Tensor | None = None
    source_index: Tensor | None = None
    track_id: Tensor | None = None
    visible: Tensor | None = None
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        M = self.image_index.shape[0] if self.image_index.ndim else -1
        for name, tensor in self._tensors().items():
            expected = _TENSOR_SHAPES[name]
            if tensor.ndim != expected.count(",") + (" " in expected) or tensor.shape[0] != M:
                raise ValueError(f"{name} must be {expected} with M = {M}, got {tuple(tensor.shape)}")
            if (name in _FLOAT_FIELDS) != tensor.is_floating_point():
                kind = "floating point" if name in _FLOAT_FIELDS else "integer"
                raise ValueError(f"{name} must be {kind}, got {tensor.dtype}")
        if self.z_where.shape[1] != 4:
            raise ValueError(f"z_where must be (M, 4), got {tuple(self.z_where.shape)}")
        # There are no values while a graph is traced, and reading them would wait for an accelerator.
        if torch.compiler.is_exporting() or self.device.type != "cpu":
            return
        if M and (int(self.image_index[0]) < 0 or int(self.image_index[-1]) >= self.batch_size):
            raise ValueError(
                f"image_index must be within 0 ... {self.batch_size - 1}, "
                f"got {int(self.image_index[0])} ... {int(self.image_index[-1])}"
            )
        if M > 1 and self.batch_size > 1 and bool((self.image_index.diff() < 0).any()):
            raise ValueError("image_index must not decrease: sort the objects by image")

    def _tensors(self) -> dict[str, Tensor]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def __len__(self) -> int:
        return self.image_index.shape[0]

    def __repr__(self) -> str:
        known = [
            name if tensor.ndim == 1 else f"{name} {tuple(tensor.shape)}"
            for name, tensor in self._tensors().items()
            if name != "image_index"
        ]
        return f"Objects({len(self)} in {self.batch_size} images: {', '.join(known)}; {self.device})"

    @overload
    def __getitem__(self, index: int) -> ObjectRow: ...
    @overload
    def __getitem__(self, index: Tensor | NDArray[Any] | slice | Sequence[int] | Sequence[bool]) -> Self: ...
    def __getitem__(self, index: Any) -> ObjectRow | Self:
        """Returns one object by its number; or selects rows by mask (M,), by indices or by slice.

        The batch size of selected rows stays.

        Raises:
            IndexError: if there is no such row.
        """
        if isinstance(index, (int, np.integer)) and not isinstance(index, bool):
            return ObjectRow.of(self._tensors(), int(index), self.class_names)
        if not isinstance(index, (Tensor, slice)):
            empty = isinstance(index, Sequence) and not len(index)
            index = torch.as_tensor(index, dtype=torch.int64 if empty else None)
        if isinstance(index, Tensor) and not index.ndim:
            raise TypeError("objects are selected by a number, a mask, a slice or a list of rows")
        return self.replace(**self._selected(index))

    def __iter__(self) -> Iterator[ObjectRow]:
        """Yields each object."""
        return (self[number] for number in range(len(self)))

    def regrouped(self, rows: Tensor, image_index: Tensor, batch_size: int) -> Self:
        """Selects rows as the objects of other images.

        Args:
            rows: int64 (N,).
            image_index: int64 (N,), the new image of each, never decreasing.
            batch_size: number of new images.
        """
        return self.replace(**{**self._selected(rows), "image_index": image_index, "batch_size": batch_size})

    def _selected(self, index: Tensor | slice) -> dict[str, Tensor]:
        return {name: tensor[index] for name, tensor in self._tensors().items()}

    @property
    def device(self) -> torch.device:
        """The device of the tensors."""
        return self.image_index.device

    @property
    def boxes(self) -> Tensor:
        """Boxes (M, 4), xyxy relative to the image, clipped to [0, 1]."""
        center, half = self.z_where[:, :2], self.z_where[:, 2:] / 2
        return torch.cat([center - half, center + half], dim=1).clamp(0, 1)

    @property
    def counts(self) -> Tensor:
        """Objects per image, int64 (B,)."""
        # Unlike bincount, this waits for no device.
        return self.image_index.new_zeros(self.batch_size).scatter_add(
            0, self.image_index, torch.ones_like(self.image_index)
        )

    @cached_property
    def per_image(self) -> list[int]:
        """`counts` on the host: a device is waited for once, also for copies by `replace`."""
        counts: list[int] = self.counts.tolist()
        return counts

    def boxes_px(self, size: tuple[int, int]) -> Tensor:
        """Boxes (M, 4), xyxy in pixels of an image of `size` = (height, width)."""
        height, width = size
        return self.boxes * self.boxes.new_tensor([width, height, width, height])

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Moves every tensor to a device; a dtype applies to the floating point ones."""
        tensors = self._tensors()
        moved = {name: tensor.to(*args, **kwargs) for name, tensor in tensors.items() if name in _FLOAT_FIELDS}
        # Half precision has no integers beyond a few hundred, so integers are never converted to it.
        device = moved["z_where"].device
        return self.replace(**{name: tensor.to(device) for name, tensor in tensors.items()} | moved)

    def detach(self) -> Self:
        """Detaches every tensor from the autograd graph."""
        return self.replace(**{name: tensor.detach() for name, tensor in self._tensors().items()})

    def replace(self, **changes: Any) -> Self:
        """Returns a copy with fields replaced (and validated)."""
        copied = replace(self, **changes)
        if "per_image" in vars(self) and not {"image_index", "batch_size"} & changes.keys():
            vars(copied)["per_image"] = self.per_image
        return copied

    def split(self) -> list[Self]:
        """Splits the batch into one `Objects` per image, each with batch size 1."""
        rows = torch.arange(len(self), device=self.device).split(self.per_image)
        return [self.regrouped(chunk, torch.zeros_like(chunk), 1) for chunk in rows]

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """Concatenates batches: image indices of a later part follow those of the earlier ones.

        Fields that not every part has are dropped, except that parts without objects don't count.

        Raises:
            ValueError: if labels of the parts index different classes.
        """
        if not parts:
            return cls.empty(0)
        nonempty = [part for part in parts if len(part)] or list(parts)
        names = set.intersection(*(set(part._tensors()) for part in nonempty)) - {"image_index"}
        index, offset = [], 0
        for part in parts:
            index.append(part.image_index + offset)
            offset += part.batch_size
        tensors = {name: torch.cat([getattr(part, name) for part in nonempty]) for name in names}
        named = {part.class_names for part in nonempty}
        if len(named - {None}) > 1:
            raise ValueError("objects whose labels index different classes can't be concatenated")
        class_names = None if None in named else named.pop()
        return cls(image_index=torch.cat(index), batch_size=offset, class_names=class_names, **tensors)

    @classmethod
    def empty(cls, batch_size: int, device: torch.device | str | None = None) -> Self:
        """Returns a batch of images without any object."""
        return cls(
            image_index=torch.zeros(0, dtype=torch.int64, device=device),
            batch_size=batch_size,
            z_where=torch.zeros(0, 4, device=device),
        )

    def to_supervision(self, size: tuple[int, int]) -> supervision.Detections:
        """Converts one image's objects to `supervision.Detections`.

        `tracker_id` is `track_id`; latents, `visible` and `class_name` are in its `data`.

        Args:
            size: the image's (height, width) in pixels.

        Raises:
            ValueError: if the batch has more than one image (`split` it first).
        """
        import supervision

        if self.batch_size != 1:
            raise ValueError(f"to_supervision takes one image, got a batch of {self.batch_size}: use split()")
        host = self.to_arrays()
        extra = ("z_what", "z_what_scale", "z_depth", "anchor_index", "visible")
        data = {name: getattr(host, name) for name in extra if getattr(host, name) is not None}
        if self.class_names is not None and host.labels is not None:
            data["class_name"] = np.asarray(self.class_names)[host.labels]
        return supervision.Detections(
            xyxy=self.detach().boxes_px(size).cpu().numpy(),
            confidence=host.scores,
            class_id=None if host.labels is None else host.labels.astype(int),
            tracker_id=None if host.track_id is None else host.track_id.astype(int),
            data=data,
        )

    def to_arrays(self) -> ObjectArrays:
        """Copies the objects to the host as NumPy arrays, without `source_index`."""
        arrays = {
            name: tensor.numpy()
            for name, tensor in self.detach().to("cpu")._tensors().items()
            if name != "source_index"
        }
        return ObjectArrays(batch_size=self.batch_size, **arrays)

    @classmethod
    def from_arrays(cls, arrays: ObjectArrays, class_names: Sequence[str] | None = None) -> Self:
        """Converts NumPy arrays to tensors on the CPU; `class_names` are the classes that labels index."""
        tensors = {name: value for name, value in vars(arrays).items() if isinstance(value, np.ndarray)}
        return cls(
            batch_size=arrays.batch_size,
            class_names=None if class_names is None else tuple(class_names),
            **{name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in tensors.items()},
        )

    def to_arrow(
        self,
        images: Sequence[str | Path] | None = None,
        sizes: Sequence[tuple[int, int]] | None = None,
    ) -> pyarrow.Table:
        """Converts to an Arrow table with a row per object and the columns of the file that `ssdir encode` writes.

        See `object_table.OBJECT_COLUMNS` for the columns, and `TRACK_COLUMNS` for those that follow where the
        objects have them. What is not known of the former is null; `source_index` is left out.

        Args:
            images: path of each image of the batch.
            sizes: (height, width) of each in pixels, without which there are no boxes in pixels.
        """
        from ssdir.object_table import objects_table

        return objects_table(self.to_arrays(), images, sizes, self.class_names)

    def to_pandas(
        self,
        images: Sequence[str | Path] | None = None,
        sizes: Sequence[tuple[int, int]] | None = None,
    ) -> pandas.DataFrame:
        """Converts to a data frame with the columns of `to_arrow`, see there; vectors are arrays."""
        frame: pandas.DataFrame = self.to_arrow(images, sizes).to_pandas()
        return frame


@dataclass(frozen=True, eq=False)
class Scene:
    """A decoded batch of `Objects`.

    Attributes:
        reconstructions: float (B, 3, H, W) in [0, 1].
        appearances: float (M, 3, S, S) in [0, 1], each object alone, in its own box.
        alpha: float (M, 1, S, S) in [0, 1], its opacity; None for models without one.
        background: float (B, 3, H, W); None for models without one.
    """

    reconstructions: Tensor
    appearances: Tensor
    alpha: Tensor | None = None
    background: Tensor | None = None

    def to(self, device: torch.device | str) -> Scene:
        """Moves every tensor to a device."""
        parts = (self.reconstructions, self.appearances, self.alpha, self.background)
        return Scene(*(None if part is None else part.to(device) for part in parts))  # type: ignore[arg-type]
