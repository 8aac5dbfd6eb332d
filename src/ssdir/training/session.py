"""Sessions of a training: their progress, deadline and device."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ssdir.console import Advance, progress, warn

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total) as training proceeds."""


class OutOfTime(Exception):
    """A session stopped at its deadline; what it learned is kept, and the next goes on from there."""


@dataclass(frozen=True)
class Session:
    """Options of one session.

    Attributes:
        progress: called after every step, instead of a progress bar and lines on stderr.
        deadline: by `time.monotonic`, no epoch begins that would probably end after it. The first epoch of a
            session always runs, so each brings the training forward.
        device: where to train, see `choose_device`; None for the best there is.
        preview: file for the newest picture of reconstructions, besides those in the folder of the stage.
    """

    progress: Progress | None = None
    deadline: float | None = None
    device: str | None = None
    preview: Path | None = None

    @property
    def is_over(self) -> bool:
        """True once the deadline has passed."""
        return self.ends_within(0)

    def ends_within(self, seconds: float) -> bool:
        """Returns True if the deadline comes before so many seconds have passed."""
        return self.deadline is not None and time.monotonic() + seconds >= self.deadline

    @contextmanager
    def watching(self, what: str) -> Iterator[Advance]:
        """Yields what to call as something that takes a while proceeds."""
        if (report := self.progress) is not None:
            yield lambda done, total, stage=None: report(what, done, total)
            return
        with progress(what) as advance:
            yield advance

    def note(self, text: str) -> None:
        """Prints a line to stderr, unless the caller shows the progress."""
        if self.progress is None:
            warn(text)


UNWATCHED = Session()
"""Shows a progress bar, and takes all the time it needs."""
