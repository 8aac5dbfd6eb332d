"""Boxes of segmentations equal those computed by hand and by pycocotools."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from ssdir.data.readers.coco.outlines import outline_box


def test_the_box_of_polygons_holds_all_of_them() -> None:
    assert outline_box(b"[[10, 8, 40, 8, 40, 28.5]]") == (10, 8, 40, 28.5)
    assert outline_box(b"[[10, 8, 40, 8, 40, 28], [2, 9, 3, 9, 3, 30]]") == (2, 8, 40, 30)


def test_runs_go_down_the_columns() -> None:
    # 4 rows: column 1 has rows 1 and 2.
    assert outline_box(b'{"size": [4, 3], "counts": [5, 2, 5]}') == (1, 1, 2, 3)
    # From row 3 of column 0 to row 0 of column 1.
    assert outline_box(b'{"size": [4, 3], "counts": [3, 2, 7]}') == (0, 0, 2, 4)
    assert outline_box(b'{"size": [4, 3], "counts": [0, 1]}') == (0, 0, 1, 1)


@given(arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.integers(0, 1)))
def test_masks_have_the_boxes_of_their_pixels(mask: np.ndarray) -> None:
    compressed = coco_mask.encode(np.asfortranarray(mask))
    text = json.dumps({"size": list(mask.shape), "counts": compressed["counts"].decode()})
    if not mask.any():
        with pytest.raises(ValueError, match="no pixels"):
            outline_box(text)
        return
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    assert outline_box(text) == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "[[1, 2, 3, 4]]",
        "[[1, 2, 3, 4, 5, 6, 7]]",
        '[["1", 2, 3, 4, 5, 6]]',
        "null",
        "{}",
        '{"size": [4, 3], "counts": [5, 20]}',
        '{"size": [4, 3], "counts": [-5, 2]}',
        '{"size": [0, 3], "counts": []}',
        '{"size": [4, 3], "counts": "é"}',
        '{"size": [4, 3], "counts": "o"}',
        '{"size": [4, 3], "counts": "oooooooooooooooooooo"}',
    ],
)
def test_what_is_no_outline_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        outline_box(text)
