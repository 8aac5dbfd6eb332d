"""Tests of alternating timings, of ratios between them, of what counts as slower, and of peak memory."""

from __future__ import annotations

import torch

from ssdir.benchmark.memory import growth_in_fresh_process, peak_bytes
from ssdir.benchmark.timing import Spread, in_turn, is_worse, ratio


def test_variants_take_turns_in_both_directions() -> None:
    called: list[str] = []
    seconds = in_turn({name: lambda name=name: called.append(name) for name in "ab"}, 3)  # type: ignore[misc]
    assert "".join(called) == "ba" + "ab" + "ba" + "ab"
    assert [len(values) for values in seconds.values()] == [3, 3]


def test_seconds_are_those_of_the_clock() -> None:
    clock = iter(range(0, 100, 3)).__next__
    assert in_turn({"a": int}, 2, clock=clock) == {"a": [3, 3]}


def test_a_ratio_is_of_what_ran_in_the_same_round() -> None:
    assert ratio([2, 20, 6], [1, 10, 2]) == Spread(median=2, min=2, max=3)


def test_only_what_lies_beyond_every_former_repeat_is_worse() -> None:
    before = Spread(median=2, min=1, max=3)
    assert is_worse(Spread(median=4, min=3.1, max=5), before)
    assert not is_worse(Spread(median=4, min=2.9, max=5), before)
    assert is_worse(Spread(median=0.5, min=0.1, max=0.9), before, low_is_good=False)
    assert not is_worse(Spread(median=4, min=3.1, max=5), before, low_is_good=False)


def test_peak_bytes_are_those_alive_at_once() -> None:
    given = torch.zeros(1000)

    def one_after_another() -> None:
        for _ in range(5):
            torch.add(given, 1)

    def all_at_once() -> list[torch.Tensor]:
        return [torch.add(given, 1) for _ in range(5)]

    assert peak_bytes(one_after_another) == 4000
    assert peak_bytes(all_at_once) == 20000


def _allocate(megabytes: int) -> object:
    held = bytearray(b"x") * (megabytes * 2**20)

    def run() -> int:
        return len(bytearray(b"y") * (len(held) * 2))

    return run


def test_what_preparing_takes_is_not_counted() -> None:
    grown = growth_in_fresh_process(_allocate, 64)  # type: ignore[arg-type]
    assert 120 < grown < 140
