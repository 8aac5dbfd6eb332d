"""How numbers are told in sentences."""

from __future__ import annotations


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
