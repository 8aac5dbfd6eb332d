"""Edits of a scene: `Objects` in, `Objects` out, nothing changed in place.

What an object is and where it is are latents of their own, so a scene can be rearranged without touching pixels:
edit, and have the model `decode` what came of it. Every edit names objects by their row, takes batches of any
size, and keeps the contract of `Objects`: rows stay ordered by image, boxes stay inside theirs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ssdir.objects import Objects

MIN_SIDE = 0.02
"""Smallest side of a box, relative to the image: 3 pixels of 128."""

DEPTH_STEP = math.log(100)
"""How much nearer the foremost object is put: where two opaque ones overlap, it makes 99 % of a pixel."""

DUPLICATE_OFFSET = 0.06
"""How far a copy is from its original, relative to the image, so that both can be seen."""


def place(objects: Objects, row: int, z_where: Tensor) -> Objects:
    """Puts an object's box where it is told, or as near to that as the image allows.

    An object is never cut: its sides are limited to the image's first, then it is pushed inside.

    Args:
        objects: the scene.
        row: the object.
        z_where: float (4,), cxcywh relative to the image.

    Raises:
        IndexError: if there is no such row.
        ValueError: if `z_where` is not four finite numbers.
    """
    _check_row(objects, row)
    z_where = z_where.to(objects.z_where)
    if z_where.shape != (4,) or not bool(z_where.isfinite().all()):
        raise ValueError(f"z_where must be four finite numbers, got {z_where.tolist()}")
    sides = z_where[2:].clamp(MIN_SIDE, 1)
    center = torch.maximum(torch.minimum(z_where[:2], 1 - sides / 2), sides / 2)
    return _with_rows(objects, row, z_where=torch.cat([center, sides]))


def move(objects: Objects, row: int, right: float, down: float) -> Objects:
    """Moves an object by shares of the image's width and height; it stops at the edge."""
    _check_row(objects, row)
    return place(objects, row, objects.z_where[row] + objects.z_where.new_tensor([right, down, 0, 0]))


def resize(objects: Objects, row: int, factor: float) -> Objects:
    """Scales an object about its centre, in its proportions, at most until a side is as long as the image's.

    Raises:
        ValueError: if the factor is not positive.
    """
    _check_row(objects, row)
    if not factor > 0:
        raise ValueError(f"factor must be > 0, got {factor}")
    center, sides = objects.z_where[row, :2], objects.z_where[row, 2:]
    smallest, largest = float(MIN_SIDE / sides.min().clamp(min=1e-6)), float(1 / sides.max().clamp(min=1e-6))
    return place(objects, row, torch.cat([center, sides * min(max(factor, smallest), largest)]))


def remove(objects: Objects, row: int) -> Objects:
    """Leaves an object out; an image may end up without any."""
    _check_row(objects, row)
    return objects[torch.arange(len(objects), device=objects.device) != row]


def duplicate(objects: Objects, row: int, offset: float = DUPLICATE_OFFSET) -> Objects:
    """Adds a copy of an object, in the row after it, a little to the lower right (or away from the edge)."""
    _check_row(objects, row)
    rows = torch.arange(len(objects), device=objects.device)
    copied = objects[torch.cat([rows[: row + 1], rows[row:]])]
    sides = copied.z_where[row, 2:]
    room = 1 - sides / 2 - copied.z_where[row, :2]
    step = torch.where(room >= offset, offset, -offset)
    return move(copied, row + 1, float(step[0]), float(step[1]))


def restack(objects: Objects, row: int, to: Literal["front", "back"]) -> Objects:
    """Puts an object before, or behind, all others of its image.

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
    """Lets two objects change looks: each draws the other's appearance in its own place, at its own depth."""
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
    """Draws an object as something between itself (share 0) and another one (share 1), on the line between codes.

    Raises:
        ValueError: if the share is not within [0, 1], or the objects have no codes.
    """
    _check_row(objects, row)
    _check_row(objects, other)
    if not 0 <= share <= 1:
        raise ValueError(f"share must be within [0, 1], got {share}")
    codes = _need(objects, "z_what")
    return _with_rows(objects, row, z_what=torch.lerp(codes[row], codes[other], share))


def set_appearance(objects: Objects, row: int, z_what: Tensor) -> Objects:
    """Draws an object by another code, float (D,)."""
    _check_row(objects, row)
    codes = _need(objects, "z_what")
    if z_what.shape != codes.shape[1:]:
        raise ValueError(f"z_what must be ({codes.shape[1]},), got {tuple(z_what.shape)}")
    return _with_rows(objects, row, z_what=z_what)


@dataclass(frozen=True)
class Step:
    """A state of the scene, and what led to it, such as `moved object 3`."""

    objects: Objects
    title: str


@dataclass(frozen=True)
class History:
    """The states of a scene: the present one, what can be undone, and what can be redone.

    Attributes:
        past: older states, the oldest first.
        present: the state now.
        future: states that were undone, the next one first.
        limit: most states that are kept in `past`.
    """

    present: Step
    past: tuple[Step, ...] = ()
    future: tuple[Step, ...] = ()
    limit: int = 100

    @classmethod
    def of(cls, objects: Objects, title: str = "as found") -> History:
        """A history that begins here."""
        return cls(Step(objects, title))

    @property
    def objects(self) -> Objects:
        """The scene now."""
        return self.present.objects

    def do(self, objects: Objects, title: str, going_on: bool = False) -> History:
        """Goes on to a new state; what was undone before is forgotten.

        Args:
            objects: the scene from now on.
            title: what was done.
            going_on: the same edit goes on (a slider is still being moved): where the present state came of an
                edit of this title, it is replaced, so that one `undo` takes back all of it.
        """
        same = going_on and bool(self.past) and self.present.title == title
        past = self.past if same else (*self.past, self.present)[-self.limit :]
        return History(Step(objects, title), past, (), self.limit)

    def undo(self) -> History:
        """Goes back by a state; stays where there is none."""
        if not self.past:
            return self
        return History(self.past[-1], self.past[:-1], (self.present, *self.future), self.limit)

    def redo(self) -> History:
        """Takes back an `undo`; stays where there is none."""
        if not self.future:
            return self
        return History(self.future[0], (*self.past, self.present), self.future[1:], self.limit)


def _with_rows(objects: Objects, row: int, **values: Tensor) -> Objects:
    """A copy with one row of some fields replaced."""
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
