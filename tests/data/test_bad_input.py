"""Every layout reads, counts or refuses the same odd images and boxes alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from ssdir.data.annotations import AnnotationTable
from ssdir.data.readers.registry import find_layout, open_dataset, read_annotations
from ssdir.data_check.annotations import summarise
from ssdir.data_check.images import check_images, scan_images
from ssdir.errors import InputError

from .clevr_scenes import OBJECTS, camera_at, make_scene, write_clevr
from .every_layout import HEIGHT, WIDTH, every_layout, write_as_coco, write_as_voc, write_as_widerface


def problems(table: AnnotationTable) -> dict[str, tuple[str, ...]]:
    return {p.kind: p.names for p in check_images(table, scan_images(table.image_paths))}


@every_layout
def test_odd_images_and_boxes(write: Callable[[Path], Path], tmp_path: Path) -> None:
    write(tmp_path / "data")
    table = read_annotations(tmp_path / "data", "train")
    data = open_dataset(tmp_path / "data", "train")
    assert [tuple(data[i][0].shape) for i in range(4)] == [(3, HEIGHT, WIDTH)] * 4
    assert data[0][0].unique().numel() == 1  # Grey.
    assert data[1][0].float().mean(dim=(1, 2)).diff().abs().max() > 20  # CMYK was converted to a colour.
    clipped = data.objects(0).boxes_px((HEIGHT, WIDTH)).round().int().tolist()
    assert clipped == [[0, 10, 20, 30], [50, 5, 60, 15]]
    assert [len(data.objects(i)) for i in range(4)] == [2, 0, 0, 0]
    assert data.dropped_boxes == summarise(table).dropped == 1
    assert summarise(table).empty_images == 3
    (copy,) = problems(table)["duplicate_images"]
    assert "d.jpg: the same as " in copy
    assert len(open_dataset(tmp_path / "data", "train", drop_empty=True)) == 1


@every_layout
def test_chosen_classes(write: Callable[[Path], Path], tmp_path: Path) -> None:
    write(tmp_path)
    name = "face" if write is write_as_widerface else "person"
    data = open_dataset(tmp_path, "train", classes=[name])
    assert data.class_names == [name]
    assert len(data.objects(0)) == (2 if name == "face" else 1)
    assert data.objects(0).labels.unique().tolist() == [0]
    for classes, message in (
        (["persons"], "unknown class 'persons'"),
        ([], "no class is chosen"),
        ([name, name], f"class '{name}' is chosen twice"),
    ):
        with pytest.raises(InputError, match=message):
            open_dataset(tmp_path, "train", classes=classes)


@every_layout
def test_an_image_that_is_gone_is_named(write: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "c.jpg").unlink()
    if write is write_as_coco:
        assert problems(read_annotations(tmp_path, "train"))["missing_images"] == ("train/c.jpg",)
        with pytest.raises(InputError, match=r"c\.jpg' does not exist"):
            open_dataset(tmp_path, "train", preload=True)
    elif write is write_as_voc:
        with pytest.raises(InputError, match="no image 'c', which its list or annotation names"):
            read_annotations(tmp_path, "train")
    else:
        (note,) = [
            note
            for note in read_annotations(tmp_path, "train").notes
            if "file without" not in note and "c." in note
        ]
        assert "1" in note


def test_clevr_takes_grey_images_and_names_copies(tmp_path: Path) -> None:
    camera = camera_at((0.1, 0.2, -0.3))
    scenes = [make_scene(OBJECTS[:n], camera, f"{n}.png") for n in (2, 0, 1)]
    write_clevr(tmp_path, scenes)
    for path in (tmp_path / "images" / "val").iterdir():
        with Image.open(path) as image:
            grey = image.convert("L")
        grey.save(path)
    data = open_dataset(tmp_path, "val", classes=["sphere"])
    assert {image.shape[0] for image, _ in (data[i] for i in range(3))} == {3}
    assert [len(data.objects(i)) for i in range(3)] == [1, 0, 0]
    assert len(problems(data.table)["duplicate_images"]) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["annotations"][0].update(image_id=[1]),
            r"annotation 0 has image_id \[1\], expected",
        ),
        (lambda c: c["annotations"][0].update(category_id={}), r"annotation 0 has category_id \{\}, expected"),
        (lambda c: c["images"][0].update(width=float("inf")), "image 0 has no width"),
        (lambda c: c["images"][0].update(width=10**30), "image 0 has no size in pixels"),
    ],
)
def test_numbers_beyond_all_sense_are_one_sentence(
    change: Callable[[dict[str, list[dict[str, object]]]], None], message: str, tmp_path: Path
) -> None:
    write_as_coco(tmp_path)
    path = tmp_path / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message) as caught:
        read_annotations(tmp_path, "train")
    assert str(path) in str(caught.value)


def test_absurd_json(tmp_path: Path) -> None:
    write_as_coco(tmp_path)
    path = tmp_path / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"][0] = 10**400
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"annotation 0 has a value that can't be read"):
        read_annotations(tmp_path, "train")
    path.write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"instances_train\.json"):
        read_annotations(tmp_path, "train")


def test_the_message_for_a_folder_too_high_or_too_low_names_the_right_one(tmp_path: Path) -> None:
    write_as_coco(tmp_path / "up" / "pets")
    with pytest.raises(InputError, match=r"has no layout that ssdir knows: .*; '.*/up/pets' looks like one$"):
        find_layout(tmp_path / "up")
    with pytest.raises(InputError, match=r"has no layout that ssdir knows: .*; '.*/up/pets' looks like one$"):
        find_layout(tmp_path / "up" / "pets" / "annotations")
    write_as_voc(tmp_path / "down")
    with pytest.raises(InputError, match=r"has no layout that ssdir knows: .*; '.*/down' looks like one$"):
        find_layout(tmp_path / "down" / "JPEGImages")


def test_the_message_for_a_folder_beside_data_sets_does_not_name_the_folder_of_them_all(tmp_path: Path) -> None:
    (tmp_path / "all" / "mnist").mkdir(parents=True)
    for name in ("one", "other"):
        for part in ("images", "labels"):
            (tmp_path / "all" / name / part).mkdir(parents=True)
        (tmp_path / "all" / name / "labels" / "0.txt").touch()
    with pytest.raises(InputError, match=r": it has nothing; known are [^;]*$"):
        find_layout(tmp_path / "all" / "mnist")


def test_boxes_beyond_all_images_are_named(tmp_path: Path) -> None:
    write_as_widerface(tmp_path)
    path = tmp_path / "wider_face_split" / "wider_face_train_bbx_gt.txt"
    path.write_text(path.read_text().replace("50 5 20", "9" * 400 + " 5 20"))
    with pytest.raises(InputError, match=r"bbx_gt\.txt: line 4 should be a face, 10 whole numbers"):
        read_annotations(tmp_path, "train")
