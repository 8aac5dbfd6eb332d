"""Edits of a scene: `Objects` in, `Objects` out, nothing changed in place.

What an object is and where it is are latents of their own, so a scene can be rearranged without touching pixels:
edit it, and let the model `decode` the result. Every edit names objects by their row, takes batches of any
size, and keeps the contract of `Objects`: rows stay ordered by image, boxes stay inside theirs.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ssdir.objects import Objects

MIN_EDITED_SIDE = 0.02
"""Smallest side to which a box is reduced, relative to the image: 3 pixels of 128."""

DEPTH_STEP = math.log(100)
"""Distance in depth to the next object.

Where two opaque objects overlap, the nearer one is 99 % of the pixel in models that weight objects by a softmax of
depth. SPACE and SPAIR weight by a sigmoid of it, which saturates: there, the nearer one may be less.
"""

DUPLICATE_OFFSET = 0.06
"""Distance of a copy from its original, relative to the image, so that both are visible."""


def set_box(objects: Objects, row: int, z_where: Tensor) -> Objects:
    """Sets an object's box, or the nearest box inside the image.

    The sides are limited to the image's first, then the box is shifted inside.

    Args:
        objects: the scene.
        row: row of the object.
        z_where: float (4,), the box.

    Raises:
        IndexError: if there is no such row.
        ValueError: if `z_where` is not four finite numbers.
    """
    _check_row(objects, row)
    z_where = z_where.to(objects.z_where)
    if z_where.shape != (4,) or not bool(z_where.isfinite().all()):
        raise ValueError(f"z_where must be four finite numbers, got {z_where.tolist()}")
    least = objects.z_where[row, 2:].clamp(max=MIN_EDITED_SIDE)
    sides = z_where[2:].clamp(max=1).maximum(least)
    center = torch.maximum(torch.minimum(z_where[:2], 1 - sides / 2), sides / 2)
    return _with_rows(objects, row, z_where=torch.cat([center, sides]))


def move(objects: Objects, row: int, right: float, down: float) -> Objects:
    """Moves an object by fractions of the image's width and height; it stops at the edge."""
    _check_row(objects, row)
    return set_box(objects, row, objects.z_where[row] + objects.z_where.new_tensor([right, down, 0, 0]))


def scale(objects: Objects, row: int, factor: float) -> Objects:
    """Scales an object about its centre; its proportions stay.

    It grows until a side is as long as the image's, and shrinks until one is `MIN_EDITED_SIDE` long.

    Raises:
        ValueError: if the factor is not positive.
    """
    _check_row(objects, row)
    if not factor > 0:
        raise ValueError(f"factor must be > 0, got {factor}")
    center, sides = objects.z_where[row, :2], objects.z_where[row, 2:]
    smallest = min(float(MIN_EDITED_SIDE / sides.min().clamp(min=1e-6)), 1)
    largest = float(1 / sides.max().clamp(min=1e-6))
    return set_box(objects, row, torch.cat([center, sides * min(max(factor, smallest), largest)]))


def remove(objects: Objects, row: int) -> Objects:
    """Removes an object; an image may end up without any."""
    _check_row(objects, row)
    return objects[torch.arange(len(objects), device=objects.device) != row]


def duplicate(objects: Objects, row: int, offset: float = DUPLICATE_OFFSET) -> Objects:
    """Inserts a copy of an object as the next row, shifted to the lower right (or away from the edge)."""
    _check_row(objects, row)
    rows = torch.arange(len(objects), device=objects.device)
    copied = objects[torch.cat([rows[: row + 1], rows[row:]])]
    sides = copied.z_where[row, 2:]
    room = 1 - sides / 2 - copied.z_where[row, :2]
    step = torch.where(room >= offset, offset, -offset)
    return move(copied, row + 1, float(step[0]), float(step[1]))


def restack(objects: Objects, row: int, to: Literal["front", "back"]) -> Objects:
    """Moves an object in front of, or behind, all others of its image.

    Raises:
        ValueError: if the objects have no depth.
    """
    _check_row(objects, row)
    depths = _need(objects, "z_depth")
    others = objects.image_index == objects.image_index[row]
    others[row] = False
    if not bool(others.any()):
        return objects
    depth = depths[others].max() + DEPTH_STEP if to == "front" else depths[others].min() - DEPTH_STEP
    return _with_rows(objects, row, z_depth=depth)


def swap_appearances(objects: Objects, row: int, other: int) -> Objects:
    """Swaps the appearances of two objects; their boxes and depths stay."""
    _check_row(objects, row)
    _check_row(objects, other)
    _need(objects, "z_what")
    order = torch.arange(len(objects), device=objects.device)
    order[[row, other]] = order[[other, row]]
    swapped = {
        name: values[order]
        for name in ("z_what", "z_what_scale", "labels", "source_index")
        if (values := getattr(objects, name)) is not None
    }
    return objects.replace(**swapped)


def blend_appearance(objects: Objects, row: int, other: int, share: float) -> Objects:
    """Interpolates an object's embedding linearly between itself (share 0) and another object (share 1).

    Raises:
        ValueError: if the share is not within [0, 1], or the objects have no embeddings.
    """
    _check_row(objects, row)
    _check_row(objects, other)
    if not 0 <= share <= 1:
        raise ValueError(f"share must be within [0, 1], got {share}")
    embeddings = _need(objects, "z_what")
    return _with_rows(objects, row, z_what=torch.lerp(embeddings[row], embeddings[other], share))


def set_appearance(objects: Objects, row: int, z_what: Tensor) -> Objects:
    """Sets an object's embedding, float (D,)."""
    _check_row(objects, row)
    embeddings = _need(objects, "z_what")
    if z_what.shape != embeddings.shape[1:]:
        raise ValueError(f"z_what must be ({embeddings.shape[1]},), got {tuple(z_what.shape)}")
    return _with_rows(objects, row, z_what=z_what)


@dataclass(frozen=True)
class Revision:
    """A state of the scene.

    Attributes:
        objects: the scene.
        title: title of the edit that led to it, such as `moved object 3`.
        gesture: what the edit belongs to, such as a drag that may go on; None if it is complete.
    """

    objects: Objects
    title: str
    gesture: Hashable = None


@dataclass(frozen=True)
class History:
    """The revisions of a scene: the present one, those that can be restored by undo, and those by redo.

    Attributes:
        present: the present revision.
        past: older revisions, the oldest first.
        future: revisions that were undone, the next one first.
        limit: maximum length of `past`.
    """

    present: Revision
    past: tuple[Revision, ...] = ()
    future: tuple[Revision, ...] = ()
    limit: int = 100

    @classmethod
    def of(cls, objects: Objects, title: str = "as detected") -> History:
        """Starts a history."""
        return cls(Revision(objects, title))

    @property
    def objects(self) -> Objects:
        """The present scene."""
        return self.present.objects

    def do(self, objects: Objects, title: str, gesture: Hashable = None) -> History:
        """Adds a revision; revisions that were undone are dropped.

        Args:
            objects: the new scene.
            title: title of the edit.
            gesture: of one gesture, such as a drag, all edits are one revision, so that one `undo` reverts them.
        """
        same = gesture is not None and bool(self.past) and self.present.gesture == gesture
        past = self.past if same else (*self.past, self.present)[-self.limit :]
        return History(Revision(objects, title, gesture), past, (), self.limit)

    def end_gesture(self) -> History:
        """Lets the next edit be a revision of its own."""
        return replace(self, present=replace(self.present, gesture=None))

    def undo(self) -> History:
        """Goes back by a revision, if there is one."""
        if not self.past:
            return self
        return History(self.past[-1], self.past[:-1], (self.present, *self.future), self.limit)

    def redo(self) -> History:
        """Reverts an `undo`, if there was one."""
        if not self.future:
            return self
        return History(self.future[0], (*self.past, self.present), self.future[1:], self.limit)


def _with_rows(objects: Objects, row: int, **values: Tensor) -> Objects:
    """Returns a copy with one row of some fields replaced."""
    changed = {}
    for name, value in values.items():
        tensor = getattr(objects, name).clone()
        tensor[row] = value
        changed[name] = tensor
    return objects.replace(**changed)


def _check_row(objects: Objects, row: int) -> None:
    if not 0 <= row < len(objects):
        raise IndexError(f"there is no object {row}: the scene has {len(objects)}")


def _need(objects: Objects, name: str) -> Tensor:
    value = getattr(objects, name)
    if not isinstance(value, Tensor):
        raise ValueError(f"objects need {name} for this edit")
    return value
