"""What every command owes its user, held by a walk over the app: new commands are held to it too."""

import ast
import inspect
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from ssdir import errors
from ssdir.cli import app

ROOT: Any = get_command(app)


def commands(group: Any = ROOT, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = [pytest.param(path, command, id=" ".join(path)) for path, command in commands()]


@pytest.mark.parametrize(("path", "command"), COMMANDS)
def test_the_example_is_a_command_that_parses(path: tuple[str, ...], command: Any) -> None:
    example = (command.epilog or "").partition("Example: ")[2].splitlines()
    assert example, f"ssdir {' '.join(path)} has no example in its epilog"
    words = shlex.split(example[0])
    assert tuple(words[: len(path) + 1]) == ("ssdir", *path)
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    used = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert used <= known | {"--help"}
    command.make_context(path[-1], words[len(path) + 1 :])  # Raises where an argument is missing or wrong.


@pytest.mark.parametrize(("path", "command"), COMMANDS)
def test_every_command_and_option_says_what_it_is(path: tuple[str, ...], command: Any) -> None:
    assert command.help
    assert [parameter.name for parameter in command.params if not parameter.help] == []


@pytest.mark.parametrize(("path", "command"), COMMANDS)
def test_outputs_that_may_be_there_can_be_replaced(path: tuple[str, ...], command: Any) -> None:
    """An `--out` comes with `--force`, or the command goes on with what is there."""
    options = {option for parameter in command.params for option in parameter.opts}
    assert "--out" not in options or "--force" in options or path == ("reproduce",)


def calls_of(function: Any, seen: set[str] | None = None) -> set[str]:
    """Names of what a function calls, itself or by other functions of its module."""
    seen = set() if seen is None else seen
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    called = {
        node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    for name in called - seen:
        seen.add(name)
        other = function.__globals__.get(name)
        if inspect.isfunction(other) and other.__module__ == function.__module__:
            calls_of(other, seen)
    return seen


@pytest.mark.parametrize(("path", "command"), COMMANDS)
def test_what_prints_a_table_prints_json_too(path: tuple[str, ...], command: Any) -> None:
    options = {option for parameter in command.params for option in parameter.opts}
    assert "Table" not in calls_of(inspect.unwrap(command.callback)) or "--json" in options


NO_NEXT_STEP = {
    ("convert",): "what comes next is another tool's: it says how that reads the file",
    ("demo",): "the library, which runs it, says it (demo.py)",
    ("studio",): "it is where one looks, until it is closed",
}


@pytest.mark.parametrize(("path", "command"), COMMANDS)
def test_every_command_says_what_comes_next(path: tuple[str, ...], command: Any) -> None:
    assert ("next_step" in calls_of(inspect.unwrap(command.callback))) != (path in NO_NEXT_STEP)


def test_exit_codes_are_documented() -> None:
    page = (Path(__file__).parent.parent / "docs" / "interop.md").read_text(encoding="utf-8")
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert documented == {0, *codes}


def test_completion_can_be_shown() -> None:
    options = {option for parameter in ROOT.params for option in parameter.opts}
    assert {"--install-completion", "--show-completion"} <= options
