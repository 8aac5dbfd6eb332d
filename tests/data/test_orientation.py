"""Boxes lie on their objects, however a photograph is stored; the check reports where that is a guess."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssdir.data.annotations import AnnotationTable
from ssdir.data.images import read_image
from ssdir.data.orientation import is_ambiguous, refers_to_stored
from ssdir.data.readers.registry import open_dataset, read_annotations
from ssdir.data.writers.convert import convert
from ssdir.data_check.images import check_images, scan_images

from .defects import write_folder

STORED_BOX = (16, 8, 40, 32)
"""xyxy of the white spot in the image as stored."""


def write_photo(path: Path, orientation: int, size: tuple[int, int]) -> tuple[int, ...]:
    """Writes a black JPEG with a white spot; returns the spot's box after the EXIF orientation is applied."""
    pixels = np.zeros((*size, 3), np.uint8)
    x1, y1, x2, y2 = STORED_BOX
    pixels[y1:y2, x1:x2] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, "JPEG", exif=exif, quality=95)
    seen = read_image(path)[..., 0] > 128
    columns, rows = np.flatnonzero(seen.any(axis=0)), np.flatnonzero(seen.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def write_coco(
    root: Path, orientation: int, size: tuple[int, int], box: tuple[int, ...], annotated_size: tuple[int, int]
) -> Path:
    x1, y1, x2, y2 = box
    image = ("a.jpg", np.zeros((8, 8, 3), np.uint8), *annotated_size)
    write_folder(root, [image], [(0, "cat", (x1, y1, x2 - x1, y2 - y1))], ["cat"])
    write_photo(root / "train" / "a.jpg", orientation, size)
    return root


def turned_images(table: AnnotationTable) -> tuple[str, ...]:
    problems = check_images(table, scan_images(table.image_paths))
    assert not any(problem.stops for problem in problems)
    return next((problem.names for problem in problems if problem.kind == "turned_images"), ())


def check_spot(root: Path) -> None:
    """Asserts that the box contains the spot, and nothing but the spot."""
    data = open_dataset(root, "train")
    image, objects = data[0]
    x1, y1, x2, y2 = objects.boxes_px(image.shape[1:])[0].round().int().tolist()
    assert image[:, y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].min() > 200
    assert image[:, y1:y2, x1:x2].float().sum() > 0.95 * image.float().sum()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("scale", [1, 2])
def test_coco_boxes_of_the_size_as_stored(tmp_path: Path, orientation: int, scale: int) -> None:
    """The annotated size is that of the stored pixels or of a reduced copy, so boxes turn with the image."""
    size = (48, 96)
    annotated_size = (size[0] // scale, size[1] // scale)
    box = STORED_BOX if orientation >= 5 else write_photo(tmp_path / "seen.jpg", orientation, size)
    root = write_coco(tmp_path / "given", orientation, size, tuple(side // scale for side in box), annotated_size)
    check_spot(root)
    table = read_annotations(root, "train")
    assert table.image_sizes.tolist() == [list(annotated_size[::-1] if orientation >= 5 else annotated_size)]
    assert any("turned by their EXIF orientation: 1 (train/a.jpg)" in note for note in table.notes) == (
        orientation >= 5
    )
    named = (f"train/a.jpg: EXIF orientation {orientation}",) if orientation in (2, 3, 4) else ()
    assert turned_images(table) == named
    for target in ("coco", "yolo", "voc"):
        convert(root, target, tmp_path / target)  # type: ignore[arg-type]
        check_spot(tmp_path / target)


@pytest.mark.parametrize("orientation", range(5, 9))
def test_coco_boxes_of_the_size_as_seen(tmp_path: Path, orientation: int) -> None:
    box = write_photo(tmp_path / "seen.jpg", orientation, (48, 96))
    root = write_coco(tmp_path / "coco", orientation, (48, 96), box, (96, 48))
    check_spot(root)
    table = read_annotations(root, "train")
    assert (table.notes, turned_images(table)) == ((), ())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_squares_are_taken_as_seen_and_named(tmp_path: Path, orientation: int) -> None:
    box = write_photo(tmp_path / "seen.jpg", orientation, (64, 64))
    root = write_coco(tmp_path / "coco", orientation, (64, 64), box, (64, 64))
    check_spot(root)
    assert len(turned_images(read_annotations(root, "train"))) == (orientation != 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_layouts_without_sizes_are_taken_as_seen_and_named(tmp_path: Path, orientation: int) -> None:
    for name in ("images", "labels"):
        (tmp_path / "yolo" / name / "train").mkdir(parents=True)
    x1, y1, x2, y2 = write_photo(tmp_path / "yolo" / "images" / "train" / "a.jpg", orientation, (48, 96))
    width, height = (48, 96) if orientation >= 5 else (96, 48)
    numbers = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
    (tmp_path / "yolo" / "labels" / "train" / "a.txt").write_text(f"0 {' '.join(map(str, numbers))}\n")

    faces = tmp_path / "faces"
    (faces / "wider_face_split").mkdir(parents=True)
    (faces / "WIDER_train" / "images").mkdir(parents=True)
    write_photo(faces / "WIDER_train" / "images" / "a.jpg", orientation, (48, 96))
    line = f"{x1} {y1} {x2 - x1} {y2 - y1} 0 0 0 0 0 0"
    (faces / "wider_face_split" / "wider_face_train_bbx_gt.txt").write_text(f"a.jpg\n1\n{line}\n")
    for root in (tmp_path / "yolo", faces):
        check_spot(root)
        assert len(turned_images(read_annotations(root, "train"))) == (orientation != 1)


def test_voc_without_a_size_is_remarked(tmp_path: Path) -> None:
    for name in ("Annotations", "JPEGImages"):
        (tmp_path / name).mkdir()
    box = write_photo(tmp_path / "JPEGImages" / "a.jpg", 6, (48, 96))
    values = zip(("xmin", "ymin", "xmax", "ymax"), (box[0] + 1, box[1] + 1, *box[2:]), strict=True)
    bndbox = "".join(f"<{key}>{value}</{key}>" for key, value in values)
    text = f"<annotation><object><name>cat</name><bndbox>{bndbox}</bndbox></object></annotation>"
    (tmp_path / "Annotations" / "a.xml").write_text(text)
    table = read_annotations(tmp_path, "all")
    assert table.boxes_px[0].tolist() == list(box)
    assert any("gives no size" in note and "a.jpg" in note for note in table.notes)


def test_missing_images_and_other_shapes_are_left_to_the_check(tmp_path: Path) -> None:
    root = write_coco(tmp_path, 6, (48, 96), STORED_BOX, (50, 200))
    assert read_annotations(root, "train").image_sizes.tolist() == [[50, 200]]
    (root / "train" / "a.jpg").unlink()
    assert read_annotations(root, "train").notes == ()
    assert json.loads((root / "annotations" / "instances_train.json").read_text())["images"]


def test_the_rule() -> None:
    assert refers_to_stored((40, 60), (60, 40), 6)
    assert refers_to_stored((20, 30), (60, 40), 8)
    assert not refers_to_stored((60, 40), (60, 40), 6)
    assert not refers_to_stored((40, 60), (60, 40), 1)  # Simply another image.
    assert not refers_to_stored((40, 40), (40, 40), 6)
    assert not refers_to_stored((50, 60), (60, 40), 6)
    assert [o for o in range(1, 9) if is_ambiguous((40, 60), o)] == [2, 3, 4]
    assert [o for o in range(1, 9) if is_ambiguous((40, 40), o)] == list(range(2, 9))
