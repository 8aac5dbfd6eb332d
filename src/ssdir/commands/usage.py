"""Sentences about a command line that does not parse: what is wrong, where, and what to write instead."""

from __future__ import annotations

import re
from typing import Any

from ssdir.commands.suggestions import suggest_option
from ssdir.errors import nearest
from ssdir.formatting import alternatives, printable, quote
from ssdir.validation import requirement


def usage_sentence(error: Any) -> str:
    """Returns the sentence for one of Typer's usage errors."""
    command = error.ctx.command_path if error.ctx else "ssdir"
    see, parameter = f"; see {command} --help", getattr(error, "param", None)
    match type(error).__name__:
        case "NoSuchOption":
            known = [name for each in error.ctx.command.params for name in each.opts]
            hint = suggest_option(error.ctx.info_name, error.option_name, known) or see
            return f"{command} has no option {printable(error.option_name)}{hint}"
        case "MissingParameter" if parameter is not None:
            about = f": {parameter.help.rstrip('.')}" if parameter.help else ""
            return f"{command} needs {parameter_name(parameter)}{about} (see {command} --help)"
        case "BadOptionUsage":
            return f"{error.option_name} {'needs a value' if 'requires' in error.message else 'takes no value'}"
        case "BadParameter" if parameter is not None:
            return _wrong_value(parameter, error)
    message = error.format_message().rstrip(".")
    if extra := re.fullmatch(r"Got unexpected extra argument.* \((.*)\)", message):
        return f"{command} does not take {quote(extra[1])}{see}"
    return f"{command}: {message[:1].lower()}{message[1:]}{see}"


def parameter_name(parameter: Any) -> str:
    """Returns an option's name, or an argument's metavar."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    return str(next((name for name in parameter.opts if name.startswith("--")), parameter.opts[0]))


def _wrong_value(parameter: Any, error: Any) -> str:
    name, cause = parameter_name(parameter), error.__cause__
    if not hasattr(cause, "errors"):
        return f"{name}: {error.message.rstrip('.')}"
    first = cause.errors()[0]
    given = first["input"]
    if choices := parameter.type_descriptor.choices:
        return f"{name} must be {alternatives(choices)}, got {quote(given)}{nearest(str(given), choices)}"
    return f"{name} {requirement(first) or first['msg']}, got {quote(given)}"
