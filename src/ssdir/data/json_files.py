"""Reading JSON files: whole, or, where they are larger than memory should hold, one by one."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import ijson

from ssdir.errors import InputError

_CHUNK = 1 << 12
_MAX_DEPTH = 1000
"""Brackets open at once. The parser's memory grows with the square of this, so a file of brackets takes all."""


def read_json(path: Path) -> Any:
    """Reads a file at once; one that begins with a byte order mark, as some editors write it, too.

    Raises:
        InputError: if the file can't be read, or isn't JSON; names the line of the mistake.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not valid JSON at line {error.lineno} ({error.msg})") from None
    except RecursionError:
        raise InputError(f"{path}: not valid JSON (lists within lists, too deep to read)") from None
    except OSError as error:
        raise InputError(f"{path}: not readable ({error.strerror})") from None
    except ValueError as error:  # bytes that are not UTF-8, numbers of too many digits
        raise InputError(f"{path}: not readable ({error})") from None


def stream_json(path: Path, prefix: str) -> Iterator[Any]:
    """Yields the values at `prefix`, such as "scenes.item" for the entries of a top-level list "scenes".

    Raises:
        InputError: if the file can't be read, or isn't JSON; names the line of the mistake.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
                file.seek(0)
            yield from ijson.items(_Shallow(file), prefix, use_float=True, buf_size=_CHUNK)
    except _TooDeepError:
        raise InputError(
            f"{path}: more than {_MAX_DEPTH} brackets are open at once, so it holds no annotations"
        ) from None
    except ijson.JSONError as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path}: not valid JSON at line {_line_of_mistake(path)} ({reason})") from None
    except OSError as error:
        raise InputError(f"{path}: not readable ({error.strerror})") from None


class _TooDeepError(Exception):
    """More brackets are open than any annotation has."""


class _Shallow:
    """Hands out a file as long as its brackets are not nested too deep.

    Those within strings count, too: they would have to be thousands, and of one kind, to matter.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.depth = 0

    def read(self, size: int) -> bytes:
        chunk = self.file.read(size)
        self.depth += sum(map(chunk.count, (b"[", b"{"))) - sum(map(chunk.count, (b"]", b"}")))
        if self.depth > _MAX_DEPTH:
            raise _TooDeepError
        return chunk


class _Counting:
    """Hands out a file in chunks up to `stop`, then byte by byte, and counts its lines."""

    def __init__(self, file: IO[bytes], stop: int) -> None:
        self.file, self.stop = file, stop
        self.lines = 1
        self.position = 0
        self.last = b""

    def read(self, size: int) -> bytes:
        if size == 0:  # The parser asks for nothing first, to see whether it gets bytes.
            return b""
        self.lines += self.last.count(b"\n")
        self.last = self.file.read(min(size, max(1, self.stop - self.position)))
        self.position += len(self.last)
        return self.last


def _line_of_mistake(path: Path) -> int:
    """Where the parser stops: first to within a chunk, then exactly."""
    stop = path.stat().st_size
    for _ in range(2):
        with path.open("rb") as file:
            counting = _Counting(file, stop)
            try:
                for _ in ijson.basic_parse(counting, buf_size=_CHUNK):
                    pass
            except ijson.JSONError:
                stop = max(0, counting.position - max(len(counting.last), 1))
    return counting.lines
