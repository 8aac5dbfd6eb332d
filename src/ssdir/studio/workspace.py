"""The state of one browser window: an image, what the model detected in it, and the edits since."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou

from ssdir.data.samples import NamedImage
from ssdir.inference.predictor import Predictor
from ssdir.objects import Objects
from ssdir.ops.boxes import to_xyxy
from ssdir.studio.images import EncodedImage, encode_image
from ssdir.studio.scene_editor import History

MAX_KEPT = 30
"""Most images that a window keeps open."""

_HUGE = 1e18


@dataclass(frozen=True, eq=False)
class BoxMove:
    """A box that the user has moved or resized.

    Attributes:
        row: row of the object.
        z_where: float (4,), the new box.
        sent: when the browser sent it, in its own milliseconds.
        last: False while a drag goes on.
        gesture: when the drag, or the key press, that it belongs to began.
    """

    row: int
    z_where: Tensor
    sent: float
    last: bool
    gesture: float


@dataclass(frozen=True, eq=False)
class Blend:
    """The blend of the selected object that the slider sets.

    Attributes:
        start: the scene before it.
        other: row of the object that the selected one is blended towards.
        share: the slider's value, the share of the other object.
    """

    start: Objects
    other: int
    share: float


@dataclass(eq=False)
class WindowState:
    """State that overlapping events of one window share, so that each starts from the result of the one before it.

    Attributes:
        lock: held during an edit.
        latest: the workspace after the last edit; None before the first image is open.
        moved_at: when the browser sent the last accepted move, in its own milliseconds.
        kept: the workspace of each image that was opened before, after its last edit, in the order of opening.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    latest: Workspace | None = None
    moved_at: float = 0
    kept: list[Workspace] = field(default_factory=list)

    @property
    def opened(self) -> list[Workspace]:
        """The workspaces of all images, each after its last edit."""
        latest = self.latest
        if latest is None:
            return self.kept
        known = [each.encoded for each in self.kept]
        others = [] if any(each is latest.encoded for each in known) else [latest]
        return [latest if each.encoded is latest.encoded else each for each in self.kept] + others

    def keep_opened(self) -> None:
        """Keeps what is open for later; of more than `MAX_KEPT` images, the first without edits is closed."""
        self.kept = self.opened
        if len(self.kept) > MAX_KEPT:
            self.kept.remove(next((each for each in self.kept if not each.is_edited), self.kept[0]))

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
        blend: the blend that led to the scene; None after any other edit, and where another object is selected.
        window: the state of the window, the same for all images and edits.
    """

    encoded: EncodedImage
    history: History
    inspected_row: int | None = None
    row: int | None = None
    blend: Blend | None = None
    window: WindowState = field(default_factory=WindowState, repr=False)

    @classmethod
    def open(cls, predictor: Predictor, named: NamedImage, before: Workspace | None = None) -> Workspace:
        """Opens an image and selects its first object; an image that was open before has kept its edits.

        Args:
            predictor: the model.
            named: the image.
            before: the window's workspace until now; edits of it that have begun are finished first.

        Raises:
            InputError: if the image's file can't be read.
        """
        window = WindowState() if before is None else before.window
        with window.lock:
            window.keep_opened()
            opened = next((each for each in window.kept if each.encoded.named.key == named.key), None)
            if opened is None:
                encoded = encode_image(predictor, named)
                first = 0 if len(encoded.objects) else None
                opened = cls(encoded, History.of(encoded.objects), first, first, window=window)
            window.latest = opened
        return opened

    def select_at(self, z_where: Tensor) -> Workspace:
        """Selects the detected object that overlaps a box, float (4,), the most; the first one if none does."""
        if not len(self.encoded.objects):
            return self
        with self.window.lock:
            overlaps = box_iou(to_xyxy(z_where[None]), self.encoded.objects.boxes)[0]
            row = int(overlaps.argmax())
            selected = replace(self, inspected_row=row, row=self.row if self.is_edited else row)
            self.window.latest = selected
        return selected

    def select(self, row: int) -> Workspace:
        """Selects an object of the edited scene."""
        return replace(self, row=row, blend=None)

    @property
    def latest(self) -> Workspace:
        """The workspace after the window's last edit, which the event at hand may not have seen."""
        return self.window.latest or self

    @property
    def is_edited(self) -> bool:
        """Whether the scene is no longer as detected."""
        return bool(self.history.past)

    @property
    def objects(self) -> Objects:
        """The edited scene."""
        return self.history.objects

    def edit(self, objects: Objects, title: str, row: int | None, gesture: Hashable = None) -> Workspace:
        """Returns the workspace after an edit, see `History.do`, with an object selected."""
        return self.with_history(self.history.do(objects, title, gesture), row)

    def with_history(self, history: History, row: int | None) -> Workspace:
        """Returns the workspace with another history; the selected row is limited to its objects."""
        count = len(history.objects)
        return replace(self, history=history, row=min(row or 0, count - 1) if count else None, blend=None)

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
    gesture = parse_number(data.get("gesture"), 0, _HUGE)
    if sent is None or gesture is None or not isinstance(numbers, list) or len(numbers) != 4:
        return None
    if not all(isinstance(number, (int, float)) and abs(number) < 10 for number in numbers):
        return None
    return BoxMove(row, torch.tensor(numbers, dtype=torch.float32), sent, data.get("last") is True, gesture)
