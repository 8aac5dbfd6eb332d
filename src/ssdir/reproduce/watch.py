"""Shows progress over all jobs of a plan: the current job, and the remaining time of all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from ssdir.console import Advance, say
from ssdir.formatting import format_seconds


class Watch:
    """Prints a line for each job and, on terminals, shows two progress bars: of the job's stage and of all jobs.

    The remaining time is estimated beforehand, and corrected by the times of jobs that have ended.
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
        self._guesses: dict[str, float] = {}
        self._ended: list[str] = []
        self._spent = 0.0
        self._began = 0.0

    @contextmanager
    def over(self, guesses: dict[str, float]) -> Iterator[None]:
        """Shows progress over jobs, given by name with the seconds that each is guessed to take."""
        self._guesses, self._ended, self._spent = guesses, [], 0.0
        self._bars.update(self._all, total=max(sum(guesses.values()), 1e-9))
        with self._bars:
            yield

    @contextmanager
    def job(self, name: str) -> Iterator[None]:
        """Marks one of the jobs as running."""
        guess = self._guesses[name]
        self._began = time.monotonic()
        if guess:
            count = f"{len(self._ended) + 1}/{len(self._guesses)}"
            say(f"[{count}] {name}: about {format_seconds(guess)}; all: {format_seconds(self.left)}")
        yield
        if guess:
            self._spent += time.monotonic() - self._began
        self._ended.append(name)
        self._show(0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[Advance]:
        """Shows a stage of a job; yields what reports its progress."""
        task = self._bars.add_task(name, total=None, note="")

        def advance(done: int, total: int, stage: str | None = None) -> None:
            title = name if stage is None else f"{name}: {stage}"
            self._bars.update(task, completed=done, total=total, description=title)
            self._show(time.monotonic() - self._began)

        try:
            yield advance
        finally:
            self._bars.remove_task(TaskID(task))

    @property
    def left(self) -> float:
        """Estimate of the seconds that unfinished jobs take."""
        guessed = self._guessed_of_ended
        pace = self._spent / guessed if guessed else 1.0
        return pace * (sum(self._guesses.values()) - guessed)

    @property
    def _guessed_of_ended(self) -> float:
        return sum(self._guesses[name] for name in self._ended)

    def _show(self, running: float) -> None:
        done = self._guessed_of_ended + running
        left = format_seconds(max(self.left - running, 0.0))
        note = f"{len(self._ended)} of {len(self._guesses)}; {left} left"
        self._bars.update(self._all, completed=done, note=note)
