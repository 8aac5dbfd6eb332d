"""Fixtures that start the studio as users do: by its command, in a process of its own."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import ssdir
from ssdir.inference.predictor import Predictor

# Notes every address that the server's process connects to, then is the command.
_WATCHED = """
import os, socket, sys
import signal

from ssdir.cli import main

# A shell's background jobs ignore SIGINT, and those of nohup SIGHUP.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
real = socket.socket.connect
def connect(self, address):
    with open(os.environ["CONNECTIONS"], "a") as file:
        file.write(f"{address}\\n")
    return real(self, address)
socket.socket.connect = connect
main()
"""


@dataclass
class Running:
    """A running studio that answers requests."""

    address: str
    process: subprocess.Popen[str]
    connections: Path
    log: Path

    def uploads(self) -> list[Path]:
        """Returns the uploaded files."""
        return [path for path in self.log.parent.glob("ssdir-studio-*/**/*") if path.is_file()]

    def stop(self) -> str:
        """Stops the studio by Ctrl-C, and returns what it has printed."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=60)
        return self.log.read_text()


def start(folder: Path, *arguments: str) -> Running:
    connections = folder / "connections"
    connections.touch()
    command = [sys.executable, "-c", _WATCHED, "studio", *arguments, "--port", "0", "--no-browser"]
    source = str(Path(ssdir.__file__).parents[1])
    environment = {**os.environ, "CONNECTIONS": str(connections), "PYTHONPATH": source, "TMPDIR": str(folder)}
    log = folder / "log"
    # Prints go to a file, because a pipe that nobody reads would block the server once it is full.
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, text=True, env=environment, cwd=folder
        )
    while process.poll() is None:
        if started := re.search(r"studio: (http://127\.0\.0\.1:\d+).*studio is open", log.read_text(), re.DOTALL):
            return Running(started[1], process, connections, log)
        time.sleep(0.1)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    pytest.importorskip("gradio", reason="the studio needs gradio")
    studio = start(tmp_path_factory.mktemp("studio"), "tiny-digits")
    yield studio
    if studio.process.poll() is None:
        studio.stop()


@pytest.fixture(scope="module")  # Its event loop would keep later modules from running one of their own.
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def predictor() -> Predictor:
    return ssdir.load("tiny-mnist", "cpu")
