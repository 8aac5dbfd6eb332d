"""The command line prints any text, and the share of a large file that has been read."""

from __future__ import annotations

import io
import itertools
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from ssdir import console
from ssdir.errors import InputWarning


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _slow_terminal(monkeypatch: pytest.MonkeyPatch) -> _Terminal:
    """Makes stderr a terminal on a machine where a second passes between any two readings of the clock."""
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr("tqdm.std.time", itertools.count().__next__)
    return terminal


def test_a_file_that_takes_long_shows_its_share_on_a_terminal_and_clears_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = _slow_terminal(monkeypatch)
    file = tmp_path / "scenes.json"
    file.write_text('{"scenes": [' + ", ".join(["1234567890"] * 10_000) + "]}")
    with console.reading(file) as opened:
        assert opened.read() == file.read_bytes()
    shown = terminal.getvalue().split("\r")
    shares = _shares(shown, "reading scenes.json")
    assert shares[0] < 50
    assert shares[-1] == 100
    assert shares == sorted(shares)
    assert set(shown[-2]) == {" "}
    assert shown[-1] == ""


def _shares(shown: list[str], label: str) -> list[int]:
    lines = [text.strip() for text in shown if text.strip()]
    return [int(text.removeprefix(f"{label}: ").removesuffix(" %")) for text in lines]


def test_a_quick_or_piped_reading_prints_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "scenes.json"
    file.write_text('{"scenes": [1, 2]}')
    for stream in (_Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", stream)
        with console.reading(file) as opened:
            assert opened.read() == file.read_bytes()
        assert stream.getvalue() == ""


def test_what_is_no_text_or_steers_the_terminal_is_printed_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("a\udcff \x1b[2J b\x07 ±\N{NO-BREAK SPACE}0")
    assert capsys.readouterr().out == "a\\udcff \\x1b[2J b\\x07 ±\N{NO-BREAK SPACE}0\n"


def test_a_stream_that_lacks_characters_gets_them_escaped() -> None:
    program = "from ssdir import console; console.escape_what_streams_lack(); print('π'); console.say('π')"
    command = [sys.executable, "-X", "utf8=0", "-c", program]
    done = subprocess.run(command, env={"PYTHONIOENCODING": "ascii"}, capture_output=True, check=True)
    assert done.stdout == b"\\u03c0\n\\u03c0\n"


def test_input_warnings_are_lines_and_many_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    with console.warnings_as_lines():
        for number in range(12):
            warnings.warn(f"picture {number} is dark", InputWarning, stacklevel=1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "warning: picture 0 is dark"
    assert lines[9:] == ["warning: picture 9 is dark", "warning: 2 more warnings like these"]
    with console.warnings_as_lines(), pytest.warns(DeprecationWarning, match="old"):
        warnings.warn("old", DeprecationWarning, stacklevel=1)


def test_what_takes_long_shows_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _slow_terminal(monkeypatch)
    assert list(console.watched(range(4000), "reading boxes")) == list(range(4000))
    shares = _shares(terminal.getvalue().split("\r"), "reading boxes")
    assert shares == sorted(shares)
    assert len(set(shares)) > 10
    assert terminal.getvalue().endswith(" \r")
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert list(console.watched([1], "reading boxes")) == [1]
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]
