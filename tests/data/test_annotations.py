"""Tests of the filters that keep part of an annotation table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ssdir.data.annotations import AnnotationTable, ignore_hidden, keep_readable
from ssdir.data.dataset import ObjectDataset, fingerprint
from ssdir.training.recipe import read_recipe

from .real import real_data

WIDERFACE, needs_widerface = real_data("widerface")


@pytest.fixture
def table() -> AnnotationTable:
    """Returns three images of 100 x 200: with a large and a small object, with a small one, and with a crowd."""
    return AnnotationTable(
        root=Path("data"),
        sources=(),
        category_names=["a", "b"],
        image_names=["one.png", "two.png", "three.png"],
        image_sizes=np.array([[200, 100]] * 3),
        image=np.array([1, 0, 0, 2]),
        category=np.array([0, 1, 0, 0]),
        # Of the small ones, one is too narrow, the other too low once it is clipped.
        boxes_px=np.array(
            [[10, 10, 13, 90], [50, 50, 70, 90], [10, -30, 60, 7], [0, 0, 99, 99]], dtype=np.float64
        ),
        ignored=np.array([False, False, False, True]),
        depth=np.array([0.5, 1.5, 2.5, 3.5]),
        attributes={"pose": np.array([3, 4, 5, 6])},
        mask_names=["m1", "m2", "m3"],
        mask_value=np.array([1, 1, 2, 1]),
    )


def test_objects_too_small_in_either_direction_go(table: AnnotationTable) -> None:
    kept = keep_readable(table, 0.04, drop_empty=False)
    assert kept.image_names == table.image_names
    assert kept.image.tolist() == [1, 0, 0, 2]
    assert kept.ignored.tolist() == [True, False, True, True]
    data = ObjectDataset(kept)
    assert [len(data.objects(i)) for i in range(3)] == [1, 0, 0]
    assert data.categories(0).tolist() == [1]
    assert data.attributes(0)["pose"].tolist() == [4]
    assert [len(data.ignored(i)) for i in range(3)] == [1, 1, 1]
    assert data.ignored(1).boxes.numpy() == pytest.approx(np.array([[0.1, 0.05, 0.13, 0.45]]))
    assert not keep_readable(table, 0.0, drop_empty=False).ignored[:3].any()


def test_what_is_too_small_does_not_change_what_a_run_was_trained_on(
    table: AnnotationTable, tmp_path: Path
) -> None:
    table = replace(table, root=tmp_path)
    for name in (*table.image_names, *(table.mask_names or ())):
        (tmp_path / name).touch()
    without = table.subset(np.array([1, 3]), np.arange(3))
    assert fingerprint(ObjectDataset(keep_readable(table, 0.04, drop_empty=False))) == fingerprint(
        ObjectDataset(without)
    )
    assert fingerprint(ObjectDataset(table)) != fingerprint(ObjectDataset(without))


def test_hidden_objects_of_clips_are_ignored_where_it_is_known_how_much_is_hidden(table: AnnotationTable) -> None:
    shown = replace(table, visible=np.array([0.05, 0.1, np.nan, 0.0]))
    assert ignore_hidden(shown) is shown
    assert ignore_hidden(table) is table
    kept = ignore_hidden(replace(shown, clip=np.array([0, 0, 1]), clip_names=["a", "b"]))
    assert kept.ignored.tolist() == [True, False, False, True]
    assert kept.unreadable is not None
    assert kept.unreadable.tolist() == [True, False, False, False]
    small = keep_readable(kept, 0.5, drop_empty=True)
    assert small.image_names == table.image_names
    assert small.unreadable is not None
    assert small.unreadable.tolist() == [True, True, True, False]


def test_images_left_without_objects_go_if_asked(table: AnnotationTable) -> None:
    kept = keep_readable(table, 0.04, drop_empty=True)
    assert (kept.image_names, kept.mask_names, kept.image.tolist()) == (["one.png"], ["m1"], [0, 0])
    assert kept.ignored.tolist() == [False, True]
    assert len(kept.image_sizes) == 1


def test_frames_of_clips_stay(table: AnnotationTable) -> None:
    clip = replace(table, clip=np.array([0, 0, 1]), clip_names=["a", "b"])
    kept = keep_readable(clip, 0.04, drop_empty=True)
    assert kept.image_names == table.image_names
    assert ObjectDataset(kept).clip_ranges == [range(2), range(2, 3)]
    assert ObjectDataset(table).clip_ranges == []


@needs_widerface
def test_the_papers_selection_of_faces() -> None:
    from ssdir.data.readers.registry import open_dataset

    recipe = read_recipe("paper-widerface")
    options = {"min_side": recipe.min_side, "drop_empty": recipe.drop_empty}
    data = open_dataset(WIDERFACE, "val", "object", **options)
    assert 0 < len(data) < 120
    for index in range(len(data)):
        z_where = data.objects(index).z_where
        assert len(z_where) > 0
        assert z_where[:, 2:].min() >= 0.04 - 1e-6
