"""All layouts report a path that is no folder, and a missing split, in the same words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ssdir.data.readers.clevr.reader import read_clevr
from ssdir.data.readers.coco.reader import read_coco
from ssdir.data.readers.registry import find_layout, open_dataset
from ssdir.data.readers.splits import find_split_file, list_splits
from ssdir.data.readers.voc.reader import read_voc
from ssdir.data.readers.widerface import read_widerface
from ssdir.data.readers.yolo.reader import read_yolo
from ssdir.errors import InputError

READERS = [read_clevr, read_coco, read_voc, read_widerface, read_yolo]


@pytest.mark.parametrize("read", [*READERS, open_dataset], ids=lambda read: read.__name__)
def test_a_path_that_is_no_folder(read, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, what in (("no", "does not exist"), ("file", "is a file, not the folder of a data set")):
        with pytest.raises(InputError, match=f"^data folder '{re.escape(str(tmp_path / name))}' {what}$"):
            read(tmp_path / name, "train")


@pytest.mark.parametrize(
    ("read", "folder"),
    [(read_clevr, "scenes"), (read_coco, "annotations"), (read_widerface, "wider_face_split")],
    ids=["clevr", "coco", "widerface"],
)
def test_a_folder_without_any_split(read, folder: str, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=rf"has no split 'val' \(there is none: {folder}/ does not exist\): {folder}/"
    ):
        read(tmp_path, "val")
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "captions.json").touch()
    with pytest.raises(
        InputError, match=rf"\(there is none: {folder}/ has captions.json\): {folder}/.* is missing"
    ):
        read(tmp_path, "val")


def test_splits_are_what_stands_for_the_star(tmp_path: Path) -> None:
    for name in ("a_val_b.txt", "a_train_2_b.txt", "a_b.txt", "a_val_b.json"):
        (tmp_path / name).touch()
    assert list_splits(tmp_path, "a_*_b.txt") == ["train_2", "val"]
    assert find_split_file(tmp_path, "a_*_b.txt", "train_2") == tmp_path / "a_train_2_b.txt"
    with pytest.raises(InputError, match=r"\(there is train_2, val\): a_test_b.txt is missing \(no such\)$"):
        find_split_file(tmp_path, "a_*_b.txt", "test", remark="no such")


def test_the_message_for_a_folder_of_no_layout_lists_its_content_and_known_layouts(tmp_path: Path) -> None:
    for i in range(12):
        (tmp_path / f"{i:02d}.jpg").touch()
    with pytest.raises(InputError, match=r": it has 00\.jpg, .*, 07\.jpg and 4 more; known are .*YOLO"):
        find_layout(tmp_path)
