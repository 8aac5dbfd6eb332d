"""Tests of the studio in a real browser, which can reach nothing but this machine."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssdir.data.samples import sample_images, sample_photographs
from ssdir.store.objects_file import read_objects
from studio.conftest import Running
from studio.window import Window, needs_browser

pytestmark = needs_browser


@pytest.fixture
def window(browser: Any, running: Running) -> Iterator[Window]:
    window = Window(browser, running)
    yield window
    window.page.close()


def test_inspect_shows_what_was_detected_and_asks_nobody_else(window: Window, running: Running) -> None:
    num_objects = window.count("#inspect-input .box")
    assert num_objects > 1
    assert window.count("#inspect-reconstruction .box") == window.count("#inspect-objects .card") == num_objects
    assert window.count("#inspect-objects .card:first-child img") == 2, "appearance and opacity"
    window.page.locator("#inspect-objects .card").nth(1).click()
    window.wait_count("#inspect-input .box.chosen[data-row='1']", 1)
    window.page.locator("#samples .card").nth(5).click()
    window.until("() => document.querySelector('#inspect-input .note').textContent.startsWith('sample 6')")
    for tab in ("Edit", "Explore", "Compare", "Inspect"):
        window.tab(tab)
    elsewhere = [url for url in window.asked if not url.startswith((running.address, "data:", "blob:"))]
    assert elsewhere == []
    assert window.complaints == []
    assert [line for line in running.connections.read_text().splitlines() if "127.0.0.1" not in line] == []


def test_a_picture_of_one_s_own(window: Window, tmp_path: Path) -> None:
    sample = sample_images(8)[7].image
    Image.fromarray(np.hstack([sample, sample * 0])).save(tmp_path / "<b>mine.png")
    window.page.set_input_files("#upload input[type=file]", str(tmp_path / "<b>mine.png"))
    window.until("() => document.querySelector('#inspect-input .note').textContent.includes('mine.png')")
    assert window.count("#inspect-input .note b") == 0, "a file's name is text, not markup"
    frame = window.place("#inspect-input .frame")
    assert frame["width"] / frame["height"] == pytest.approx(2, rel=0.01)


def test_objects_are_dragged_and_edited_and_undone(window: Window) -> None:
    window.tab("Edit")
    num_objects = window.count("#edit-scene .box")
    first, page = window.reconstruction(), window.page
    window.settle("#edit-scene img")
    row = window.movable(-60, 40)
    box = f"#edit-scene .box[data-row='{row}']"
    start = window.place(box)
    x, y = start["x"] + start["width"] / 2, start["y"] + start["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 60, y + 40, steps=8)
    page.mouse.up()
    page.get_by_text(f"Moved object {row + 1}; 1 step to undo").wait_for(timeout=30_000)
    window.wait_place(box, start["x"] - 60, start["y"] + 40)
    window.wait_decoded(first)
    page.click("#edit-duplicate")
    window.wait_count("#edit-scene .box", num_objects + 1)
    page.locator("#edit-scene .box.chosen").focus()
    page.keyboard.press("Delete")
    window.wait_count("#edit-scene .box", num_objects)
    for left in ("2 steps", "1 step", "0 steps"):
        page.get_by_role("button", name="Undo").click()
        page.get_by_text(f"; {left} to undo").wait_for(timeout=30_000)
    window.until("(b) => document.querySelector('#edit-scene img')?.src === b", first)
    page.locator("button:disabled", has_text="Undo").wait_for(timeout=30_000)


def test_where_a_drag_or_keys_end_holds_however_late_the_answers_come(window: Window) -> None:
    window.tab("Edit")
    window.settle("#edit-scene img")
    row, page = window.movable(-60, 40), window.page
    box = f"#edit-scene .box[data-row='{row}']"
    start, side = window.place(box), window.place("#edit-scene img")["width"]
    network = page.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 500, "downloadThroughput": -1, "uploadThroughput": -1}
    places: list[dict[str, Any]] = []
    page.on(
        "request", lambda request: "z_where" in (request.post_data or "") and places.append(request.post_data_json)
    )
    network.send("Network.emulateNetworkConditions", slow)
    x, y = start["x"] + start["width"] / 2, start["y"] + start["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for step in range(1, 7):  # Over half a second: the first place is answered, and a later one is on its way.
        page.mouse.move(x - 10 * step, y + 40 / 6 * step)
        page.wait_for_timeout(150)
    page.mouse.up()
    page.evaluate(
        """(s) => {
            const look = () => window.seen.push(document.querySelector(s)?.getBoundingClientRect().toJSON());
            window.seen = [];
            setInterval(look, 20);
        }""",
        box,
    )
    for _ in range(3):
        page.locator(box).press("ArrowRight")
    page.wait_for_timeout(2500)
    end = {"x": start["x"] - 60 + 3 * side / 128, "y": start["y"] + 40}
    window.wait_place(box, end["x"], end["y"])
    for seen in page.evaluate("window.seen"):
        assert seen["x"] < end["x"] + 2, "the object never returns to an earlier place of the drag"
        assert abs(seen["y"] - end["y"]) < 2
    ends = [place["event_data"]["last"] for place in places]
    assert ends == [False] * (len(ends) - 4) + [True] * 4
    page.get_by_text(f"Moved object {row + 1}; 4 steps to undo").wait_for(timeout=30_000)
    scene = window.place("#edit-scene img")
    centre_x, centre_y, width, height = json.loads(window.save("JSON"))["objects"][row]["z_where"]
    assert scene["x"] + (centre_x - width / 2) * side == pytest.approx(end["x"], abs=2), "saved as shown"
    assert scene["y"] + (centre_y - height / 2) * side == pytest.approx(end["y"], abs=2)


def test_appearances_are_swapped_blended_and_changed(window: Window) -> None:
    window.tab("Edit")
    page = window.page
    slider = page.locator("#edit-component-1 input[type=range]")
    acts = {
        "Swapped objects 1 and 2; 1 step": lambda: page.click("#edit-swap"),
        "Blended object 1 with 2; 2 steps": lambda: page.locator("#edit-blend input[type=range]").fill("0.5"),
        "Changed components of object 1; 3 steps": lambda: slider.fill("-3"),
        "Changed components of object 1; 4 steps": lambda: page.locator("#edit-ends-2 .card").last.click(),
        "Brought object 1 to the front; 5 steps": lambda: page.click("#edit-front"),
    }
    for status, act in acts.items():
        act()
        page.get_by_text(status).wait_for(timeout=30_000)


def test_scenes_are_saved_as_they_are_shown(window: Window, tmp_path: Path) -> None:
    window.tab("Edit")
    shown = window.count("#edit-scene .box")
    window.page.click("#edit-remove")
    window.wait_count("#edit-scene .box", shown - 1)
    assert Image.open(io.BytesIO(window.save("PNG"))).size == (512, 512)
    (tmp_path / "scene.parquet").write_bytes(window.save("Parquet"))
    assert len(read_objects(tmp_path / "scene.parquet")[0]) == shown - 1
    assert len(json.loads(window.save("JSON"))["objects"]) == shown - 1


def test_explore_opens_the_neighbours_of_a_point_by_mouse_and_keyboard(window: Window) -> None:
    window.tab("Explore")
    canvas = window.page.locator("#explore-map .map-box > canvas")
    canvas.focus()
    window.page.keyboard.press("ArrowRight")
    assert window.page.locator("#explore-map .tip").is_visible()
    window.page.keyboard.press("Enter")
    window.wait_count("#explore-nearest .card", 12)
    first = window.page.locator("#explore-nearest .card").first
    assert "this object" in first.inner_text()
    titles = window.page.locator("#explore-nearest .card .title").all_inner_texts()
    assert first.locator(".mark").count() == 1
    window.page.select_option("#explore-map select", "size")
    assert window.count("#explore-map .ramp") == 1
    size = window.place("#explore-map .map-box > canvas")
    window.page.mouse.move(size["x"] + size["width"] / 2, size["y"] + size["height"] / 2)
    window.page.mouse.wheel(0, -2000)
    window.page.locator("#explore-nearest .card").nth(3).click()
    window.page.locator("#inspect-input .note", has_text=titles[3]).wait_for(timeout=30_000)
    assert window.page.locator("#inspect-input").is_visible(), "in the tab Inspect"


def test_compare_shows_two_models_on_the_same_picture(window: Window) -> None:
    window.tab("Compare")
    window.page.locator("#compare-summary strong").first.wait_for(timeout=30_000)
    both, first, second = (int(n) for n in window.page.locator("#compare-summary strong").all_inner_texts())
    assert both + first == window.count("#compare-first-detections .box")
    assert both + second == window.count("#compare-second-detections .box")
    assert "photos" in window.page.locator("#compare-second-detections .boxed-image-title").inner_text()


def test_a_narrow_window_needs_no_sideways_scrolling(browser: Any, running: Running) -> None:
    window = Window(browser, running, width=390)
    for tab in ("Inspect", "Edit", "Explore", "Compare"):
        window.tab(tab)
        assert window.page.evaluate("document.documentElement.scrollWidth") <= 390, tab
    assert window.place("#introduction")["width"] >= 350, "without wide margins"
    window.page.close()


def test_a_refused_upload_leaves_the_window_as_it_was(window: Window, tmp_path: Path) -> None:
    page, shown = window.page, window.count("#inspect-input .box")
    refusals = {"broken.png": "'broken.png' is not an image", "notes.txt": "'notes.txt' is not an image"}
    refusals["large.png"] = "exceed the maximum allowed size"
    for name, refusal in refusals.items():
        (tmp_path / name).write_bytes(b"no picture" if name != "large.png" else bytes(26 * 2**20))
        page.set_input_files("#upload input[type=file]", str(tmp_path / name))
        page.get_by_text(refusal).first.wait_for(timeout=30_000)
        page.locator(".toast-close").last.click()
    assert window.count("#inspect-input .box") == shown
    place = window.place("#upload")
    middle = [place["x"] + place["width"] / 2, place["y"] + place["height"] / 2]
    window.until("(at) => document.elementFromPoint(...at).closest('#upload button') !== null", middle)
    assert not any(each.is_visible() for each in page.get_by_text("Error", exact=True).all()), "no badges"
    Image.fromarray(sample_images(9)[8].image).save(tmp_path / "mine.png")
    page.set_input_files("#upload input[type=file]", str(tmp_path / "mine.png"))
    window.until("() => document.querySelector('#inspect-input .note').textContent.includes('mine.png')")


def test_an_image_unlike_the_training_data_is_reported(window: Window, tmp_path: Path) -> None:
    assert not window.page.locator("#inspect-warning").is_visible()
    Image.fromarray(sample_photographs(1)[0].image[:150]).save(tmp_path / "photograph.png")
    window.page.set_input_files("#upload input[type=file]", str(tmp_path / "photograph.png"))
    window.page.get_by_text("The image is unlike those that").wait_for(timeout=30_000)
    first, second = (window.place(f"#inspect-{part} .frame") for part in ("input", "reconstruction"))
    assert first["height"] >= 149, "a panorama is high enough to see"
    assert second["y"] > first["y"] + first["height"], "one above the other"


def test_edits_are_kept_while_another_sample_is_open(window: Window) -> None:
    page, num_objects = window.page, window.count("#inspect-input .box")
    window.tab("Edit")
    page.click("#edit-remove")
    window.wait_count("#edit-scene .box", num_objects - 1)
    page.locator("#samples .card").nth(1).click()
    page.get_by_text("As detected; 0 steps to undo").wait_for(timeout=30_000)
    assert "edited" in page.locator("#samples .card").first.inner_text()
    page.locator("#samples .card").first.click()
    page.get_by_text("Removed object 1; 1 step to undo").wait_for(timeout=30_000)
    assert window.count("#edit-scene .box") == num_objects - 1
