"""Overlapping events of one window are handled in order, each on the result of the one before."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from PIL import Image

gr = pytest.importorskip("gradio")


from ssdir.data.samples import sample_images  # noqa: E402
from ssdir.inference.predictor import load  # noqa: E402
from ssdir.objects import Objects  # noqa: E402
from ssdir.studio import components, scene_editor  # noqa: E402
from ssdir.studio.images import EncodedImage, read_shown  # noqa: E402
from ssdir.studio.scene_editor import History  # noqa: E402
from ssdir.studio.workspace import WindowState, Workspace, parse_move  # noqa: E402


@pytest.fixture
def window() -> Workspace:
    objects = Objects(torch.zeros(1, dtype=torch.int64), 1, torch.tensor([[0.5, 0.5, 0.2, 0.2]]))
    return Workspace(cast("EncodedImage", None), History.of(objects), row=0)


def shown(before: Workspace, after: Workspace) -> dict[str, Workspace]:
    return {"workspace": after}


def started(handler: Callable[..., Any], *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=handler, args=arguments)
    thread.start()
    return thread


def test_of_edits_that_overlap_none_is_lost(window: Workspace) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def move(now: Workspace) -> Workspace:
        begun.set()
        assert go_on.wait(10)
        moved = scene_editor.set_box(now.objects, 0, torch.tensor([0.3, 0.3, 0.2, 0.2]))
        return now.edit(moved, "moved", 0)

    def duplicate(now: Workspace) -> Workspace:
        return now.edit(scene_editor.duplicate(now.objects, 0), "duplicated", 1)

    first = started(components.edit_in_order(move, shown), window)
    assert begun.wait(10)
    second = started(components.edit_in_order(duplicate, shown), window)  # It began before the move was shown.
    second.join(0.2)
    assert second.is_alive(), "it waits for the move"
    go_on.set()
    first.join(10)
    second.join(10)
    seen: list[Workspace] = []
    components.when_open(seen.append)(window)
    assert [step.title for step in seen[0].history.past[1:]] == ["moved"]
    assert seen[0].history.present.title == "duplicated"
    assert len(seen[0].objects) == 2
    assert seen[0].objects.z_where[0].tolist() == pytest.approx([0.3, 0.3, 0.2, 0.2])


def test_an_edit_gone_wrong_is_none_and_holds_nobody_up(window: Workspace) -> None:
    def fail(now: Workspace) -> Workspace:
        raise ValueError("no such object")

    with pytest.raises(ValueError, match="no such object"):
        components.edit_in_order(fail, shown)(window)
    assert components.edit_in_order(lambda now: now, shown)(window) == {"workspace": window}


def test_a_move_of_a_drag_that_a_later_one_overtook_is_ignored() -> None:
    window, accepted = WindowState(), []
    for sent, last in ((100, False), (300, True), (200, False), (250, True), (400, False)):
        data = {"row": 0, "z_where": [0.5, 0.5, 0.1, 0.1], "sent": sent, "last": last, "gesture": 1}
        move = parse_move(data, 1)
        assert move is not None
        accepted.append(window.accepts(move))
    assert accepted == [True, True, False, True, True], "where a drag ends always counts"
    assert window.moved_at == 400


def test_an_edit_of_a_picture_that_is_no_longer_open_changes_nothing() -> None:
    predictor, (first, second) = load("tiny-digits", "cpu"), sample_images(2)
    before = Workspace.open(predictor, first)
    begun, go_on = threading.Event(), threading.Event()

    def remove(now: Workspace) -> Workspace:
        begun.set()
        assert go_on.wait(10)
        return now.edit(scene_editor.remove(now.objects, 0), "removed", 0)

    removing = components.edit_in_order(remove, shown)
    edit = started(removing, before)
    assert begun.wait(10)
    opening = started(Workspace.open, predictor, second, before)
    opening.join(1)
    assert opening.is_alive(), "the edit that had begun is made first"
    go_on.set()
    edit.join(10)
    opening.join(10)
    after = before.latest
    assert after.encoded.name == "sample 2"
    assert removing(before) == {"workspace": after}, "sent before the window showed the second"
    assert after.latest is after
    assert not after.history.past


def test_images_keep_their_edits_while_others_are_open() -> None:
    predictor, samples = load("tiny-digits", "cpu"), sample_images(3)
    now = first = Workspace.open(predictor, samples[0])
    remove = components.edit_in_order(
        lambda now: now.edit(scene_editor.remove(now.objects, 0), "removed", 0), lambda before, after: {"": after}
    )
    remove(now)
    now = Workspace.open(predictor, samples[1], now)
    assert not now.is_edited
    assert [each.encoded.name for each in now.window.opened] == ["sample 1", "sample 2"]
    assert [each.is_edited for each in now.window.opened] == [True, False]
    again = Workspace.open(predictor, samples[0], now)
    assert again.encoded is first.encoded
    assert len(again.objects) == len(first.objects) - 1
    assert [each.encoded.name for each in again.window.opened] == ["sample 1", "sample 2"]


def test_images_of_equal_pixels_are_images_of_their_own(tmp_path: Path) -> None:
    predictor, image = load("tiny-digits", "cpu"), sample_images(1)[0].image
    names, now = ["frame 0.png", "frame 1.png"], None
    for name in names:
        Image.fromarray(image).save(tmp_path / name)
        now = Workspace.open(predictor, read_shown(tmp_path / name, name), now)
        assert now.encoded.name == name
        assert not now.is_edited
        now.window.latest = now.edit(scene_editor.remove(now.objects, 0), "removed", 0)
    assert now is not None
    again = Workspace.open(predictor, read_shown(tmp_path / names[0], names[0]), now)
    assert again.is_edited
    assert [each.encoded.name for each in again.window.opened] == names


def test_of_very_many_images_the_first_without_edits_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssdir.studio.workspace.MAX_KEPT", 2)
    predictor, samples = load("tiny-digits", "cpu"), sample_images(4)
    now = Workspace.open(predictor, samples[0])
    now.window.latest = now.edit(scene_editor.remove(now.objects, 0), "removed", 0)
    for number in (1, 2, 3):
        now = Workspace.open(predictor, samples[number], now)
    assert [each.encoded.name for each in now.window.opened] == ["sample 1", "sample 3", "sample 4"]


def test_the_object_at_a_box_is_selected() -> None:
    predictor = load("tiny-digits", "cpu")
    opened = Workspace.open(predictor, sample_images(1)[0])
    for row in (0, len(opened.objects) - 1):
        selected = opened.select_at(opened.encoded.objects.z_where[row] + 0.01)
        assert (selected.inspected_row, selected.row) == (row, row)
        assert opened.window.latest is selected


@pytest.mark.parametrize("wrap", [components.when_open, lambda handler: components.edit_in_order(handler, shown)])
def test_before_a_picture_is_open_a_sentence_reports_it(wrap: Callable[..., Any]) -> None:
    with pytest.raises(gr.Error, match="still being opened"):
        wrap(lambda now: now)(None)
