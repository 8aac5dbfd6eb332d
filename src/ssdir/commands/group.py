"""The group of commands and its commands: how help reads, and how a command ends when something is wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, get_args

import typer
from typer.core import TyperCommand, TyperGroup

from ssdir.commands.suggestions import suggest_command
from ssdir.commands.usage import usage_sentence
from ssdir.console import fail, warn, warnings_as_lines
from ssdir.errors import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    INTERRUPTED,
    InputError,
    was_interrupted,
)
from ssdir.formatting import quote

_WHOLE_SENTENCE = 1000
_METAVARS = {int: "N", float: "X", Path: "PATH", str: "TEXT"}
_USAGE_ERROR: Any = typer.BadParameter.__base__
"""Typer's error for a command line that does not parse, which it does not export."""


class PlainCommand(TyperCommand):
    """A command whose help names arguments and values as plainly as `PATH...` and `N`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for parameter in self.params:
            if parameter.metavar is None:
                parameter.metavar = _metavar(parameter)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Returns the parts of the line of usage."""
        required = [f"{each.opts[0]} {each.metavar}" for each in _options(self) if each.required]
        return [*(_argument_name(each) for each in _arguments(self)), *required, "[OPTIONS]"]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes arguments and options into the help."""
        if rows := [(_argument_name(each), each.help or "") for each in _arguments(self)]:
            with formatter.section("Arguments"):
                formatter.write_dl(rows)
        records = [each.get_help_record(ctx) for each in self.get_params(ctx) if each not in _arguments(self)]
        with formatter.section("Options"):
            formatter.write_dl([record for record in records if record is not None])


def _arguments(command: Any) -> list[Any]:
    return [each for each in command.params if each.param_type_name == "argument"]


def _options(command: Any) -> list[Any]:
    return [each for each in command.params if each.param_type_name == "option"]


def _argument_name(argument: Any) -> str:
    name = str(argument.metavar or argument.name.upper())
    return name if argument.required or name.startswith("[") else f"[{name}]"


def _metavar(parameter: Any) -> str | None:
    """Returns what stands for an option's value: its values, if it has a choice of them; None for a flag."""
    descriptor = parameter.type_descriptor
    if descriptor.is_choice:
        return "|".join(descriptor.choices)
    kinds = get_args(descriptor.annotation) or (descriptor.annotation,)
    return _METAVARS.get(kinds[0])


class PlainGroup(TyperGroup):
    """Turns errors that a user can mend into one line and an exit code; bugs keep their traceback.

    Its help shows commands in sections: the `rich_help_panel` that they are registered with.
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

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Finds the command; of one that does not exist, says what may be meant."""
        name = args[0]
        if name not in self.commands and not name.startswith("-") and not ctx.resilient_parsing:
            hint = suggest_command(name, self.commands) or f"; see {ctx.command_path} --help"
            raise InputError(f"{ctx.command_path} has no command {quote(name)}{hint}")
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **options: Any) -> Any:
        """Parses and runs; a command line that does not parse is answered with one line."""
        options["prog_name"] = "ssdir"  # also as `python -m ssdir`
        if not options.get("standalone_mode", True):
            return super().main(*args, **options)
        try:
            code = super().main(*args, **{**options, "standalone_mode": False})
        except _USAGE_ERROR as error:
            if type(error).__name__ == "NoArgsIsHelpError":
                typer.echo(error.format_message())
            else:
                warn(f"error: {usage_sentence(error)}")
            code = EXIT_BAD_INPUT
        except OSError as error:  # Typer itself ends quietly when the reader of a pipe is gone.
            where = f": '{error.filename}'" if error.filename else ""
            warn(f"error: {error.strerror or error}{where}".replace("\n", " "))
            code = EXIT_FAILED
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; an error that the user can mend is answered with one line."""
        try:
            with warnings_as_lines():
                return super().invoke(ctx)
        except InputError as error:
            fail(f"error: {error}", EXIT_BAD_INPUT)
        except KeyboardInterrupt:
            fail(INTERRUPTED, EXIT_INTERRUPTED)
        except MemoryError:
            fail("error: out of memory: use smaller images or a smaller batch size", EXIT_FAILED)
        except typer.Exit:  # A RuntimeError, with which a group within this one has ended.
            raise
        except RuntimeError as error:
            if was_interrupted(error):
                fail(INTERRUPTED, EXIT_INTERRUPTED)
            if type(error).__name__ != "OutOfMemoryError":
                raise
            fail("error: the accelerator is out of memory: use a smaller batch size", EXIT_FAILED)


def command_group(about: str, epilog: str | None = None) -> typer.Typer:
    """Returns a group of commands whose help is plain text: boxes around it would take long to import."""
    return typer.Typer(
        cls=PlainGroup,
        help=about,
        epilog=epilog,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
