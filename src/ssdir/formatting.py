"""How numbers and values are written in sentences."""

from __future__ import annotations

import reprlib
from typing import Any

_QUOTED, _QUOTED_ERROR = 60, 200


def printable(text: str) -> str:
    """Text that any terminal and file can take: what is no Unicode character, or ends a line, is escaped."""
    encoded = text.encode("utf-8", "backslashreplace").decode()
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in encoded)


def quote(value: Any, limit: int = _QUOTED) -> str:
    """A value from outside as a sentence quotes it: text in quotation marks, shortened, and printable.

    Such as `'cat'`, `None` or `[1, 2, 3 … 7]`: of more than `limit` characters, beginning and end remain.
    """
    text = printable(f"'{value}'" if isinstance(value, str) else reprlib.repr(value))
    if len(text) <= limit:
        return text
    tail = limit // 4
    return f"{text[: limit - tail - 3]} … {text[-tail:]}"


def first_line(error: BaseException) -> str:
    """What a library's error says, as part of a sentence: its first line, printable, at most 200 characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return printable(lines[0])[:_QUOTED_ERROR].rstrip(".")


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Such as `1 image` or `1,200 images`; the plural has an s unless it is given."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def format_seconds(seconds: float) -> str:
    """Such as `3.2 s`, `48 s`, `4 min 31 s` or, from two hours on, `2 h 05 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds >= 7170:
        hours, minutes = divmod(round(seconds / 60), 60)
        return f"{hours} h {minutes:02d} min"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
