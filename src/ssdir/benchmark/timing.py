"""Times of what is measured side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Repeats of a measurement."""

    median: float
    min: float
    max: float


def spread(values: Iterable[float]) -> Spread:
    """The median, and the smallest and largest value."""
    each = list(values)
    return Spread(statistics.median(each), min(each), max(each))


def is_worse(now: Spread, before: Spread, *, low_is_good: bool = True) -> bool:
    """Whether every repeat lies on the worse side of all those before: more than noise."""
    return now.min > before.max if low_is_good else now.max < before.min


def ratio(above: Iterable[float], below: Iterable[float]) -> Spread:
    """Of the repeats' own ratios, so that what slowed both cancels."""
    return spread(a / b for a, b in zip(above, below, strict=True))


def in_turn(
    variants: Mapping[str, Callable[[], object]],
    repeats: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, list[float]]:
    """Seconds of each variant, after one call of each that is not counted.

    Variants take turns, so that whatever else the machine does falls on all of them.

    Args:
        variants: what to call, by name.
        repeats: how often each counts.
        on_progress: called with (rounds done, all rounds).
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for done in range(repeats + 1):
        # Forwards, then backwards: none always follows the same other.
        for name in list(variants)[:: 1 if done % 2 else -1]:
            started = time.perf_counter()
            variants[name]()
            if done:
                seconds[name].append(time.perf_counter() - started)
        if on_progress is not None:
            on_progress(done + 1, repeats + 1)
    return seconds
