"""Tests of parts of a split, which are selected by the positions of images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ssdir.data.dataset import fingerprint
from ssdir.data.readers.registry import find_layout, open_dataset, read_annotations
from ssdir.data.readers.slices import sliced
from ssdir.errors import InputError

from .every_layout import every_layout, write_as_coco


@every_layout
def test_two_parts_make_up_the_split(write: Callable[[Path], Path], tmp_path: Path) -> None:
    write(tmp_path)
    whole = read_annotations(tmp_path, "train")
    for first, second in (("train[:3]", "train[3:]"), ("train[:-1]", "train[-1:]"), ("train[0:1]", "train[1:4]")):
        parts = [read_annotations(tmp_path, split) for split in (first, second)]
        assert [*parts[0].image_names, *parts[1].image_names] == whole.image_names
        boxes = np.concatenate([part.boxes_px for part in parts])
        assert len(boxes) == len(whole.boxes_px)
        for part in parts:
            for row in range(len(part.image)):
                image = whole.image_names.index(part.image_names[part.image[row]])
                assert part.boxes_px[row].tolist() in whole.boxes_px[whole.image == image].tolist()


def test_training_on_a_part_leaves_nothing_out_of_it(tmp_path: Path) -> None:
    write_as_coco(tmp_path)
    layout = find_layout(tmp_path)
    assert layout.held_out_of(tmp_path) == "train"
    assert len(layout.read_for_training(tmp_path, "train").image_names) == 3
    assert len(layout.read_for_training(tmp_path, "train[:4]").image_names) == 4


def test_parts_are_other_data(tmp_path: Path) -> None:
    write_as_coco(tmp_path)
    splits = ("train", "train[:2]", "train[2:]", "train[:3]")
    assert len({fingerprint(open_dataset(tmp_path, split, image_size=32)) for split in splits}) == 4
    same = [open_dataset(tmp_path, split, image_size=32) for split in ("train", "train[:]", "train[0:4]")]
    assert len({fingerprint(dataset) for dataset in same}) == 1


@pytest.mark.parametrize(
    ("split", "sentence"),
    [
        ("train[:5]", r"split train\[:5\]: 5 is beyond its 4 images"),
        ("train[-5:]", "-5 is beyond its 4 images"),
        ("train[2:2]", "no image is left of 4"),
        ("train[4:]", "no image is left"),
        ("train[:80%]", r"'train\[:80%\]' names no part of a split"),
        ("train[3]", "names no part"),
        ("train[::2]", "names no part"),
        ("[:2]", "names no part"),
        ("vall[:2]", r"no split 'vall' \(there is train\)"),
    ],
)
def test_parts_that_are_not_there(tmp_path: Path, split: str, sentence: str) -> None:
    write_as_coco(tmp_path)
    with pytest.raises(InputError, match=sentence):
        read_annotations(tmp_path, split)


def test_a_clip_is_not_divided(tmp_path: Path) -> None:
    write_as_coco(tmp_path)
    table = replace(read_annotations(tmp_path, "train"), clip=np.array([0, 0, 1, 1]))
    assert len(sliced(table, (None, 2), "here").image_names) == 2
    with pytest.raises(InputError, match="here divides a clip"):
        sliced(table, (None, 3), "here")
