"""Collects everything that is wrong with a data set, so that all of it can be corrected at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ssdir.errors import InputError

_MAX_NAMED = 10


class Faults:
    """The faults of a data set as sentences: the first ten are kept, and all are counted."""

    def __init__(self, where: str, of_one_file: bool = False) -> None:
        """Starts without faults.

        Args:
            where: name of the data set or file in messages.
            of_one_file: whether the sentences don't name `where`, so that a single one needs it in front.
        """
        self._where, self._of_one_file = where, of_one_file
        self._first: list[str] = []
        self._count = 0

    def add(self, sentence: str) -> None:
        """Adds a fault."""
        self._count += 1
        if len(self._first) < _MAX_NAMED:
            self._first.append(sentence)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Adds the `InputError` that is raised within the block, and goes on after it."""
        try:
            yield
        except InputError as error:
            self.add(str(error))

    def stop_at_any(self) -> None:
        """Raises all faults as one error, if there are any.

        Raises:
            InputError: that names up to ten faults, and counts the rest.
        """
        if self._count == 1:
            raise InputError(f"{self._where}: {self._first[0]}" if self._of_one_file else self._first[0])
        if self._count:
            more = self._count - len(self._first)
            rest = f"; and {more:,} more" if more else ""
            raise InputError(f"{self._where}: {self._count:,} faults: {'; '.join(self._first)}{rest}")


def note_if_any(what: str, cases: Sequence[str | Path]) -> list[str]:
    """Makes a note that counts cases and quotes the first; none where there are no cases."""
    return [f"{what}: {len(cases)} ('{cases[0]}')"] if cases else []
