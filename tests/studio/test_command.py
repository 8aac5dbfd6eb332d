import socket
import threading
import urllib.request
import webbrowser
from pathlib import Path
from typing import NoReturn

import pytest
from typer.testing import CliRunner

from ssdir.cli import app
from ssdir.errors import InputError
from ssdir.studio.studio import Studio

pytest.importorskip("gradio", reason="the studio needs gradio")


def fails(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["studio", *arguments, "--no-browser"])
    assert result.exit_code == 2, result.output
    return result.output


def test_a_busy_port_is_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        printed = fails("--port", str(port))
    assert printed.strip() == f"error: port {port} is in use: choose another with --port, or 0 for any free one"


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    assert "no-such-model" in fails("no-such-model", "--port", "0")
    assert "no-rival" in fails("--compare", "no-rival", "--port", "0")
    assert "does not exist" in fails("--objects", str(tmp_path / "none.parquet"), "--port", "0")


def test_a_browser_that_runs_in_the_terminal_does_not_hold_the_server_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The browser's page is opened only once the server answers it."""
    answers: list[bytes] = []
    answered = threading.Event()

    def browse(address: str) -> None:
        with urllib.request.urlopen(address, timeout=10) as answer:
            answers.append(answer.read())
        answered.set()

    def open_app(*given: object, **more: object) -> NoReturn:
        assert answered.wait(20)
        raise InputError("the end")

    monkeypatch.setattr(webbrowser, "open", browse)
    monkeypatch.setattr(Studio, "open", open_app)
    result = CliRunner().invoke(app, ["studio", "tiny-digits", "--port", "0"])
    assert "the end" in result.output
    assert len(answers) == 1


def test_it_cannot_be_shared() -> None:
    assert "has no option --share" in fails("--share")
