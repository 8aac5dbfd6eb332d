import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssdir.objects import Objects
from ssdir.studio import scene_editor as edit
from ssdir.studio.scene_editor import DEPTH_STEP, MIN_EDITED_SIDE, History


def a_scene() -> Objects:
    """Returns objects of two images: 0 and 1 of the first, and 2, 3 and 4 of the second."""
    generator = torch.Generator().manual_seed(0)
    return Objects(
        image_index=torch.tensor([0, 0, 1, 1, 1]),
        batch_size=2,
        z_where=torch.tensor(
            [
                [0.3, 0.3, 0.2, 0.4],
                [0.7, 0.6, 0.2, 0.2],
                [0.5, 0.5, 0.3, 0.3],
                [0.2, 0.8, 0.1, 0.2],
                [0.9, 0.9, 0.2, 0.2],
            ]
        ),
        scores=torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5]),
        labels=torch.tensor([0, 1, 2, 3, 4]),
        z_what=torch.randn(5, 3, generator=generator),
        z_what_scale=torch.rand(5, 3, generator=generator),
        z_depth=torch.tensor([0.5, 2.0, -1.0, 3.0, 0.0]),
        anchor_index=torch.arange(5),
    )


def assert_others_unchanged(before: Objects, after: Objects, row: int, but: str) -> None:
    """Asserts that all fields are as before, except one field of one row."""
    for name, values in before._tensors().items():
        now = getattr(after, name)
        kept = torch.arange(len(before)) != row if name == but else slice(None)
        assert torch.equal(now[kept], values[kept]), name


def test_a_moved_object_keeps_its_size_and_stops_at_the_edge() -> None:
    scene = a_scene()
    moved = edit.move(scene, 1, 0.1, -0.2)
    assert moved.z_where[1].tolist() == pytest.approx([0.8, 0.4, 0.2, 0.2])
    assert_others_unchanged(scene, moved, 1, "z_where")
    far = edit.move(scene, 0, 5.0, -5.0)
    assert far.z_where[0].tolist() == pytest.approx([0.9, 0.2, 0.2, 0.4])
    assert scene.z_where[0].tolist() == pytest.approx([0.3, 0.3, 0.2, 0.4]), "the original is as it was"


def test_a_resized_object_keeps_its_proportions_even_at_the_limits() -> None:
    scene = a_scene()
    assert edit.scale(scene, 0, 1.5).z_where[0, 2:].tolist() == pytest.approx([0.3, 0.6])
    assert edit.scale(scene, 0, 100).z_where[0].tolist() == pytest.approx([0.3, 0.5, 0.5, 1.0])
    assert edit.scale(scene, 0, 1e-9).z_where[0, 2:].tolist() == pytest.approx(
        [MIN_EDITED_SIDE, 2 * MIN_EDITED_SIDE]
    )
    with pytest.raises(ValueError, match="factor must be > 0"):
        edit.scale(scene, 0, 0)


def test_an_object_smaller_than_the_least_side_keeps_its_size_until_it_is_enlarged() -> None:
    small = Objects(torch.zeros(1).long(), 1, torch.tensor([[0.5, 0.5, 0.01, 0.015]]))
    assert edit.move(small, 0, 0.1, 0).z_where[0].tolist() == pytest.approx([0.6, 0.5, 0.01, 0.015])
    assert edit.scale(small, 0, 0.5).z_where[0].tolist() == pytest.approx([0.5, 0.5, 0.01, 0.015])
    assert edit.scale(small, 0, 1.5).z_where[0].tolist() == pytest.approx([0.5, 0.5, 0.015, 0.0225])


@given(st.lists(st.floats(-3, 3, width=32), min_size=4, max_size=4), st.integers(0, 4))
def test_wherever_an_object_is_put_its_box_is_valid_and_inside(z_where: list[float], row: int) -> None:
    placed = edit.set_box(a_scene(), row, torch.tensor(z_where))
    low, high = (
        placed.z_where[row, :2] - placed.z_where[row, 2:] / 2,
        placed.z_where[row, :2] + placed.z_where[row, 2:] / 2,
    )
    assert bool((low >= -1e-6).all() and (high <= 1 + 1e-6).all())
    assert bool((placed.z_where[row, 2:] >= MIN_EDITED_SIDE - 1e-7).all())
    again = edit.set_box(placed, row, placed.z_where[row])
    torch.testing.assert_close(again.z_where, placed.z_where)


def test_placing_refuses_what_is_no_box() -> None:
    with pytest.raises(ValueError, match="four finite numbers"):
        edit.set_box(a_scene(), 0, torch.tensor([0.5, math.nan, 0.1, 0.1]))
    with pytest.raises(ValueError, match="four finite numbers"):
        edit.set_box(a_scene(), 0, torch.tensor([0.5, 0.5]))


def test_removing_leaves_the_others_in_order_and_an_image_may_become_empty() -> None:
    scene = edit.remove(a_scene(), 0)
    assert scene.labels is not None
    assert scene.labels.tolist() == [1, 2, 3, 4]
    scene = edit.remove(scene, 0)
    assert scene.counts.tolist() == [0, 3]


def test_a_copy_stands_beside_its_original_in_the_same_image() -> None:
    scene = edit.duplicate(a_scene(), 1)
    assert scene.image_index.tolist() == [0, 0, 0, 1, 1, 1]
    assert scene.z_what is not None
    assert torch.equal(scene.z_what[1], scene.z_what[2])
    assert (scene.z_where[2] - scene.z_where[1]).tolist() == pytest.approx([0.06, 0.06, 0, 0])
    at_the_corner = edit.duplicate(a_scene(), 4)
    assert (at_the_corner.z_where[5] - at_the_corner.z_where[4]).tolist() == pytest.approx([-0.06, -0.06, 0, 0])


def test_front_and_back_are_those_of_the_object_s_own_image() -> None:
    scene = a_scene()
    front = edit.restack(scene, 0, "front")
    assert front.z_depth is not None
    assert front.z_depth[0].item() == pytest.approx(2.0 + DEPTH_STEP)
    assert_others_unchanged(scene, front, 0, "z_depth")
    back = edit.restack(scene, 3, "back")
    assert back.z_depth is not None
    assert back.z_depth[3].item() == pytest.approx(-1.0 - DEPTH_STEP)
    alone = edit.remove(scene, 0)
    assert edit.restack(alone, 0, "front") is alone


def test_swapped_objects_change_looks_but_not_places() -> None:
    scene = a_scene()
    swapped = edit.swap_appearances(scene, 0, 3)
    assert scene.z_what is not None
    assert swapped.z_what is not None
    assert torch.equal(swapped.z_what[[0, 3]], scene.z_what[[3, 0]])
    assert swapped.labels is not None
    assert swapped.labels.tolist() == [3, 1, 2, 0, 4]
    assert torch.equal(swapped.z_where, scene.z_where)
    assert swapped.z_depth is scene.z_depth
    twice = edit.swap_appearances(swapped, 0, 3)
    assert_others_unchanged(scene, twice, 0, "")


def test_a_blend_lies_on_the_line_between_two_embeddings() -> None:
    scene = a_scene()
    assert scene.z_what is not None
    for share in (0.0, 0.25, 1.0):
        blended = edit.blend_appearance(scene, 2, 0, share)
        assert blended.z_what is not None
        torch.testing.assert_close(blended.z_what[2], (1 - share) * scene.z_what[2] + share * scene.z_what[0])
        assert_others_unchanged(scene, blended, 2, "z_what")
    with pytest.raises(ValueError, match="share must be within"):
        edit.blend_appearance(scene, 2, 0, 1.5)


def test_edits_name_the_missing_object_or_field() -> None:
    with pytest.raises(IndexError, match="no object 5: the scene has 5"):
        edit.remove(a_scene(), 5)
    with pytest.raises(IndexError):
        edit.move(a_scene(), -1, 0, 0)
    with pytest.raises(ValueError, match="need z_depth"):
        edit.restack(a_scene().replace(z_depth=None), 0, "front")
    with pytest.raises(ValueError, match=r"z_what must be \(3,\)"):
        edit.set_appearance(a_scene(), 0, torch.zeros(4))


def test_history_goes_back_and_forth_and_forgets_what_was_undone_before_a_new_edit() -> None:
    start = History.of(a_scene())
    first = start.do(edit.remove(start.objects, 0), "removed object 0")
    second = first.do(edit.remove(first.objects, 0), "removed object 0")
    assert second.undo().objects is first.objects
    assert second.undo().undo().objects is start.objects
    assert second.undo().undo().undo().objects is start.objects
    assert second.undo().redo().objects is second.objects
    assert second.redo() is second
    branch = second.undo().do(start.objects, "back to the start")
    assert branch.redo() is branch
    assert [step.title for step in branch.past] == ["as detected", "removed object 0"]


def test_history_keeps_no_more_than_its_limit() -> None:
    history = History.of(a_scene())
    for number in range(150):
        history = history.do(history.objects, f"edit {number}")
    assert len(history.past) == 100
    assert history.past[-1].title == "edit 148"


def test_each_drag_is_undone_at_once_and_alone() -> None:
    start = History.of(a_scene())
    dragged, after = start, []
    for gesture in (1, 2, 3):
        for _ in range(5):
            dragged = dragged.do(edit.move(dragged.objects, 0, 0.01, 0), "moved object 1", gesture)
        after.append(dragged.objects)
    assert dragged.objects.z_where[0, 0].item() == pytest.approx(0.45)
    assert dragged.undo().objects is after[1]
    assert dragged.undo().undo().undo().objects is start.objects
    ended = dragged.end_gesture()
    assert ended.objects is dragged.objects
    assert ended.do(edit.remove(ended.objects, 0), "moved object 1", 3).undo().objects is dragged.objects
