"""Tests of COCO as exporters write it: where the JSON and the images are, and how they are named."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ssdir.data.annotations import AnnotationTable
from ssdir.data.readers.registry import find_layout, open_dataset, read_annotations
from ssdir.data.writers.convert import convert
from ssdir.errors import InputError, InputWarning

NAMES = ["a.png", "b.png"]


def content(*names: str, **image: Any) -> dict[str, Any]:
    """Returns the content of a COCO file with one object in each image of 90×60 px; the i-th begins at x = i."""
    return {
        "images": [
            {"id": i, "file_name": name, "width": 90, "height": 60} | image for i, name in enumerate(names)
        ],
        "categories": [{"id": 1, "name": "cup"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [i, 8, 30, 20]} for i in range(len(names))
        ],
    }


def write(path: Path, pictures: Path, *names: str, **image: Any) -> Path:
    """Writes a JSON that has the pictures by these names, by default by their own."""
    pictures.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        Image.new("L", (90, 60)).save(pictures / name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content(*(names or NAMES), **image)))
    return path


def read(root: Path, split: str = "train") -> AnnotationTable:
    table = read_annotations(root, split)
    assert all(path.is_file() for path in table.image_paths)
    assert table.boxes_px.tolist() == [[i, 8, i + 30, 28] for i in range(len(table.image))]
    return table


@pytest.mark.parametrize(
    ("file", "pictures", "splits"),
    [
        ("annotations/instances_default.json", "images/default", ["default"]),
        ("result.json", "images", ["all"]),
        ("labels.json", "data", ["all"]),
        ("export.json", ".", ["all"]),
        ("_annotations.coco.json", ".", ["all"]),
        ("annotations/anything.json", "images", ["all"]),
        ("train/_annotations.coco.json", "train", ["train"]),
        ("train/labels.json", "train/data", ["train"]),
        ("my_train_set.json", "images", ["train"]),
        ("annotations/instances_train2017.json", "train2017", ["train2017"]),
    ],
)
def test_an_only_split_is_read_divided_and_converted(
    tmp_path: Path, file: str, pictures: str, splits: list[str]
) -> None:
    root = tmp_path / "data"
    write(root / file, root / pictures)
    layout = find_layout(root)
    assert (layout.name, layout.splits(root)) == ("COCO", splits)
    assert [Path(name).name for name in read(root).image_names] == NAMES
    assert read_annotations(root, splits[0]).image_names == read(root).image_names
    parts = [open_dataset(root, split, for_training=True).file_names for split in ("train", "val", splits[0])]
    assert sorted(parts[0] + parts[1]) == read(root).image_names
    assert parts[2] == parts[0]
    assert convert(root, "yolo", tmp_path / "yolo").objects == {"train": 2}


def test_a_json_beside_the_pictures_of_each_split(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        write(tmp_path / split / "_annotations.coco.json", tmp_path / split)
    assert find_layout(tmp_path).splits(tmp_path) == ["test", "train", "valid"]
    assert read(tmp_path, "val").image_names == ["valid/a.png", "valid/b.png"]
    assert find_layout(tmp_path).held_out_of(tmp_path) is None


def test_several_files_of_other_names_are_splits_by_the_words_in_their_names(tmp_path: Path) -> None:
    for name in ("cups_train.json", "cups-val.json"):
        write(tmp_path / name, tmp_path / "images")
    assert sorted(find_layout(tmp_path).splits(tmp_path)) == ["train", "val"]


def test_an_only_split_to_measure_on_is_not_trained_on(tmp_path: Path) -> None:
    write(tmp_path / "annotations" / "instances_test.json", tmp_path / "test")
    with pytest.raises(InputError, match=r"has no split 'train' \(there is test\)"):
        open_dataset(tmp_path, "train", for_training=True)


@pytest.mark.parametrize(
    "keys", [("info", "images", "categories", "annotations"), ("images", "categories", "annotations", "info")]
)
def test_large_files_are_taken_for_coco_wherever_their_keys_are(
    tmp_path: Path, keys: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssdir.data.readers.coco.folder._LOOKED_AT", 100)
    document = content(*(f"{i}.png" for i in range(20))) | {"info": {"contributor": "x" * 20}}
    (tmp_path / "result.json").write_text(json.dumps({key: document[key] for key in keys}))
    assert find_layout(tmp_path).name == "COCO"
    (tmp_path / "result.json").write_text(json.dumps({"images": document["images"]}))
    with pytest.raises(InputError, match="has no layout that ssdir knows"):
        find_layout(tmp_path)


def test_other_json_is_not_taken_for_coco(tmp_path: Path) -> None:
    write(tmp_path / "labels" / "x.txt", tmp_path / "images")
    (tmp_path / "a.json").write_text(json.dumps({"images": [], "config": {}}))
    (tmp_path / "b.json").write_text("[1]")
    (tmp_path / "c.json").write_text("")
    with pytest.raises(InputError, match="no layout"):
        find_layout(tmp_path / "images")
    assert find_layout(tmp_path).name == "YOLO"


@pytest.mark.parametrize(
    "folder", ["images\\", ".\\images\\", "C:\\data\\", "/home/ann/cups/images/", "/home/ann/", "\\\\server\\x\\"]
)
def test_names_of_another_machine_are_matched_by_their_end(tmp_path: Path, folder: str) -> None:
    write(tmp_path / "result.json", tmp_path / "images", *(folder + name for name in NAMES))
    table = read(tmp_path)
    assert table.image_names == ["images/a.png", "images/b.png"]
    assert "taken by the end of their names: 2" in table.notes[0]


def test_pictures_of_other_splits_do_not_stand_in(tmp_path: Path) -> None:
    for split in ("train", "val"):
        names = [f"/home/ann/{split}/{name}" for name in NAMES]
        write(tmp_path / "annotations" / f"instances_{split}.json", tmp_path / split, *names)
    (tmp_path / "train" / "a.png").unlink()
    table = read_annotations(tmp_path, "train")
    assert [path.is_file() for path in table.image_paths] == [False, True]
    assert read(tmp_path, "val").image_names == ["val/a.png", "val/b.png"]
    write(tmp_path / "annotations" / "instances_train.json", tmp_path / "train")
    (tmp_path / "train" / "a.png").unlink()
    assert read_annotations(tmp_path, "train").image_names == ["train/a.png", "train/b.png"]


def test_ambiguous_ends_are_missing_pictures(tmp_path: Path) -> None:
    write(tmp_path / "result.json", tmp_path / "one", "C:\\x\\a.png", "C:\\x\\one\\b.png")
    write(tmp_path / "other" / "x.txt", tmp_path / "two")
    table = read_annotations(tmp_path, "all")
    assert [path.is_file() for path in table.image_paths] == [False, True]
    assert table.image_names[1] == "one/b.png"


@pytest.mark.parametrize(
    "names", [("a.png", "a.png"), ("a.png", "../images/a.png"), ("/cam1/a.png", "/cam2/a.png")]
)
def test_two_images_that_are_one_picture_are_an_error(tmp_path: Path, names: tuple[str, str]) -> None:
    write(tmp_path / "result.json", tmp_path / "images", *names)
    entries = re.escape(f"result.json: images 0 ('{names[0]}') and 1 ('{names[1]}') are both 'images/")
    with pytest.raises(InputError, match=f"{entries}.*merge them, or give each its own picture"):
        read_annotations(tmp_path, "all")


def test_pictures_outside_are_named_and_left_out_unless_asked_for(tmp_path: Path) -> None:
    root, outside = tmp_path / "data", tmp_path / "private"
    write(outside / "x.json", outside)
    names = ["a.png", "../../private/b.png", str(outside / "a.png"), "../images/b.png"]
    write(root / "annotations" / "instances_train.json", root / "images", *names)
    Image.new("L", (90, 60)).save(root / "images" / "a.png")
    table = read_annotations(root, "train")
    assert table.image_names == ["images/a.png", "images/../images/b.png"]
    assert table.boxes_px[:, 0].tolist() == [0, 3]
    assert table.notes == (
        "pictures outside of the data set, left out: 2 ('../../private/b.png'; to read them, set outside to read)",
    )
    with pytest.warns(InputWarning, match="outside of the data set, left out: 2"):
        assert len(open_dataset(root, "train")) == 2
    table = read_annotations(root, "train", outside="read")
    assert [path.is_file() for path in table.image_paths] == [True] * 4
    assert "pictures outside of the data set: 2 ('../../private/b.png')" in table.notes
    write(root / "annotations" / "instances_train.json", root / "images", *names[1:3])
    with pytest.raises(InputError, match=r"every picture lies outside of .*set outside to read"):
        read_annotations(root, "train")


def test_links_within_the_data_set_may_lead_out_of_it(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write(root / "annotations" / "instances_train.json", tmp_path / "disk")
    (root / "train").symlink_to(tmp_path / "disk")
    assert read(root).image_names == ["train/a.png", "train/b.png"]
    assert read(root).notes == ()


@pytest.mark.parametrize("size", [{"width": None, "height": None}, {"width": 0, "height": 0}])
def test_sizes_that_are_not_given_are_those_of_the_pictures(tmp_path: Path, size: dict[str, Any]) -> None:
    path = write(tmp_path / "result.json", tmp_path / "images", **size)
    table = read(tmp_path)
    assert table.image_sizes.tolist() == [[60, 90]] * 2
    assert table.sizes_from_files
    assert table.notes == ("images without a size, which is taken from the picture: 2 (images/a.png)",)
    (tmp_path / "images" / "a.png").unlink()
    with pytest.raises(InputError, match=r"result\.json: image 'images/a\.png' has no size, and no picture"):
        read_annotations(tmp_path, "all")
    path.write_text(path.read_text().replace("null", "NaN"))
    Image.new("L", (90, 60)).save(tmp_path / "images" / "a.png")
    assert read(tmp_path).image_sizes.tolist() == [[60, 90]] * 2
