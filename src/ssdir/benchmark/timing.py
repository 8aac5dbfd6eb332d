"""Timing of variants side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping

from ssdir.config import Record
from ssdir.console import Advance, no_progress


class Spread(Record):
    """Median, smallest and largest of repeated measurements."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Summarises repeated measurements."""
        each = list(values)
        return cls(median=statistics.median(each), min=min(each), max=max(each))


def is_worse(now: Spread, before: Spread, *, low_is_good: bool = True) -> bool:
    """Returns True if every repeat is worse than all earlier ones, which is more than noise."""
    return now.min > before.max if low_is_good else now.max < before.min


def ratio(above: Iterable[float], below: Iterable[float]) -> Spread:
    """Ratios of repeats of the same round, so that what slowed both cancels."""
    return Spread.of(a / b for a, b in zip(above, below, strict=True))


def in_turn(
    variants: Mapping[str, Callable[[], object]],
    repeats: int,
    on_progress: Advance = no_progress,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Times each variant in seconds, after one call of each that is not counted.

    Variants take turns, so that whatever else the machine does falls on all of them.

    Args:
        variants: what to call, by name.
        repeats: how often each counts.
        on_progress: called with (rounds done, all rounds).
        clock: returns seconds; `time.process_time` counts the processor's, whatever else the machine does.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for done in range(repeats + 1):
        # Forwards, then backwards, so that no variant always follows the same other.
        for name in list(variants)[:: 1 if done % 2 else -1]:
            started = clock()
            variants[name]()
            if done:
                seconds[name].append(clock() - started)
        on_progress(done + 1, repeats + 1)
    return seconds
