"""One view over many runs: which one, how far, and how long it all still takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from ssdir.console import Advance, say
from ssdir.plots import format_seconds


class Watch:
    """Says a line for each run, and on terminals shows two bars below: the run's, and that of all.

    What is left is guessed beforehand; how wrong the guesses are is learned from the runs that have ended.
    """

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._all = self._bars.add_task("all", total=None, note="")
        self._guesses: list[float] = []
        self._ended = 0
        self._spent = 0.0
        self._began = 0.0

    @contextmanager
    def over(self, guesses: list[float]) -> Iterator[None]:
        """A number of runs, with the seconds that each is guessed to take."""
        self._guesses = guesses
        self._bars.update(self._all, total=max(sum(guesses), 1e-9))
        with self._bars:
            yield

    @contextmanager
    def run(self, name: str) -> Iterator[None]:
        """One of the runs, in their order."""
        guess = self._guesses[self._ended]
        self._began = time.monotonic()
        if guess:
            left = format_seconds(self.left)
            say(f"[{self._ended + 1}/{len(self._guesses)}] {name}: about {format_seconds(guess)}; all: {left}")
        yield
        if guess:
            self._spent += time.monotonic() - self._began
        self._ended += 1
        self._show(0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[Advance]:
        """A part of a run."""
        task = self._bars.add_task(name, total=None, note="")

        def advance(done: int, total: int, stage: str | None = None) -> None:
            described = name if stage is None else f"{name}: {stage}"
            self._bars.update(task, completed=done, total=total, description=described)
            self._show(time.monotonic() - self._began)

        try:
            yield advance
        finally:
            self._bars.remove_task(TaskID(task))

    @property
    def left(self) -> float:
        """Seconds that the runs which have not ended are guessed to take."""
        guessed = sum(self._guesses[: self._ended])
        pace = self._spent / guessed if guessed else 1.0
        return pace * sum(self._guesses[self._ended :])

    def _show(self, running: float) -> None:
        done = sum(self._guesses[: self._ended]) + running
        left = format_seconds(max(self.left - running, 0.0))
        note = f"{self._ended} of {len(self._guesses)} runs; {left} left"
        self._bars.update(self._all, completed=done, note=note)
