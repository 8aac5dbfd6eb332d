"""Measures an edit in the studio, from the key or the slider to the new reconstruction, in a real browser.

It needs Debian's chromium and playwright. The studio runs in a process of its own, as users start it, with the
shipped `tiny-mnist` and the first sample image.

Run: python benchmarks/studio.py --out results/bench/studio.json
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ssdir.benchmark.timing import Spread
from ssdir.evaluation.provenance import provenance
from ssdir.outputs import atomic_file, claim

CHROMIUM, MODEL = "/usr/bin/chromium", "tiny-mnist"
REPEATS, WARM_UP, GOAL = 30, 3, 0.150

# Resolves with the milliseconds from the act to a new reconstruction.
UNTIL_DECODED = """
([act, value]) => new Promise((done) => {
  const picture = () => document.querySelector('#edit-scene img')?.src
  const before = picture(), started = performance.now()
  const observer = new MutationObserver(() => {
    if (picture() && picture() !== before) { observer.disconnect(); done(performance.now() - started) }
  })
  observer.observe(document.querySelector('#edit-scene'), {subtree: true, childList: true, attributes: true})
  if (act === 'move') {
    const key = new KeyboardEvent('keydown', {key: value, bubbles: true})
    document.querySelector('#edit-scene .box.chosen').dispatchEvent(key)
  } else {
    const slider = document.querySelector('#edit-component-1 input[type=range]')
    slider.value = value
    slider.dispatchEvent(new Event('input', {bubbles: true}))
  }
})
"""


@contextmanager
def running_studio() -> Iterator[str]:
    """Starts a studio and yields its address."""
    call = "from ssdir.cli import main; main()"
    command = [sys.executable, "-u", "-c", call, "studio", MODEL, "--port", "0", "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        said = ""
        for line in process.stdout:
            said += line
            if match := re.search(r"studio: (http://127\.0\.0\.1:\d+).*studio is open", said, re.DOTALL):
                yield match[1]
                return
        raise RuntimeError("the studio ended before it answered")
    finally:
        process.terminate()
        process.wait()


def seconds_of(page: Any, act: str, values: tuple[str, str]) -> list[float]:
    """Returns the seconds of each edit; values alternate, so that each edit changes the scene."""
    seconds = []
    for number in range(WARM_UP + REPEATS):
        seconds.append(page.evaluate(UNTIL_DECODED, [act, values[number % 2]]) / 1000)
        page.wait_for_timeout(150)
    return seconds[WARM_UP:]


def measure() -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    with running_studio() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1360, "height": 900})
        page.goto(address)
        page.wait_for_selector("#inspect-objects .card", timeout=60_000)
        page.get_by_role("tab", name="Edit").click()
        page.wait_for_selector("#edit-scene .box.chosen")
        objects = page.locator("#edit-scene .box").count()
        edits = {
            "move": seconds_of(page, "move", ("ArrowRight", "ArrowLeft")),
            "slider": seconds_of(page, "slider", ("2", "-2")),
        }
        browser.close()
    records = [
        {
            "act": act,
            "seconds": Spread.of(values).model_dump(),
            "goal": GOAL,
            "met": Spread.of(values).median <= GOAL,
        }
        for act, values in edits.items()
    ]
    return {"objects": objects, "records": records}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--force", action="store_true")
    arguments = parser.parse_args()
    claim(arguments.out, arguments.force)
    started = time.perf_counter()
    content = measure()
    config = {"model": MODEL, "repeats": REPEATS, "threads": torch.get_num_threads()}
    content["provenance"] = provenance(config, 0, None, "cpu", time.perf_counter() - started)
    with atomic_file(arguments.out, arguments.force) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(content["records"], indent=2))


if __name__ == "__main__":
    main()
