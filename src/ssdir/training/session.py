"""How a session of a training is watched and ended; nothing here changes what is learned."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from ssdir.console import progress

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total) as training proceeds."""


class OutOfTime(Exception):
    """A session stopped at its deadline; what it learned is kept, and the next goes on from there."""


@dataclass(frozen=True)
class Session:
    """What a caller wants of one session.

    Attributes:
        progress: told of every step, instead of a progress bar.
        deadline: by `time.monotonic`, no epoch begins that would probably end after it. The first epoch of a
            session always runs, so each brings the training forward.
    """

    progress: Progress | None = None
    deadline: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    @contextmanager
    def watching(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """Something that takes a while: yields what to call with (done, total)."""
        if self.progress is not None:
            yield partial(self.progress, what)
            return
        with progress(what) as advance:
            yield advance

    def callbacks(self, stage: str) -> list[Callback]:
        """What Lightning needs for a stage."""
        callbacks: list[Callback] = []
        if self.progress is not None:
            callbacks.append(_Tell(stage, self.progress))
        if self.deadline is not None:
            callbacks.append(_StopInTime(self.deadline))
        return callbacks


UNWATCHED = Session()
"""Shows a progress bar, and takes all the time it needs."""


class _Tell(Callback):
    def __init__(self, stage: str, progress: Progress) -> None:
        self.stage, self.progress = stage, progress

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *args: Any
    ) -> None:
        batches, epochs = int(trainer.num_training_batches), trainer.max_epochs or 1
        batch = trainer.fit_loop.batch_idx + 1
        self.progress(self.stage, trainer.current_epoch * batches + batch, epochs * batches)


class _StopInTime(Callback):
    def __init__(self, deadline: float) -> None:
        self.deadline, self.longest = deadline, 0.0

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.started = time.monotonic()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        now = time.monotonic()
        self.longest = max(self.longest, now - self.started)
        if now + self.longest > self.deadline:
            trainer.should_stop = True
