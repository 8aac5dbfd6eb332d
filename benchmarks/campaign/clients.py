"""The studio under eight clients at once: each opens its own picture, and gets what it would get alone."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

from campaign import samples
from campaign.runner import fresh

CLIENTS, ROUNDS = 8, 3
START_SECONDS, ANSWER_SECONDS = 120, 120


class Studio:
    """A studio in a process of its own, and a client that sends what the page sends."""

    def __init__(self, folder: Path, model: str) -> None:
        self.said, self.model = folder / "said", model
        command = [sys.executable, "-m", "ssdir", "studio", model, "--port", "0", "--no-browser"]
        with self.said.open("w") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=folder)
        self.address = self._wait_for_address()
        config = json.loads(self._get("/config"))
        files = {part["id"] for part in config["components"] if part["type"] == "file"}
        self.opening = next(each for each in config["dependencies"] if files & set(each["inputs"]))

    def _wait_for_address(self) -> str:
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self.process.poll() is None:
            said = self.said.read_text()
            if found := re.search(r"studio: (http://127\.0\.0\.1:\d+).*studio is open", said, re.DOTALL):
                return found[1]
            time.sleep(0.1)
        raise RuntimeError(f"the studio did not start: {self.said.read_text()[-500:]}")

    def _get(self, path: str, body: bytes | None = None, kind: str = "application/json") -> str:
        request = urllib.request.Request(self.address + path, body, {"Content-Type": kind})
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
            return str(answer.read().decode())

    def open_picture(self, png: bytes) -> str:
        """Uploads a picture and opens it; returns the pictures that are shown of it."""
        head = b'--limit\r\nContent-Disposition: form-data; name="files"; filename="picture.png"\r\n\r\n'
        body = head + png + b"\r\n--limit--\r\n"
        uploaded = json.loads(self._get("/gradio_api/upload", body, "multipart/form-data; boundary=limit"))[0]
        named = {"path": uploaded, "meta": {"_type": "gradio.FileData"}, "orig_name": "picture.png"}
        rest = [None] * (len(self.opening["inputs"]) - 1)
        session = uuid.uuid4().hex
        asked = {"data": [named, *rest], "fn_index": self.opening["id"], "session_hash": session}
        self._get("/gradio_api/queue/join", json.dumps(asked).encode())
        route = f"{self.address}/gradio_api/queue/data?session_hash={session}"
        said = ""
        with urllib.request.urlopen(route, timeout=ANSWER_SECONDS) as stream:
            for line in stream:
                said += line.decode()
                if "process_completed" in said or "unexpected_error" in said:
                    break
        return "".join(re.findall(r"data:image/[^\"\\]+", said))

    def close(self) -> str:
        """Presses Ctrl-C; returns what the studio said."""
        os.kill(self.process.pid, signal.SIGINT)
        self.process.wait(60)
        return self.said.read_text()


def try_clients(folder: Path, model: str = "tiny-digits") -> dict[str, Any]:
    """Opens a picture for each client alone, then for all at once, several times."""
    studio = Studio(fresh(folder / "studio"), model)
    pictures = []
    for number in range(CLIENTS):
        buffer = io.BytesIO()
        Image.fromarray(samples.pixels(100 + number)).save(buffer, "PNG")
        pictures.append(buffer.getvalue())
    alone = [studio.open_picture(png) for png in pictures]
    started = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        together = list(pool.map(studio.open_picture, pictures * ROUNDS))
    seconds = time.perf_counter() - started
    said = studio.close()
    return {
        "clients": CLIENTS,
        "requests": len(together),
        "distinct_alone": len(set(alone)),
        "answered_right": sum(
            bool(now) and now == before for now, before in zip(together, alone * ROUNDS, strict=True)
        ),
        "tracebacks": said.count("Traceback (most recent call last)"),
        "seconds": round(seconds, 1),
    }
