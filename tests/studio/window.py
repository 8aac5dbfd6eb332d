"""A page of the studio in a real browser, as tests use it."""

import os
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from studio.conftest import Running

CHROMIUM = Path("/usr/bin/chromium")
_REQUIRED = os.environ.get("SSDIR_REQUIRE_BROWSER") == "1"
needs_browser = [
    pytest.mark.slow,
    pytest.mark.skipif(not _REQUIRED and find_spec("playwright") is None, reason="browser tests need playwright"),
    pytest.mark.skipif(
        not CHROMIUM.exists() and not _REQUIRED,
        reason=f"no {CHROMIUM}: install chromium, or set SSDIR_REQUIRE_BROWSER=1 to fail without it",
    ),
]
"""Marks of tests that need a browser."""


class Window:
    """A page of the studio, which records its requests and the errors that it prints."""

    def __init__(self, browser: Any, running: Running, width: int = 1360) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900}, accept_downloads=True)
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda message: message.type == "error" and self.complaints.append(message.text))
        self.page.goto(running.address)
        self.page.wait_for_selector("#inspect-objects .card", timeout=60_000)

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()
        if name == "Edit":
            self.page.wait_for_selector("#edit-scene .box")

    def until(self, condition: str, value: Any = None) -> None:
        """Waits until a condition of JavaScript holds."""
        self.page.wait_for_function(condition, arg=value, timeout=30_000)

    def count(self, selector: str) -> int:
        number: int = self.page.locator(selector).count()
        return number

    def wait_count(self, selector: str, count: int) -> None:
        self.until("([s, n]) => document.querySelectorAll(s).length === n", [selector, count])

    def place(self, selector: str) -> dict[str, float]:
        """Returns where an element is, once it is there: a scene that is decoded again replaces its elements."""
        seen = "(s) => document.querySelector(s)?.getBoundingClientRect().toJSON()"
        place: dict[str, float] = self.page.wait_for_function(seen, arg=selector, timeout=30_000).json_value()
        return place

    def settle(self, selector: str) -> None:
        """Waits until an element stays where it is: what is above it may still grow."""
        place, since = self.place(selector), time.monotonic()
        while time.monotonic() - since < 1:
            self.page.wait_for_timeout(100)
            if (now := self.place(selector)) != place:
                place, since = now, time.monotonic()

    def wait_place(self, selector: str, x: float, y: float) -> None:
        """Waits until an element's corner is at a place, give or take two pixels."""
        rectangle = "const r = document.querySelector(s)?.getBoundingClientRect()"
        self.until(
            f"([s, x, y]) => {{ {rectangle}; return r && Math.hypot(r.x - x, r.y - y) < 2 }}", [selector, x, y]
        )

    def movable(self, dx: float, dy: float) -> int:
        """Returns the row of an object that nothing covers, and that can be dragged that far within the scene."""
        row: int = self.page.evaluate(
            """([dx, dy]) => {
                const scene = document.querySelector('#edit-scene img').getBoundingClientRect();
                const free = [...document.querySelectorAll('#edit-scene .box')].find((box) => {
                    const r = box.getBoundingClientRect();
                    const hit = document.elementFromPoint(r.x + r.width / 2, r.y + r.height / 2);
                    return hit.closest('.box') === box && r.left + dx > scene.left && r.right + dx < scene.right
                        && r.top + dy > scene.top && r.bottom + dy < scene.bottom;
                });
                return Number(free.dataset.row);
            }""",
            [dx, dy],
        )
        return row

    def reconstruction(self) -> str:
        source: str = self.page.locator("#edit-scene img").get_attribute("src")
        return source

    def wait_decoded(self, before: str) -> None:
        self.until("(b) => (document.querySelector('#edit-scene img')?.src ?? b) !== b", before)

    def save(self, kind: str) -> bytes:
        with self.page.expect_download(timeout=30_000) as download:
            self.page.click(f"#save-{kind}")
        return Path(download.value.path()).read_bytes()
