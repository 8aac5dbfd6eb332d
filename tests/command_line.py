"""Commands of ssdir, run within the test."""

from pathlib import Path

from typer.testing import CliRunner, Result

from ssdir.cli import app


def run(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def ok(*args: object) -> Result:
    """Runs a command that must succeed, and returns its result."""
    result = run(*args)
    assert result.exit_code == 0, result.output
    return result


def refused(*args: object) -> str:
    """Runs a command that must refuse its input, and returns the sentence that it prints."""
    result = run(*args)
    assert result.exit_code == 2, result.output
    line = result.stderr.strip()
    assert line.startswith("error: ")
    assert "\n" not in line
    return line


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
