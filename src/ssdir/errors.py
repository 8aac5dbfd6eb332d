"""Errors of users, shown as one sentence without a traceback, and the exit codes of commands."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ssdir.formatting import quote

EXIT_FAILED, EXIT_BAD_INPUT, EXIT_UNFINISHED, EXIT_INTERRUPTED = 1, 2, 3, 130
"""Exit codes of commands, documented in docs/interop.md."""

INTERRUPTED = "interrupted: no unfinished output was kept"


class InputError(ValueError):
    """Bad input, described in one sentence: what is wrong, where, and what to do."""


class UnreachableError(InputError):
    """A whole storage can't be used: unknown, not installed, not reachable, or without valid credentials."""


class MissingSplitError(InputError):
    """The data set does not have the split, but others."""


class EmptySplitError(InputError):
    """The split exists, but has no images."""


class InputWarning(UserWarning):
    """A part of the input was left out, or may mean something else than assumed; commands print a line."""


def was_interrupted(error: BaseException) -> bool:
    """Returns whether an error is Ctrl-C or wraps it: before Python 3.12, the creation of classes does."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


def nearest(name: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """Returns ``"; did you mean 'x'?"`` for the closest known name, or ``""`` if none is as alike as `cutoff`."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"; did you mean {quote(matches[0])}?" if matches else ""
