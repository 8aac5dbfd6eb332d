"""The state of one browser window: an image, what the model detected in it, and the edits since."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ssdir.data.images import Image8
from ssdir.inference.predictor import Predictor
from ssdir.objects import Objects
from ssdir.studio.images import EncodedImage, encode_image
from ssdir.studio.scene_editor import History

_HUGE = 1e18


@dataclass(frozen=True, eq=False)
class BoxMove:
    """A box that the user has moved or resized.

    Attributes:
        row: row of the object.
        z_where: float (4,), the new box.
        sent: when the browser sent it, in its own milliseconds.
        last: False while a drag goes on.
    """

    row: int
    z_where: torch.Tensor
    sent: float
    last: bool


@dataclass(eq=False)
class WindowState:
    """State that overlapping events of one window share, so that each starts from the result of the one before it.

    Attributes:
        lock: held during an edit.
        latest: the workspace after the last edit; None before the first image is open.
        moved_at: when the browser sent the last accepted move, in its own milliseconds.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    latest: Workspace | None = None
    moved_at: float = 0

    def accepts(self, move: BoxMove) -> bool:
        """Registers a move; returns False for a move of a drag that arrives after a later one."""
        overtaken = move.sent < self.moved_at
        self.moved_at = max(move.sent, self.moved_at)
        return move.last or not overtaken


@dataclass(frozen=True, eq=False)
class Workspace:
    """The image and the edits of one window.

    Attributes:
        encoded: the image and its detected objects.
        history: the scene and its edits.
        inspected_row: the object selected in the tab Inspect.
        row: the object selected in the tab Edit.
        window: the state of the window, the same for all images and edits.
    """

    encoded: EncodedImage
    history: History
    inspected_row: int | None = None
    row: int | None = None
    window: WindowState = field(default_factory=WindowState, repr=False)

    @classmethod
    def open(cls, predictor: Predictor, image: Image8, name: str, before: Workspace | None = None) -> Workspace:
        """Opens an image and selects its first object.

        Args:
            predictor: the model.
            image: uint8 (H, W, 3).
            name: name of the image.
            before: the window's workspace until now; edits of it that have begun are finished first.
        """
        window = WindowState() if before is None else before.window
        with window.lock:
            encoded = encode_image(predictor, image, name)
            first = 0 if len(encoded.objects) else None
            opened = window.latest = cls(encoded, History.of(encoded.objects), first, first, window)
        return opened

    @property
    def latest(self) -> Workspace:
        """The workspace after the window's last edit, which the event at hand may not have seen."""
        return self.window.latest or self

    @property
    def objects(self) -> Objects:
        """The edited scene."""
        return self.history.objects

    def edit(self, objects: Objects, title: str, row: int | None, continues: bool = False) -> Workspace:
        """Returns the workspace after an edit, see `History.do`, with an object selected."""
        return self.with_history(self.history.do(objects, title, continues), row)

    def with_history(self, history: History, row: int | None) -> Workspace:
        """Returns the workspace with another history; the selected row is limited to its objects."""
        count = len(history.objects)
        return replace(self, history=history, row=min(row or 0, count - 1) if count else None)

    @property
    def file_stem(self) -> str:
        """Beginning of the names of saved files."""
        return Path(self.encoded.name).stem.replace(" ", "-") or "scene"


def parse_row(data: Any, count: int) -> int | None:
    """Returns the row that an event of the browser names, if it is one of `count`."""
    row = data.get("row") if isinstance(data, Mapping) else data
    return row if isinstance(row, int) and not isinstance(row, bool) and 0 <= row < count else None


def parse_number(value: Any, low: float, high: float) -> float | None:
    """Returns the number that a control of the browser sends, clamped to limits; None if it is not a number."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _HUGE
    return min(max(float(value), low), high) if is_number else None


def parse_move(data: Any, count: int) -> BoxMove | None:
    """Returns the move that an event of the browser describes, if it is valid and of one of `count` objects."""
    row = parse_row(data, count)
    if row is None or not isinstance(data, Mapping):
        return None
    numbers, sent = data.get("z_where"), parse_number(data.get("sent"), 0, _HUGE)
    if sent is None or not isinstance(numbers, list) or len(numbers) != 4:
        return None
    if not all(isinstance(number, (int, float)) and abs(number) < 10 for number in numbers):
        return None
    return BoxMove(row, torch.tensor(numbers, dtype=torch.float32), sent, data.get("last") is True)
