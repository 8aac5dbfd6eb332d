"""What one browser window is at: a picture, what the model made of it, and the edits since."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ssdir.analysis.projections import PrincipalAxes
from ssdir.data.images import Image8
from ssdir.errors import InputError
from ssdir.formatting import quote
from ssdir.identity import Identity
from ssdir.inference.predictor import Predictor
from ssdir.objects import Objects
from ssdir.studio.collection import Collection, ObjectMap
from ssdir.studio.look import Look, look
from ssdir.studio.samples import Sample
from ssdir.studio.scene_editor import History

_HUGE = 1e18


@dataclass(frozen=True, eq=False)
class Studio:
    """What all windows share.

    Attributes:
        name: of the model.
        identity: of the model, for files of objects.
        predictor: the model.
        rivals: names of the models to compare it with.
        samples: pictures to start with.
        axes: principal axes of the embeddings.
        collection: objects to explore.
        objects_map: their map.
    """

    name: str
    identity: Identity
    predictor: Predictor
    rivals: Sequence[str]
    samples: Sequence[Sample]
    axes: PrincipalAxes
    collection: Collection
    objects_map: ObjectMap
    loaded: dict[str, Predictor] = field(default_factory=dict)

    def rival(self, name: str) -> Predictor:
        """A model to compare with, loaded when first asked for; only those in `rivals`."""
        if name not in self.rivals:
            raise InputError(f"{quote(name)} is none of the models to compare with")
        if name not in self.loaded:
            from ssdir.inference.predictor import as_generative, load

            rival = load(name, self.predictor.device)
            as_generative(rival.model)
            self.loaded[name] = rival
        return self.loaded[name]


@dataclass(eq=False)
class Turn:
    """What the events of one window share: they may overlap, and each must see what the one before it left.

    Attributes:
        lock: held while an edit is made.
        latest: the window after the last edit; None before the first.
        placed: when the browser sent the last place of an object that was heeded, in its own milliseconds.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    latest: Workspace | None = None
    placed: float = 0

    def heeds(self, place: Place) -> bool:
        """Notes a place; one on the way that a later place overtook does not count."""
        overtaken = place.sent < self.placed
        self.placed = max(place.sent, self.placed)
        return place.last or not overtaken


@dataclass(frozen=True, eq=False)
class Workspace:
    """One window's picture and edits.

    Attributes:
        look: what the model made of the picture.
        history: the scene and its edits.
        seen_row: the object chosen in See.
        row: the object chosen in Edit.
        turn: whose it is; the same before and after an edit, and for each picture that the window opens.
    """

    look: Look
    history: History
    seen_row: int | None = None
    row: int | None = None
    turn: Turn = field(default_factory=Turn, repr=False)

    @classmethod
    def open(cls, predictor: Predictor, image: Image8, name: str, before: Workspace | None = None) -> Workspace:
        """Starts with a picture; the first object is chosen.

        Args:
            predictor: the model.
            image: the picture.
            name: its name.
            before: the window as it was, if it had a picture: edits of that are made before, or not at all.
        """
        turn = Turn() if before is None else before.turn
        with turn.lock:
            found = look(predictor, image, name)
            first = 0 if len(found.objects) else None
            opened = turn.latest = cls(found, History.of(found.objects), first, first, turn)
        return opened

    @property
    def latest(self) -> Workspace:
        """The same window after the last edit, which an event that began before it has not seen."""
        return self.turn.latest or self

    @property
    def objects(self) -> Objects:
        """The scene as edited."""
        return self.history.objects

    @property
    def stem(self) -> str:
        """What to call files made of the picture."""
        return Path(self.look.name).stem.replace(" ", "-") or "scene"

    def edited(self, objects: Objects, title: str, row: int | None, going_on: bool = False) -> Workspace:
        """The same window after an edit, with `row` chosen as far as there is such a row."""
        return replace(self, history=self.history.do(objects, title, going_on), row=_within(row, len(objects)))

    def at(self, history: History) -> Workspace:
        """The same window at another state of the scene."""
        return replace(self, history=history, row=_within(self.row, len(history.objects)))


def _within(row: int | None, count: int) -> int | None:
    if not count:
        return None
    return 0 if row is None else min(row, count - 1)


def row_of(data: Any, count: int) -> int | None:
    """The row that an event from the browser names, if it is one of `count`."""
    row = data.get("row") if isinstance(data, Mapping) else data
    return row if isinstance(row, int) and not isinstance(row, bool) and 0 <= row < count else None


def number_of(value: Any, low: float, high: float) -> float | None:
    """The number that a control of the browser sends, within limits; None if it is none."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _HUGE
    return min(max(float(value), low), high) if is_number else None


@dataclass(frozen=True, eq=False)
class Place:
    """Where an object was put by hand.

    Attributes:
        row: the object.
        z_where: float (4,).
        sent: when, in the browser's milliseconds.
        last: of a drag, or of its own; not one on the way there.
    """

    row: int
    z_where: torch.Tensor
    sent: float
    last: bool


def place_of(data: Any, count: int) -> Place | None:
    """The place that an event from the browser names, if it is one and of one of `count` objects."""
    row = row_of(data, count)
    if row is None or not isinstance(data, Mapping):
        return None
    numbers, sent = data.get("z_where"), number_of(data.get("sent"), 0, _HUGE)
    if sent is None or not isinstance(numbers, list) or len(numbers) != 4:
        return None
    if not all(isinstance(number, (int, float)) and abs(number) < 10 for number in numbers):
        return None
    return Place(row, torch.tensor(numbers, dtype=torch.float32), sent, data.get("last") is True)
