"""Checks that hold for every command of the app, including commands that are added later."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from command_line import ok
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
def test_every_command_and_option_has_a_help_text(path: tuple[str, ...], command: Any) -> None:
    assert command.help
    assert [parameter.name for parameter in command.params if not parameter.help] == []


@pytest.mark.parametrize(("path", "command"), COMMANDS)
def test_every_device_is_named_alike(path: tuple[str, ...], command: Any) -> None:
    assert {each.metavar for each in command.params if each.name == "device"} <= {"DEVICE"}


@pytest.mark.parametrize(("path", "command"), COMMANDS)
def test_outputs_that_may_be_there_can_be_replaced(path: tuple[str, ...], command: Any) -> None:
    """A command with `--out` has `--force`, too, or continues existing outputs."""
    options = {option for parameter in command.params for option in parameter.opts}
    assert "--out" not in options or "--force" in options or path == ("reproduce",)


@pytest.fixture
def work(tmp_path: Path, tiny_model_dir: Path, photos: Path) -> Path:
    """Returns a folder with a file of objects, and an index and a classifier of them."""
    ok("encode", tiny_model_dir, photos, "--out", tmp_path / "objects.parquet", "--score-threshold", 0.7)
    ok("index", tmp_path / "objects.parquet", "--out", tmp_path / "index")
    (tmp_path / "labels.csv").write_text("row,label\n0,a\n1,b\n2,a\n")
    fit = ["--labels", tmp_path / "labels.csv", "--out", tmp_path / "classifier.json"]
    ok("classify", "fit", tmp_path / "objects.parquet", *fit)
    return tmp_path


PRINTS_JSON = [
    "models",
    "search {work}/index --row 0",
    "cluster {work}/objects.parquet -k 2 --out {work}/out.csv",
    "outliers {work}/objects.parquet --out {work}/out.csv",
    "classify fit {work}/objects.parquet --labels {work}/labels.csv --out {work}/out.json",
    "classify predict {work}/classifier.json {work}/objects.parquet --out {work}/out.csv",
    "index {work}/objects.parquet --out {work}/again",
    "encode tiny-digits {work}/photos --out {work}/out.parquet --device cpu",
    "reconstruct tiny-digits {work}/photos --out {work}/out.png",
    "convert {work}/objects.parquet --to npz --out {work}/out.npz",
    "data scatter --out {work}/data --canvas 64 --train 2 --val 1 --test 1 --grids 2",
]
"""Of data convert, data unpack, data check, train, evaluate, export and bench, their own tests read the JSON."""


@pytest.mark.parametrize(("path", "command"), COMMANDS)
def test_every_command_that_reports_can_print_json(path: tuple[str, ...], command: Any) -> None:
    options = {option for parameter in command.params for option in parameter.opts}
    assert "--json" in options or path in {("studio",), ("demo",)}


@pytest.mark.parametrize("command", PRINTS_JSON)
def test_with_json_a_command_prints_json_alone(command: str, work: Path) -> None:
    assert json.loads(ok(*command.format(work=work).split(), "--json").stdout)


@pytest.mark.parametrize("command", PRINTS_JSON)
def test_the_last_line_suggests_a_next_command_that_parses(command: str, work: Path) -> None:
    last = ok(*command.format(work=work).split()).stdout.splitlines()[-1]
    assert last.startswith("next: ")
    if last.startswith("next: ssdir "):
        name, *arguments = shlex.split(last.removeprefix("next: ssdir "))
        ROOT.commands[name].make_context(name, arguments)


def test_exit_codes_are_documented() -> None:
    page = (Path(__file__).parent.parent / "docs" / "interop.md").read_text(encoding="utf-8")
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    exit_codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert documented == {0, *exit_codes}


def test_completion_can_be_shown() -> None:
    options = {option for parameter in ROOT.params for option in parameter.opts}
    assert {"--install-completion", "--show-completion"} <= options
