"""Messages, warnings, tables and progress of the command line."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shlex
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, NoReturn, Protocol, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from ssdir.errors import InputWarning
from ssdir.formatting import counted, printable

_MOST_WARNINGS = 10
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters other than tabs and line breaks."""
_SECONDS_UNTIL_SHOWN = 2.0

T = TypeVar("T")


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Prints each `InputWarning` once, as a line on stderr; of many, the first and how many more there are."""
    usual, count, shown = warnings.showwarning, 0, set[str]()

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        nonlocal count
        if not issubclass(category, InputWarning):
            usual(message, category, *where, **more)
            return
        if str(message) in shown:  # Data may be opened, and warned of, more than once.
            return
        count += 1
        shown.add(str(message))
        if count <= _MOST_WARNINGS:
            warn(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", InputWarning)
        # Pillow remarks on metadata that nothing here reads.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.showwarning = show
        try:
            yield
        finally:
            if count > _MOST_WARNINGS:
                warn(f"warning: {counted(count - _MOST_WARNINGS, 'more warning')} like these")


def end_cleanly_when_terminated() -> None:
    """Lets SIGTERM and SIGHUP end the command as Ctrl-C does, so that no unfinished output stays behind.

    A closed terminal sends SIGHUP; under nohup, which ignores it, the command goes on.
    """

    def interrupt(signum: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, interrupt)


def escape_what_streams_lack() -> None:
    """Prints characters that the terminal's encoding lacks escaped, instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class Advance(Protocol):
    """Reports progress: how many are done, of how many, and what is being done."""

    def __call__(self, done: int, total: int, stage: str | None = None) -> None:
        """Reports; without a stage, the former one goes on."""


def no_progress(done: int, total: int, stage: str | None = None) -> None:
    """Reports nothing."""


@contextmanager
def progress(stage: str) -> Iterator[Advance]:
    """Shows a bar on stderr; none where that is not a terminal."""
    with _bar(stage, None, "{desc}: {bar} {n_fmt}/{total_fmt} [{remaining}]") as bar:

        def advance(done: int, total: int, stage: str | None = None) -> None:
            bar.total = total
            if stage is not None:
                bar.set_description_str(stage, refresh=False)
            bar.update(done - bar.n)

        yield advance


@contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """Opens a file to read its bytes. Where that takes long, stderr shows the share read, if it is a terminal.

    Raises:
        OSError: if it can't be opened, or is a pipe or a device, which may never end.
    """
    refuse_pipe(path)
    if not sys.stderr.isatty():
        with path.open("rb") as file:
            yield file
        return
    size = max(path.stat().st_size, 1)
    with _share(f"reading {path.name}", size) as bar, io.BufferedReader(_WatchedFile(path, bar)) as file:
        yield file


def watched(items: Sequence[T], label: str) -> Iterator[T]:
    """Yields the items. Where that takes long, stderr shows the share that is done, if it is a terminal."""
    with _share(label, len(items)) as bar:
        for item in items:
            yield item
            bar.update()


def _share(label: str, total: int) -> Any:
    return _bar(label, total, "{desc}: {percentage:.0f} %", _SECONDS_UNTIL_SHOWN)


def _bar(label: str, total: int | None, bar_format: str, delay: float = 0.0) -> Any:
    """Returns a bar on stderr, if that is a terminal; it disappears at its end."""
    from tqdm import tqdm

    hidden = not sys.stderr.isatty()
    return tqdm(
        None, printable(label)[:70], total, False, sys.stderr, bar_format=bar_format, delay=delay, disable=hidden
    )


class _WatchedFile(io.FileIO):
    """Tells a bar how much of the file has been read."""

    read = io.RawIOBase.read  # type: ignore[assignment]  # which calls `readinto`, as FileIO's does not
    readall = io.RawIOBase.readall

    def __init__(self, path: Path, bar: Any) -> None:
        super().__init__(path)
        self._bar = bar

    def readinto(self, buffer: Any) -> int | None:
        count = super().readinto(buffer)
        self._bar.update(self.tell() - self._bar.n)
        return count


def refuse_pipe(path: Path) -> None:
    """Raises OSError for a pipe or a device: whoever opens one may wait for ever."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "a pipe or a device, not a file", str(path))


def stdout() -> Console:
    """Returns the console that prints results."""
    return Console(highlight=False)


def print_table(headers: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """Prints a table of results: text as it is, floats to three decimals, columns of numbers flush right."""
    cells = [list(row) for row in rows]
    columns = []
    for number, name in enumerate(headers):
        is_numeric = bool(cells) and all(isinstance(row[number], (int, float)) for row in cells)
        columns.append(Column(name, justify="right" if is_numeric else "left"))
    table = Table(*columns, title=title and escape(_encodable(title)), title_justify="left")
    for row in cells:
        texts = [f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row]
        table.add_row(*(escape(_encodable(text)) for text in texts))
    stdout().print(table)


def print_json(value: object) -> None:
    """Prints results as JSON, whose numbers must be finite; paths are text."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False, default=os.fspath))


def say(text: str) -> None:
    """Prints a line of results, as it is."""
    stdout().print(_encodable(text), markup=False, soft_wrap=True)


def warn(text: str) -> None:
    """Prints a line to stderr, as it is."""
    Console(stderr=True, highlight=False).print(_encodable(text), markup=False, soft_wrap=True)


def _encodable(text: str) -> str:
    """Escapes what is no text or would steer the terminal: names of files may be any bytes."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def fail(text: str, code: int) -> NoReturn:
    """Ends the command with one line on stderr."""
    warn(text.replace("\n", " "))
    raise typer.Exit(code)


def next_step(*command: str | Path) -> None:
    """Suggests what to do next."""
    say(f"next: ssdir {shlex.join(str(part) for part in command)}")
