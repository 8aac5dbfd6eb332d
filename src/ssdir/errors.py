"""Errors that a user caused and can mend, shown as one sentence, without a traceback; and how commands end."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ssdir.formatting import quote

EXIT_FAILED, EXIT_BAD_INPUT, EXIT_UNFINISHED, EXIT_INTERRUPTED = 1, 2, 3, 130
"""Documented for users in docs/interop.md."""

INTERRUPTED = "interrupted: no unfinished output was kept"


class InputError(ValueError):
    """Bad input from outside: says in one sentence what was wrong, where, and what to do."""


class MissingSplitError(InputError):
    """A split that a data set does not have, though it has others."""


class EmptySplitError(InputError):
    """A split that is there, but has no images."""


class InputWarning(UserWarning):
    """Something in the input was passed over, or may not be meant as it was read; commands print it as a line."""


def was_interrupted(error: BaseException) -> bool:
    """Whether an error is Ctrl-C, or was made of it: before Python 3.12, classes that are being made wrap it."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns ``"; did you mean 'x'?"`` for the closest known name, or ``""``."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {quote(matches[0])}?" if matches else ""
