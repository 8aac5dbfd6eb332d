"""Formatting of numbers, names and values in sentences."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from typing import Any

_QUOTED, _QUOTED_ERROR = 60, 200
_BYTES = ("B", "kB", "MB", "GB", "TB", "PB")


def printable(text: str) -> str:
    """Escapes what not every terminal and file can take, such as line breaks and half surrogate pairs."""
    encoded = text.encode("utf-8", "backslashreplace").decode()
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in encoded)


def quote(value: Any, limit: int = _QUOTED) -> str:
    """Quotes a value in a sentence: `'cat'`, `None` or `[1, 2, 3 … 7]`.

    The result is printable; of more than `limit` characters, beginning and end remain.
    """
    text = printable(f"'{value}'" if isinstance(value, str) else reprlib.repr(value))
    if len(text) <= limit:
        return text
    tail = limit // 4
    return f"{text[: limit - tail - 3]} … {text[-tail:]}"


def first_line(error: BaseException) -> str:
    """Returns the first line of a library's error as part of a sentence, printable, at most 200 characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return printable(lines[0])[:_QUOTED_ERROR].rstrip(".")


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Returns text such as `1 image` or `1,200 images`; the plural has an s unless it is given."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def alternatives(names: Sequence[str]) -> str:
    """Returns text such as `cpu, cuda or mps`."""
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def format_seconds(seconds: float) -> str:
    """Returns text such as `3.2 s`, `48 s`, `4 min 31 s` or, from two hours on, `2 h 05 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds >= 7170:
        hours, minutes = divmod(round(seconds / 60), 60)
        return f"{hours} h {minutes:02d} min"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def about_seconds(seconds: float) -> str:
    """Returns an estimated time in few digits: `5 s`, `40 s`, `9 min` or, from 99.5 minutes on, `2.5 h`."""
    if seconds < 55:
        step = 5 if seconds < 27.5 else 10
        return f"{max(5, step * round(seconds / step))} s"
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 100 else f"{seconds / 3600:.1f} h"


def rounded(value: float, digits: int = 3) -> str:
    """Rounds to some significant digits: `0`, `0.0123`, `4.57`, `1,230,000`, `1.23e+12`."""
    if not value or value >= 1e12:
        return f"{value:.{digits}g}"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, decimals):,.{max(0, decimals)}f}"


def format_bytes(value: float) -> str:
    """Returns text such as `1.5 kB` or `640 GB`."""
    power = min(len(_BYTES) - 1, max(0, math.floor(math.log10(max(value, 1)) / 3)))
    return f"{rounded(value / 1000**power)} {_BYTES[power]}"
