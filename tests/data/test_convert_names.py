"""Converted data sets are read again, whatever the names of images and classes, and however small the boxes."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ssdir.data.annotations import AnnotationTable
from ssdir.data.readers.layout import Layout
from ssdir.data.readers.registry import find_layout, read_annotations
from ssdir.data.writers.convert import Target, convert
from ssdir.data.writers.copy_names import plain_text

WIDTH, HEIGHT = 60, 40

# What ends lines, quotes, comments or separates in some format; bytes that are no UTF-8; an accent in two ways.
ODD = " \n\r\t,;:'\"#%&<>[]{}-_.01aA\\\u00e9\u0301e\u2028\u00a0\ufeff\ufffe\x85\x1f\udc80\udcff\U0001f600"
stems = st.text(st.sampled_from(ODD), min_size=1, max_size=6) | st.sampled_from(["a 1", "n" * 240, "classes", " "])
file_names = st.builds(
    "".join, st.tuples(stems, st.sampled_from([".png", ".PNG", ".jpg", "", ".dat", ".p\n"]))
).filter(lambda name: name not in (".", "..") and len(os.fsencode(name)) <= 250)
labels = st.text(st.characters(exclude_categories=["Cs"]), max_size=5) | st.sampled_from(
    ["no", "010", "1.10", "null", "~", " a", "a ", "- b", "{", "a: b", "#c", "<d>", "", "\n", "x" * 200, "a  b"]
)
fractions = st.floats(0, 1) | st.sampled_from([0, 1, 0.5, 1e-6, 1 - 1e-6])
sizes = st.floats(1e-6, 1) | st.sampled_from([1, 0.25, 1e-6])


@st.composite
def tables(draw: st.DrawFn, root: Path) -> AnnotationTable:
    """Generates a table whose images differ in their content, with some names, classes and boxes."""
    names = draw(st.lists(file_names, min_size=1, max_size=5, unique=True))
    classes = draw(st.lists(labels, min_size=1, max_size=4, unique=True))
    objects = draw(
        st.lists(
            st.tuples(
                st.integers(0, len(names) - 1),
                st.integers(0, len(classes) - 1),
                st.tuples(fractions, fractions, sizes, sizes),
            ),
            max_size=6,
        )
    )
    boxes = [(x * (1 - w), y * (1 - h), x * (1 - w) + w, y * (1 - h) + h) for _, _, (x, y, w, h) in objects]
    return AnnotationTable(
        root=root,
        sources=(),
        category_names=classes,
        image_names=names,
        image_sizes=np.tile(np.array([[HEIGHT, WIDTH]]), (len(names), 1)),
        image=np.array([image for image, _, _ in objects], dtype=np.int64),
        category=np.array([category for _, category, _ in objects], dtype=np.int64),
        boxes_px=np.array(boxes, dtype=np.float64).reshape(-1, 4) * (WIDTH, HEIGHT, WIDTH, HEIGHT),
        ignored=np.zeros(len(objects), dtype=np.bool_),
    )


def picture(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (number, 0, 0)).save(file, "PNG")
    return file.getvalue()


def rows_of(table: AnnotationTable) -> dict[bytes, list[tuple[int, list[float]]]]:
    """Returns the class and box of each object, sorted, by its image's content."""
    rows: dict[bytes, list[tuple[int, list[float]]]] = {path.read_bytes(): [] for path in table.image_paths}
    for image, category, box in zip(table.image, table.category.tolist(), table.boxes_px.tolist(), strict=True):
        rows[table.image_paths[image].read_bytes()].append((category, box))
    return {content: sorted(values) for content, values in rows.items()}


def allowed_error(target: Target) -> float:
    """Returns the allowed error of a corner in pixels: VOC's corners are whole pixels, at least one apart."""
    return 1.0 if target == "voc" else 1e-5


@pytest.mark.parametrize("target", ["coco", "yolo", "voc"])
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_what_is_written_is_read_again(target: Target, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder) / "in", Path(folder) / "out"
        root.mkdir()
        table = data.draw(tables(root))
        for number, name in enumerate(table.image_names):
            Path(root, name).write_bytes(picture(number))
        source = Layout("made up", lambda _: True, lambda _: ["train"], lambda _, split: table)
        with mock.patch("ssdir.data.writers.convert.find_layout", return_value=source):
            done = convert(root, target, out)
        assert find_layout(out).splits(out) == ["train"]
        written = read_annotations(out, "train")
        assert written.notes == ()  # Nothing is passed over.
        assert done.images == {"train": len(table.image_names)}
        assert done.objects == {"train": len(written.image)}
        assert len(written.category_names) == len(table.category_names)
        for old, new in zip(table.category_names, written.category_names, strict=True):
            assert old == new or (target != "coco" and old != plain_text(old)) or not old
        left_out = sum(int(note.rpartition(": ")[2]) for note in done.notes if "left out" in note)
        assert len(written.image) == len(table.image) - left_out
        before, after = rows_of(table), rows_of(written)
        assert after.keys() == before.keys()
        for content, rows in after.items():
            for category, box in rows:
                near = [
                    1
                    for other, true in before[content]
                    if other == category and np.abs(np.subtract(true, box)).max() <= allowed_error(target)
                ]
                assert near, (box, before[content])


def test_changed_names_are_counted(tmp_path: Path) -> None:
    """Names change that collide, are no UTF-8, end with a blank, or lack an image's suffix."""
    names = ["plain.png", "trail .png", "b\udcff.png", "c.png", "C.png", "d.png", "d.jpg", "e.dat", ".hidden.png"]
    (tmp_path / "in").mkdir()
    for number, name in enumerate(names):
        Path(tmp_path / "in" / name).write_bytes(picture(number))
    table = AnnotationTable(
        root=tmp_path / "in",
        sources=(),
        category_names=["cat", "cat ", ""],
        image_names=names,
        image_sizes=np.array([[HEIGHT, WIDTH]] * len(names)),
        image=np.array([1]),
        category=np.array([1]),
        boxes_px=np.array([[1.0, 2, 30, 40]]),
        ignored=np.array([False]),
    )
    source = Layout("made up", lambda _: True, lambda _: ["train"], lambda _, split: table)
    with mock.patch("ssdir.data.writers.convert.find_layout", return_value=source):
        done = convert(tmp_path / "in", "voc", tmp_path / "out")
    written = read_annotations(tmp_path / "out", "train")
    assert [name.removeprefix("JPEGImages/") for name in written.image_names] == [
        "plain.png",
        "trail.png",
        "b_.png",
        "train_c.png",
        "train_C_2.png",
        "train_d.png",
        "train_d_2.jpg",
        "e.png",
        "hidden.png",
    ]
    assert written.category_names == ["cat", "cat 2", "class"]
    images, classes = done.notes
    assert images.startswith("images renamed")
    assert ": 8 ('trail .png' of train is 'trail.png')" in images
    assert classes.endswith(": 2 ('cat ' is 'cat 2')")
