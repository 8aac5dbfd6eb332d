"""One report covers all splits of a data set: their counts, their problems, and images that they share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from data.defects import noise, write_folder
from data.real import real_data
from data.test_yolo import write_images, write_labels
from ssdir.cli import app
from ssdir.data_check.check import DataCheck, check_data
from ssdir.data_check.splits import main_split

WIDERFACE, needs_widerface = real_data("widerface")
COCO128, needs_coco128 = real_data("coco128")
BOX = (30, 20, 30, 30)


def run(*args: object) -> Any:
    return CliRunner().invoke(app, ["data", "check", *(str(arg) for arg in args)])


def by_kind(check: DataCheck) -> dict[str, tuple[str, ...]]:
    assert len({problem.kind for problem in check.problems}) == len(check.problems)
    return {problem.kind: problem.names for problem in check.problems}


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Writes three splits: val has an image of train and misses one, test has a class that train lacks."""
    root, classes = tmp_path / "pets", ["cat", "dog", "eel"]
    train = [(f"{i}.png", noise(60, 90, i)) for i in range(3)]
    write_folder(root, train, [(i, name, BOX) for i in range(3) for name in ("cat", "dog")], classes)
    val = [("a.png", noise(60, 90, 1)), ("b.png", noise(60, 90, 9)), ("c.png", noise(60, 90, 8))]
    write_folder(root, val, [(i, "cat", BOX) for i in range(3)], classes, "val")
    write_folder(root, [("x.png", noise(60, 90, 7))], [(0, "eel", BOX), (0, "eel", BOX)], classes, "test")
    (root / "val" / "b.png").unlink()
    return root


def test_all_splits_are_one_report(pets: Path) -> None:
    seen: list[tuple[int, int]] = []
    check = check_data(pets, None, "tiny", lambda done, total: seen.append((done, total)))
    assert seen == [(i, 7) for i in range(1, 8)]
    assert check.split == "train"
    assert {split: (s.images, s.objects) for split, s in check.summaries.items()} == {
        "test": (1, 2),
        "train": (3, 6),
        "val": (3, 3),
    }
    assert check.summary is check.summaries["train"]
    named = by_kind(check)
    assert named == {
        "missing_images": ("val/b.png",),
        "duplicate_boxes": (*named["duplicate_boxes"],),
        "unused_classes": ("eel",),
        "unseen_classes": ("test: eel",),
        "shared_images": ("val: val/a.png is train/1.png of train",),
    }
    assert "test/x.png: eel (30, 20, 60, 50)" in named["duplicate_boxes"]
    assert [problem.stops for problem in check.problems] == [True, False, False, False, False]


def test_a_name_that_is_too_long_for_a_file_is_a_missing_image(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "pets", [("a.png", noise(60, 90))], [(0, "cat", BOX)], ["cat"])
    file = data / "annotations" / "instances_train.json"
    file.write_text(file.read_text().replace("a.png", "a" * 300 + ".png"))
    assert by_kind(check_data(data, "train", "tiny"))["missing_images"] == (f"train/{'a' * 300}.png",)


def test_the_screen_and_the_folder_hold_all_splits(pets: Path, tmp_path: Path) -> None:
    result = run(pets, "--out", tmp_path / "check")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("all splits"))
    assert [line.split()[:3] for line in lines[at + 1 : at + 4]] == [
        ["train", "3", "6"],
        ["test", "1", "2"],
        ["val", "3", "3"],
    ]
    assert "    val: val/a.png is train/1.png of train" in lines
    assert "training or measuring on this would stop: images that are missing (1)" in lines
    report = json.loads((tmp_path / "check" / "check.json").read_text())
    assert {split: summary["images"] for split, summary in report["splits"].items()} == {
        "test": 1,
        "train": 3,
        "val": 3,
    }
    assert report["summary"] == report["splits"]["train"]
    with Image.open(tmp_path / "check" / "image-grid.png") as grid:
        red = (np.asarray(grid.convert("RGB")) == (255, 0, 0)).all(axis=-1)
    assert red.sum() > 100  # The suspicious box of another split than train is shown.


def test_one_split_is_still_one(pets: Path) -> None:
    result = run(pets, "--split", "train", "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["split"], list(report["splits"])) == (0, "train", ["train"])
    assert not {"shared_images", "missing_images"} & {problem["kind"] for problem in report["problems"]}


def test_a_split_that_cannot_be_read_does_not_hide_the_others(pets: Path) -> None:
    (pets / "annotations" / "instances_val.json").write_text('{\n"images": [}')
    check = check_data(pets, None, "tiny")
    assert list(check.summaries) == ["train", "test"]
    (sentence,) = by_kind(check)["unreadable_splits"]
    assert sentence.startswith("val: ")
    assert "line 2" in sentence
    assert not check.trainable
    write_folder(pets, [], [], ["cat", "dog", "eel"], "val")
    check = check_data(pets, None, "tiny")
    assert "it has no images" in by_kind(check)["empty_splits"][0]
    assert check.trainable
    (pets / "annotations" / "instances_train.json").write_text("[]")
    assert run(pets).exit_code == 2


def test_classes_that_differ_between_splits_are_named(pets: Path) -> None:
    write_folder(pets, [("x.png", noise(60, 90, 7))], [], ["dog", "cat"], "test")
    problems = by_kind(check_data(pets, None, "tiny"))
    assert problems["other_classes"] == ("test: dog, cat",)
    assert problems["splits_without_objects"] == ("test",)


def test_notes_of_the_reader_name_their_split(tmp_path: Path) -> None:
    for split, names in (("train", ["a", "b"]), ("val", ["c", "d"])):
        write_images(tmp_path / "images" / split, names)
        write_labels(tmp_path / "labels" / split, {names[0]: "0 0.5 0.5 0.5 0.5\n"})
    problems = by_kind(check_data(tmp_path, None, "tiny"))
    assert [note.split(":")[0] for note in problems["notes"]] == ["train", "val"]
    assert len(problems["duplicate_images"]) == 2  # All are red.
    assert len(problems["shared_images"]) == 2


def test_the_split_to_learn_from() -> None:
    assert main_split(["test", "train", "trainval"]) == "train"
    assert main_split(["test2017", "train2017"]) == "train2017"
    assert main_split(["val", "test"]) == "val"


@needs_coco128
def test_a_folder_whose_splits_are_the_same_images_is_read_once() -> None:
    check = check_data(COCO128, None, "tiny")
    assert list(check.summaries) == ["train"]


@pytest.mark.slow
@needs_widerface
def test_real_photographs() -> None:
    check = check_data(WIDERFACE, None, "tiny")
    assert {split: summary.images for split, summary in check.summaries.items()} == {"train": 297, "val": 120}
    assert "shared_images" not in by_kind(check)
    assert check.trainable
