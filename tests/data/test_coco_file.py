"""The reader of COCO's JSON names every fault at once, and guesses nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdir.data.readers.coco.file import CocoFile, read_coco_boxes, read_coco_file
from ssdir.errors import InputError


def content(**annotation: Any) -> dict[str, Any]:
    return {
        "images": [{"id": "x", "file_name": "a.png", "width": 90, "height": 60.0}],
        "categories": [{"id": "b", "name": "bee"}, {"id": 7, "name": "cat"}, {"id": 2.0, "name": "ant"}],
        "annotations": [
            {"id": i, "image_id": "x", "category_id": 7, "bbox": [10, 8, 30, 20]} | annotation for i in range(12)
        ],
    }


def read(folder: Path, document: Any) -> CocoFile:
    path = folder / "c.json"
    path.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
    return read_coco_file(path)


def test_ids_may_be_text_and_numbers(tmp_path: Path) -> None:
    file = read(tmp_path, content())
    assert (file.image_ids, file.category_ids) == (["x"], [2.0, 7, "b"])
    assert file.category_names == ["ant", "cat", "bee"]
    assert file.image_sizes.tolist() == [[60, 90]]
    assert file.boxes is not None
    assert file.boxes.category.tolist() == [1] * 12
    assert file.boxes.boxes_px[0].tolist() == [10, 8, 40, 28]


@pytest.mark.parametrize(
    ("image", "category", "expected"), [(0, "7", [0, 1]), ("0", 7, [0, 1]), ("0", "2", [0, 0])]
)
def test_ids_match_as_text_where_their_types_differ(
    tmp_path: Path, image: int | str, category: int | str, expected: list[int]
) -> None:
    document = content(image_id=image, category_id=category)
    document["images"][0]["id"] = 0 if image == "0" else "0"
    file = read(tmp_path, document)
    assert file.boxes is not None
    assert [file.boxes.image[0], file.boxes.category[0]] == expected
    (note,) = file.notes
    assert note.startswith("ids of images and categories that are numbers in one place and text in another: ")
    for unknown in ("00", "9" * 5000, 0.5, "b"):
        with pytest.raises(InputError, match="12 faults: annotation 0 is for unknown image"):
            read(tmp_path, {**document, "annotations": content(image_id=unknown)["annotations"]})


def test_up_to_ten_faults_are_named_and_all_are_counted(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, content(iscrowd="0"))
    message = str(caught.value)
    assert "12 faults: annotation 0 has iscrowd '0', expected" in message
    assert message.count("iscrowd") == 10
    assert message.endswith("; and 2 more")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "null"])
def test_what_is_not_finite_is_missing_and_text_stays(tmp_path: Path, value: str) -> None:
    document = content(bbox=[1, "?", 3, 4], score="?", note='a "NaN", \\NaN')
    document["images"][0]["file_name"] = 'a, NaN "-Infinity".png'
    text = json.dumps(document).replace('"?"', value)
    file = read(tmp_path, text.encode())
    assert file.file_names == ['a, NaN "-Infinity".png']
    assert file.boxes is not None
    assert np.isnan(file.boxes.boxes_px[:, 1]).all()
    assert file.boxes.scores is not None
    assert np.isnan(file.boxes.scores).all()


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"", "not valid JSON at line 1 .it is empty"),
        (b'{"images": [],\n"annotations": [', "not valid JSON at line 2 .it is cut short"),
        (b'{"images": [],\n"annotations": [}', "not valid JSON at line 2 .an invalid character"),
        (b"[" * 100_000, "expected an object"),
        (b'{"images":' * 100_000, "too deep to read|expected a list"),
        (b'{"info":' + b"[" * 100_000, "too deep to read"),
        (b"3", "it is a number, expected an object"),
        (b'{"images": {}}', "it has an object as images, expected a list"),
        (b'{"images": [{"id": 1, "file_name": "\xff"}]}', "is not UTF-8 text .line 1.: save"),
        (
            b'{"images": [{"id": 1,\n"file_name": "\\ud800"}]}',
            "line 2 .it is cut short, or has half of a surrogate pair",
        ),
        (b"{" + b"\n" * (1 << 20) + b"\xc3{", "is not UTF-8 text .line 1048577."),
        (b'{"images": [{"id": 1, "file_name": 5}]}', "image 1 has file_name 5, expected text"),
        (b'{"images": [{"id": true, "file_name": "a"}]}', "image number 0 .from 0. has id True, expected"),
        (b'{"images": [{"file_name": "a"}]}', "image number 0 .from 0. has no id"),
        (b"\xff\xfe\x00\xd8", "not UTF-8 text"),
    ],
)
def test_what_is_no_coco_is_named_in_one_sentence(tmp_path: Path, document: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, document)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_utf16_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, json.dumps(content()).encode("utf-16")).file_names == ["a.png"]


def test_ids_that_two_annotations_share_are_noted(tmp_path: Path) -> None:
    notes = read(tmp_path, content(id=4)).notes
    assert notes == ("annotations with an id that an earlier one has: 11 (annotation 4)",)


def test_outlines_stand_in_for_boxes(tmp_path: Path) -> None:
    mask = {"size": [4, 3], "counts": [5, 2, 5]}
    for outline, box in (([[1, 2, 8, 2, 8, 9.5]], [1, 2, 8, 9.5]), (mask, [1, 1, 2, 3])):
        file = read(tmp_path, content(bbox=None, segmentation=outline))
        assert file.boxes is not None
        assert file.boxes.boxes_px[0].tolist() == box
        assert "the tight box of their outline is taken: 12 (annotation 0)" in file.notes[0]


@pytest.mark.parametrize("degrees", [30.0, 90.0, 180, 315.5])
def test_rotated_rectangles_have_their_tight_box(tmp_path: Path, degrees: float) -> None:
    angle, corners = np.deg2rad(degrees), np.array([-5 - 20j, 5 - 20j, 5 + 20j, -5 + 20j])
    turned = corners * np.exp(1j * angle) + (45 + 25j)
    tight = [turned.real.min(), turned.imag.min(), turned.real.max(), turned.imag.max()]
    file = read(tmp_path, content(bbox=[40, 5, 10, 40], attributes={"occluded": False, "rotation": degrees}))
    assert file.boxes is not None
    assert file.boxes.boxes_px[0] == pytest.approx(tight)
    assert "rotation among their attributes, of which the tight box is taken: 12 (annotation 0)" in file.notes[0]


def test_a_box_with_an_outline_and_other_attributes_are_not_rotated(tmp_path: Path) -> None:
    outline = [[1, 2, 8, 2, 8, 9.5]]
    for keys in ({"attributes": {"rotation": 90.0}, "segmentation": outline}, {"attributes": {"rotation": True}}):
        file = read(tmp_path, content(bbox=[40, 5, 10, 40], **keys))
        assert file.boxes is not None
        assert file.boxes.boxes_px[0].tolist() == [40, 5, 50, 45]
        assert file.notes == ()


def test_what_ignore_marks_is_ignored_and_counted(tmp_path: Path) -> None:
    document = content(iscrowd=0)
    for annotation, keys in zip(
        document["annotations"], ({"ignore": 1}, {"iscrowd": 1, "ignore": 1}), strict=False
    ):
        annotation |= keys
    document["annotations"][2]["ignore"] = False
    file = read(tmp_path, document)
    assert file.boxes is not None
    assert file.boxes.ignored.tolist() == [True] * 2 + [False] * 10
    assert file.notes == (
        "annotations that only ignore marks (COCO's own evaluation goes by iscrowd), ignored: 1 (annotation 0)",
    )
    with pytest.raises(InputError, match="12 faults: annotation 0 has ignore 2, expected 0 or 1"):
        read(tmp_path, content(ignore=2))


def test_results_name_images_and_categories_of_annotations(tmp_path: Path) -> None:
    (tmp_path / "named.json").write_text(json.dumps(content()))
    results = [{"image_id": "x", "category_id": "b", "bbox": [1, 2, 3, 4], "score": 0.5, "track": 4, "list": [1]}]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    boxes = read_coco_boxes(path, tmp_path / "named.json").boxes
    assert boxes is not None
    assert (boxes.category.tolist(), boxes.others[0]["track"], "list" in boxes.others[0]) == ([2], 4, False)
    path.write_text(json.dumps([{**results[0], "image_id": "y"}, {**results[0], "score": "0.5"}]))
    with pytest.raises(
        InputError, match=r"2 faults: result .* unknown image 'y'; result .* has score '0.5', expected"
    ):
        read_coco_boxes(path, tmp_path / "named.json")
    with pytest.raises(InputError, match="leave out the annotations"):
        read_coco_boxes(tmp_path / "named.json", path)
