"""Tests of the tab Clip in a browser: it plays a clip and follows an object without requests for frames."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import command_line
from ssdir.data.scatter.glyphs import load_glyphs
from studio.conftest import Running, start
from studio.window import Window, needs_browser

pytestmark = needs_browser

FRAMES, SIDE = 24, 40


def make_tracks(folder: Path) -> Path:
    """Encodes a clip in which one digit goes from left to right, and another one below it from right to left."""
    frames, glyphs = folder / "clip", load_glyphs("digits", "test").images
    frames.mkdir()
    rows: list[tuple[object, ...]] = [("image", "x1", "y1", "x2", "y2", "track_id", "visible")]
    for number in range(FRAMES):
        canvas = np.zeros((128, 128), dtype=np.uint8)
        for track, top, left in ((1, 10, 3 * number), (2, 70, 88 - 3 * number)):
            canvas[top : top + SIDE, left : left + SIDE] = cv2.resize(glyphs[track], (SIDE, SIDE))
            rows.append((f"{number:03d}.png", left, top, left + SIDE, top + SIDE, track, 0.9))
        Image.fromarray(canvas).convert("RGB").save(frames / f"{number:03d}.png")
    with (folder / "boxes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    out = folder / "tracks.parquet"
    command_line.ok("encode", "tiny-digits", frames, "--boxes", folder / "boxes.csv", "--out", out)
    return out


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("tracks")
    studio = start(folder, "tiny-digits", "--objects", str(make_tracks(folder)))
    yield studio
    studio.stop()


@pytest.fixture(params=[1280, 390])
def clip(browser: Any, tracking: Running, request: pytest.FixtureRequest) -> Iterator[Window]:
    window = Window(browser, tracking, request.param)
    window.tab("Clip")
    window.wait_count("#clip-tracks .card", 2)
    yield window
    assert window.complaints == []
    window.page.close()


def frame_shown(clip: Window) -> int:
    return int(clip.page.locator("#clip-player input[type=range]").input_value())


def test_a_clip_is_played_without_asking_for_frames(clip: Window) -> None:
    clip.wait_count("#clip-player .box", 4)  # two in the clip, two in what is decoded of it
    left = clip.place("#clip-player .box[data-track='1']")["x"]
    asked = len(clip.asked)
    clip.page.click("#clip-player .play")
    clip.until("() => Number(document.querySelector('#clip-player input').value) > 12")
    clip.page.click("#clip-player .play")
    stopped = frame_shown(clip)
    assert clip.place("#clip-player .box[data-track='1']")["x"] > left
    clip.page.wait_for_timeout(400)
    assert frame_shown(clip) == stopped
    own = ("data:", "blob:")
    # What the tab asked for before may still be answered: that is no question.
    questions = [url for url in clip.asked[asked:] if not url.startswith(own) and "/queue/data?" not in url]
    assert questions == []
    clip.page.locator("#clip-player input").fill("3")
    assert clip.page.locator("#clip-player .note").text_content() == "003.png (4 of 24)"
    wide = clip.page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0, "nothing is wider than the window"


def test_a_track_is_followed_through_its_views_and_on_the_map(clip: Window) -> None:
    clip.settle("#clip-player .box[data-track='2']")
    clip.page.locator("#clip-player .box[data-track='2']").first.click()
    clip.wait_count("#clip-views .card", 12)
    clip.wait_count("#clip-player .box.chosen[data-track='2']", 2)
    clip.wait_count("#clip-player .box.other[data-track='1']", 2)
    clip.wait_count("#clip-tracks .card.chosen", 1)
    assert "Track 2: 24 views" in (clip.page.locator("#clip-followed").text_content() or "")
    red = """() => {
        const canvas = document.querySelector('#clip-map .map-box > canvas');
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        let count = 0;
        for (let i = 0; i < data.length; i += 4)
            count += data[i] === 190 && data[i + 1] === 18 && data[i + 2] === 60;
        return count;
    }"""
    clip.until(f"() => ({red})() > 100")
    clip.page.locator("#clip-views .card").nth(11).click()
    clip.until("() => Number(document.querySelector('#clip-player input').value) === 23")
    clip.page.locator("#clip-tracks .card.chosen").click()  # followed no more
    clip.wait_count("#clip-views .card", 0)
    clip.until(f"() => ({red})() === 0")
    clip.wait_count("#clip-player .box.chosen", 0)


def test_without_tracks_the_tab_explains_how_to_make_some(browser: Any, running: Running) -> None:
    window = Window(browser, running)
    window.tab("Clip")
    window.page.get_by_text("ssdir track tiny-digits clip.mp4 --out tracks.parquet").wait_for()
    window.page.close()
