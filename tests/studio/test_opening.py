"""Tests of the page that is shown before the studio is open."""

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

pytest.importorskip("gradio", reason="the studio needs gradio")

from ssdir.errors import InputError
from ssdir.studio import server


def status_of(address: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def page(address: str) -> str:
    with urllib.request.urlopen(address, timeout=10) as answer:
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        text: str = answer.read().decode()
    return text


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_page_shows_what_is_being_loaded_and_why_it_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_SECONDS_TO_READ_FAILURE", 1.0)
    go_on, addresses, stages, failures = threading.Event(), list[str](), list[str](), list[Exception]()

    def open_app(uploads: Path, on_stage: Callable[[str], None]) -> NoReturn:
        assert uploads.is_dir()
        on_stage("loading <the model>")
        assert go_on.wait(10)
        raise InputError("no model of that name")

    def run() -> None:
        with server.listen(0) as listener:
            try:
                server.serve(open_app, listener, addresses.append, stages.append)
            except InputError as error:
                failures.append(error)

    serving = threading.Thread(target=run)
    serving.start()
    until(lambda: bool(addresses) and bool(stages))
    address = addresses[0]
    assert "loading &lt;the model&gt;" in page(address)
    assert status_of(f"{address}/config") == 503
    assert status_of(address, Host="evil.example") == 400
    go_on.set()
    until(lambda: "The studio was not opened: no model of that name" in page(address))
    serving.join(10)
    assert stages == ["loading <the model>"]
    assert [str(error) for error in failures] == ["no model of that name"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("stop", ["SIGTERM", "SIGHUP"])
def test_uploads_are_deleted_when_the_terminal_is_closed(stop: str, tmp_path: Path) -> None:
    code = (
        "import signal\n"
        "from starlette.applications import Starlette\n"
        "from ssdir.console import end_cleanly_when_terminated\n"
        "from ssdir.studio.server import listen, serve\n"
        f"signal.signal(signal.{stop}, signal.SIG_DFL)\n"  # nohup ignores SIGHUP.
        "end_cleanly_when_terminated()\n"
        "def open_app(uploads, on_stage):\n"
        "    (uploads / 'picture.png').touch()\n"
        "    return Starlette()\n"
        "with listen(0) as listener:\n"
        "    serve(open_app, listener, lambda address: None, lambda stage: print(stage, flush=True))\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert b"the studio is open" in process.stdout.readline()
        assert len(list(tmp_path.glob("ssdir-studio-*/picture.png"))) == 1
        process.send_signal(signal.Signals[stop])
        process.wait(60)
    assert not list(tmp_path.iterdir())
