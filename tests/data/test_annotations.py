"""What is kept of a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssdir.data.annotations import AnnotationTable, keep_readable
from ssdir.data.dataset import ObjectDataset
from ssdir.training.recipe import read_recipe

from .real import real_data

WIDERFACE, needs_widerface = real_data("widerface")


@pytest.fixture
def table() -> AnnotationTable:
    """Three images of 100 x 200: of a large and a small object, of a small one alone, and of a crowd."""
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
    assert kept.image.tolist() == [0, 2]
    assert kept.category.tolist() == [1, 0]
    assert kept.depth is not None
    assert kept.depth.tolist() == [1.5, 3.5]
    assert kept.attributes is not None
    assert kept.attributes["pose"].tolist() == [4, 6]
    assert [len(ObjectDataset(kept).objects(i)) for i in range(3)] == [1, 0, 0]
    assert len(keep_readable(table, 0.0, drop_empty=False).image) == 4


def test_images_left_without_objects_go_if_asked(table: AnnotationTable) -> None:
    kept = keep_readable(table, 0.04, drop_empty=True)
    assert (kept.image_names, kept.mask_names, kept.image.tolist()) == (["one.png"], ["m1"], [0])
    assert len(kept.image_sizes) == 1


@needs_widerface
def test_the_papers_selection_of_faces() -> None:
    from ssdir.data.layouts import open_dataset

    recipe = read_recipe("paper-widerface")
    options = {"min_side": recipe.min_side, "drop_empty": recipe.drop_empty}
    data = open_dataset(WIDERFACE, "val", "object", **options)
    assert 0 < len(data) < 120
    for index in range(len(data)):
        z_where = data.objects(index).z_where
        assert len(z_where) > 0
        assert z_where[:, 2:].min() >= 0.04 - 1e-6
