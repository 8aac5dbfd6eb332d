"""What the command line says, and how it ends: one line for what a user can mend, a traceback for bugs."""

from __future__ import annotations

import errno
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Protocol

import typer
from rich.console import Console
from typer.core import TyperGroup

from ssdir.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED, INTERRUPTED, InputError

_WHOLE_SENTENCE = 1000


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


def end_cleanly_when_terminated() -> None:
    """SIGTERM ends the command as Ctrl-C does, so that no unfinished output stays behind."""

    def interrupt(signum: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


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
    """Names of files may be any bytes: what is no text is escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def fail(text: str, code: int) -> NoReturn:
    """Ends the command with one line on stderr."""
    warn(text.replace("\n", " "))
    raise typer.Exit(code)


def next_step(*command: str | Path) -> None:
    """Suggests what to do next."""
    say(f"next: ssdir {shlex.join(str(part) for part in command)}")
