"""What the command line says, and how it ends: one line for what a user can mend, a traceback for bugs."""

from __future__ import annotations

import errno
import io
import re
import shlex
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, NoReturn, Protocol, TypeVar

import typer
from rich.console import Console
from typer.core import TyperGroup

from ssdir.errors import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    INTERRUPTED,
    InputError,
    InputWarning,
    was_interrupted,
)
from ssdir.formatting import counted, printable

_WHOLE_SENTENCE = 1000
_MOST_WARNINGS = 10
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters other than tabs and line breaks."""
_SECONDS_UNTIL_SHOWN, _SECONDS_BETWEEN = 2.0, 0.2
_ITEMS_BETWEEN = 1000

T = TypeVar("T")


class FriendlyGroup(TyperGroup):
    """Turns what a user can mend into one line and an exit code; bugs keep their traceback.

    Its help has commands in sections, those that they are registered for as their `rich_help_panel`.
    """

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes the sections into the help."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            rows = sections.setdefault(command.rich_help_panel or "Commands", [])
            rows.append((name, command.get_short_help_str(_WHOLE_SENTENCE)))
        for section, rows in sections.items():
            with formatter.section(section):
                formatter.write_dl(rows)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command."""
        try:
            with warnings_as_lines():
                return super().invoke(ctx)
        except InputError as error:
            fail(f"error: {error}", EXIT_BAD_INPUT)
        except KeyboardInterrupt:
            fail(INTERRUPTED, EXIT_INTERRUPTED)
        except MemoryError:
            fail("error: out of memory: use smaller images or a smaller batch size", EXIT_FAILED)
        except OSError as error:
            if error.errno == errno.EPIPE:  # Typer ends quietly when the reader of a pipe is gone.
                raise
            where = f": '{error.filename}'" if error.filename else ""
            fail(f"error: {error.strerror or error}{where}", EXIT_FAILED)
        except RuntimeError as error:
            if was_interrupted(error):
                fail(INTERRUPTED, EXIT_INTERRUPTED)
            if type(error).__name__ != "OutOfMemoryError":
                raise
            fail("error: the accelerator is out of memory: use a smaller batch size", EXIT_FAILED)


def command_group(about: str, epilog: str | None = None) -> typer.Typer:
    """A group of commands whose help is plain text: importing what draws boxes takes longer than all the rest."""
    return typer.Typer(
        cls=FriendlyGroup,
        help=about,
        epilog=epilog,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Prints each `InputWarning` once, as a line on stderr; of many, the first and how many more there are."""
    usual, count, shown = warnings.showwarning, 0, set[str]()

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        nonlocal count
        if not issubclass(category, InputWarning):
            usual(message, category, *where, **more)
            return
        if str(message) in shown:  # Data may be opened more than once.
            return
        count += 1
        shown.add(str(message))
        if count <= _MOST_WARNINGS:
            warn(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", InputWarning)
        # Remarks on metadata that nothing here reads.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.showwarning = show
        try:
            yield
        finally:
            if count > _MOST_WARNINGS:
                warn(f"warning: {counted(count - _MOST_WARNINGS, 'more warning')} like these")


def end_cleanly_when_terminated() -> None:
    """SIGTERM ends the command as Ctrl-C does, so that no unfinished output stays behind."""

    def interrupt(signum: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def escape_what_streams_lack() -> None:
    """Characters that the terminal's encoding lacks are printed escaped, instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class Advance(Protocol):
    """Reports progress: how many are done, of how many, and at what."""

    def __call__(self, done: int, total: int, stage: str | None = None) -> None:
        """Without a stage, the former one goes on."""


@contextmanager
def progress(stage: str) -> Iterator[Advance]:
    """A bar on stderr; none where that is not a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(stage, total=None)

        def advance(done: int, total: int, stage: str | None = None) -> None:
            bar.update(task, completed=done, total=total, description=stage)

        yield advance


@contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """Opens a file to read its bytes. Where that takes long, stderr shows the share read, if it is a terminal.

    Raises:
        OSError: if it can't be opened, or is a pipe or a device, of which no end may ever come.
    """
    refuse_pipe(path)
    raw = _WatchedFile(path) if sys.stderr.isatty() else io.FileIO(path)
    try:
        with io.BufferedReader(raw) as file:
            yield file
    finally:
        if isinstance(raw, _WatchedFile):
            raw.line.clear()


def watched(items: Sequence[T], label: str) -> Iterator[T]:
    """Yields the items. Where that takes long, stderr shows the share that is done, if it is a terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    line, count = _ShareLine(label), max(len(items), 1)
    try:
        for done, item in enumerate(items):
            if done % _ITEMS_BETWEEN == 0:
                line.update(done / count)
            yield item
    finally:
        line.clear()


class _ShareLine:
    """A line on stderr that says, now and then, how much is done."""

    def __init__(self, label: str) -> None:
        self._label, self._shown = printable(label)[:70], ""
        self._next = time.monotonic() + _SECONDS_UNTIL_SHOWN

    def update(self, share: float) -> None:
        """Writes the line anew, if it is time."""
        if (now := time.monotonic()) >= self._next:
            self._next = now + _SECONDS_BETWEEN
            self._shown = f"{self._label}: {100 * share:.0f} %"
            sys.stderr.write(f"\r{self._shown}")
            sys.stderr.flush()

    def clear(self) -> None:
        """Takes the line away again."""
        if self._shown:
            sys.stderr.write(f"\r{' ' * len(self._shown)}\r")
            sys.stderr.flush()


def refuse_pipe(path: Path) -> None:
    """Raises OSError for a pipe or a device: whoever opens one may wait for ever."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "a pipe or a device, not a file", str(path))


class _WatchedFile(io.FileIO):
    """Writes to stderr, now and then, how much of the file has been read."""

    read = io.RawIOBase.read  # type: ignore[assignment]  # which calls `readinto`, as FileIO's does not
    readall = io.RawIOBase.readall

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._size = max(path.stat().st_size, 1)
        self.line = _ShareLine(f"reading {path.name}")

    def readinto(self, buffer: Any) -> int | None:
        count = super().readinto(buffer)
        self.line.update(self.tell() / self._size)
        return count


def stdout() -> Console:
    """Where results go."""
    return Console(highlight=False)


def say(text: str) -> None:
    """Prints a line of results, as it is."""
    stdout().print(_encodable(text), markup=False, soft_wrap=True)


def warn(text: str) -> None:
    """Prints a line to stderr, as it is."""
    Console(stderr=True, highlight=False).print(_encodable(text), markup=False, soft_wrap=True)


def _encodable(text: str) -> str:
    """Names of files may be any bytes: what is no text, or would steer the terminal, is escaped."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def fail(text: str, code: int) -> NoReturn:
    """Ends the command with one line on stderr."""
    warn(text.replace("\n", " "))
    raise typer.Exit(code)


def next_step(*command: str | Path) -> None:
    """Suggests what to do next."""
    say(f"next: ssdir {shlex.join(str(part) for part in command)}")
