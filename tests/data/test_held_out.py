"""Splits are recognised by their usual names, and a validation split is held out where there is none."""

from __future__ import annotations

import json
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from ssdir.data.annotations import AnnotationTable
from ssdir.data.readers.registry import find_layout, open_dataset, read_annotations
from ssdir.data.readers.splits import divide
from ssdir.data_check.check import check_data
from ssdir.data_check.report import screen_lines
from ssdir.errors import InputError

from .every_layout import every_layout, write_as_coco, write_as_yolo


def boxes_by_image(table: AnnotationTable) -> dict[str, list[list[float]]]:
    boxes: dict[str, list[list[float]]] = {name: [] for name in table.image_names}
    for image, box in zip(table.image, table.boxes_px, strict=True):
        boxes[table.image_names[image]].append(box.tolist())
    return boxes


@every_layout
def test_training_holds_out_a_tenth_where_there_is_no_val(write: Callable[[Path], Path], tmp_path: Path) -> None:
    write(tmp_path / "data")
    layout = find_layout(tmp_path / "data")
    whole = layout.read(tmp_path / "data", "train")
    train, val = (layout.read_for_training(tmp_path / "data", split) for split in ("train", "val"))
    assert (len(train.image_names), len(val.image_names)) == (3, 1)
    assert {**boxes_by_image(train), **boxes_by_image(val)} == boxes_by_image(whole)
    assert "1 of the 4 images" in val.notes[-1]
    assert len(open_dataset(tmp_path / "data", "val", for_training=True)) == 1
    # A request for val itself is refused, because there is none.
    with pytest.raises(InputError, match=r"has no split 'val' \(there is train\)"):
        read_annotations(tmp_path / "data", "val")


def test_a_tenth_is_the_same_wherever_the_folder_lies(tmp_path: Path) -> None:
    for place in ("here", "there"):
        folder = write_as_yolo(tmp_path / place)
        for number in range(26):
            shutil.copy(folder / "c.jpg", folder / f"{number:02d}.jpg")
    tables = [find_layout(tmp_path / name).read_for_training(tmp_path / name, "val") for name in ("here", "there")]
    assert tables[0].image_names == tables[1].image_names
    assert len(tables[0].image_names) == 3


def test_a_tenth_is_the_same_in_each_unicode_form_of_the_names() -> None:
    names = [f"bäume_{number:02d}.jpg" for number in range(30)]
    decomposed = [unicodedata.normalize("NFD", name) for name in names]
    for split in ("train", "val", "test"):
        expected = [unicodedata.normalize("NFD", name) for name in divide(names, split, "")]
        assert divide(decomposed, split, "") == expected != divide(names, split, "")


def test_a_single_image_cannot_be_divided(tmp_path: Path) -> None:
    folder = write_as_yolo(tmp_path)
    for name in ("b", "c", "d"):
        (folder / f"{name}.jpg").unlink()
        (tmp_path / "labels" / "train" / f"{name}.txt").unlink(missing_ok=True)
    with pytest.raises(InputError, match="has one image, so none can be held out"):
        find_layout(tmp_path).read_for_training(tmp_path, "train")


def test_a_val_that_is_not_where_it_should_be_is_not_replaced(tmp_path: Path) -> None:
    write_as_yolo(tmp_path)
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/vall\nnames: [person, dog]\n")
    layout = find_layout(tmp_path)
    assert layout.held_out_of(tmp_path) is None
    assert len(layout.read_for_training(tmp_path, "train").image_names) == 4
    with pytest.raises(InputError, match="images/vall' does not exist"):
        layout.read_for_training(tmp_path, "val")


def test_an_empty_val_is_replaced(tmp_path: Path) -> None:
    write_as_yolo(tmp_path / "yolo")
    (tmp_path / "yolo" / "images" / "val").mkdir()
    write_as_coco(tmp_path / "coco")
    empty = json.dumps({"images": [], "annotations": [], "categories": []})
    (tmp_path / "coco" / "annotations" / "instances_val.json").write_text(empty)
    for root in (tmp_path / "yolo", tmp_path / "coco"):
        layout = find_layout(root)
        assert layout.held_out_of(root) == "train"
        assert [len(layout.read_for_training(root, split).image_names) for split in ("train", "val")] == [3, 1]
        check = check_data(root, None, "tiny")
        assert check.held_out
        assert "empty_splits" in {problem.kind for problem in check.problems}


def write_coco_as_published(root: Path, *splits: str) -> None:
    """Writes annotations and images named like COCO's own: `instances_train2017.json`, `train2017/`."""
    write_as_coco(root)
    content = (root / "annotations" / "instances_train.json").read_text()
    for split in splits:
        (root / "annotations" / f"instances_{split}.json").write_text(content)
        shutil.copytree(root / "train", root / split)
    (root / "annotations" / "instances_train.json").unlink()
    shutil.rmtree(root / "train")


def test_train_stands_for_train2017(tmp_path: Path) -> None:
    write_coco_as_published(tmp_path, "train2017", "val2017")
    layout = find_layout(tmp_path)
    assert layout.held_out_of(tmp_path) is None
    for split in ("train", "val"):
        table = layout.read_for_training(tmp_path, split)
        assert boxes_by_image(table) == boxes_by_image(layout.read(tmp_path, f"{split}2017"))
        assert table.image_names[0].startswith(f"{split}2017/")


def test_train2017_alone_is_divided(tmp_path: Path) -> None:
    write_coco_as_published(tmp_path, "train2017")
    layout = find_layout(tmp_path)
    parts = [layout.read_for_training(tmp_path, split).image_names for split in ("train", "train2017", "val")]
    assert parts[0] == parts[1]
    assert [len(names) for names in parts] == [3, 3, 1]


def test_two_splits_called_train_are_not_guessed_between(tmp_path: Path) -> None:
    write_coco_as_published(tmp_path, "train2014", "train2017", "val2017")
    with pytest.raises(InputError, match=r"has no split 'train' \(there is train2014, train2017, val2017\)"):
        open_dataset(tmp_path, "train", for_training=True)


def test_the_check_reports_the_held_out_split(tmp_path: Path) -> None:
    write_as_coco(tmp_path / "data")
    check = check_data(tmp_path / "data", None, "tiny")
    assert check.held_out
    assert "no split val: training holds out a tenth" in "\n".join(screen_lines(check))
    content = json.loads((tmp_path / "data" / "annotations" / "instances_train.json").read_text())
    (tmp_path / "data" / "annotations" / "instances_test.json").write_text(json.dumps(content))
    (tmp_path / "data" / "annotations" / "instances_train.json").unlink()
    (tmp_path / "data" / "train").rename(tmp_path / "data" / "test")
    check = check_data(tmp_path / "data", None, "tiny")
    assert not check.held_out
    assert not check.trainable
    (reported,) = (problem for problem in check.problems if problem.kind == "no_training_split")
    assert reported.names == ("test",)
