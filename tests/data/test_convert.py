import itertools
import json

import numpy as np
import pytest
import supervision
import yaml
from PIL import Image

from ssdir.data.readers.coco.reader import read_coco
from ssdir.data.readers.registry import find_layout, open_dataset, read_annotations
from ssdir.data.scatter.generator import ScatterConfig
from ssdir.data.scatter.writer import write_scatter
from ssdir.data.writers.convert import convert
from ssdir.errors import InputError

from .real import real_data
from .test_coco import write_coco
from .test_mask_folder import MASK
from .test_mask_folder import write as write_masks
from .test_widerface import write_widerface

COCO128, needs_coco128 = real_data("coco128")
WIDERFACE, needs_widerface = real_data("widerface")


def flag(**keys):
    return {"difficult": 0, **keys}


@pytest.fixture
def source(tmp_path):
    """Writes two splits whose images have the same names, and a category that does not occur."""
    train = [
        (1, 10, [5.4, 5, 10.2, 10], flag(difficult=1)),
        (1, 30, [-5, 10, 10, 100], flag()),
        (2, 10, [3, 3, 0, 5], flag()),
        (2, 30, [0.1, 0.2, 0.3, 0.2], flag()),
        (2, 10, [1, 1, 9, 9], flag(iscrowd=1)),
        (2, 10, [29.7, 0, 0.3, 30], flag()),
    ]
    root = tmp_path / "source"
    write_coco(root, [(1, 20, 40), (2, 30, 30), (3, 8, 8)], train, ("dog", "zebra", "a cat"))
    write_coco(root, [(1, 16, 16)], [(1, 30, [0, 0, 16, 16], flag())], ("dog", "zebra", "a cat"), "val")
    return root


def images_of(root, split):
    return [path.read_bytes() for path in read_annotations(root, split).image_paths]


def test_a_round_trip(source, tmp_path):
    """Boxes survive COCO -> YOLO -> VOC -> COCO, and COCO -> VOC -> COCO, which keeps the difficult flags."""
    steps = [("coco", source), ("yolo", tmp_path / "yolo"), ("voc", tmp_path / "voc"), ("coco", tmp_path / "coco")]
    for (_, before), (target, after) in itertools.pairwise(steps):
        done = convert(before, target, after)
        assert done.images == {"train": 3, "val": 1}
        assert done.objects == {"train": 4, "val": 1}
    convert(source, "voc", tmp_path / "direct_voc")
    convert(tmp_path / "direct_voc", "coco", tmp_path / "direct")
    clipped = [[5.4, 5, 15.6, 15], [0, 10, 5, 20], [0.1, 0.2, 0.4, 0.4], [29.7, 0, 30, 30]]
    whole = [[5, 5, 16, 15], [0, 10, 5, 20], [0, 0, 1, 1], [29, 0, 30, 30]]
    expected = {"yolo": clipped, "voc": whole, "coco": whole, "direct_voc": whole, "direct": whole}
    for name, boxes in expected.items():
        table = read_annotations(tmp_path / name, "train")
        assert table.category_names == ["dog", "zebra", "a cat"]
        assert table.boxes_px == pytest.approx(np.array(boxes), abs=1e-5), name
        assert table.category.tolist() == [0, 2, 2, 0]
        assert table.image.tolist() == [0, 0, 1, 1]
        assert table.image_sizes.tolist() == [[20, 40], [30, 30], [8, 8]]
        difficult = [name.startswith("direct"), False, False, False]
        assert (table.difficult is None and name == "yolo") or table.difficult.tolist() == difficult
        for split in ("train", "val"):
            assert images_of(tmp_path / name, split) == images_of(source, split)
        assert read_annotations(tmp_path / name, "val").boxes_px.tolist() == [[0, 0, 16, 16]]
    assert [find_layout(path).name for _, path in steps] == ["COCO", "YOLO", "Pascal VOC", "COCO"]


def test_coco_to_coco_keeps_everything(source, tmp_path):
    done = convert(source, "coco", tmp_path / "out")
    before, after = read_coco(source, "train"), read_coco(tmp_path / "out", "train")
    for name in ("image", "category", "ignored", "difficult", "image_sizes"):
        assert np.array_equal(getattr(before, name), getattr(after, name)), name
    assert after.boxes_px == pytest.approx(before.boxes_px)
    assert done.notes == []


def test_what_is_left_out_is_counted(source, tmp_path):
    notes = convert(source, "yolo", tmp_path / "yolo").notes
    assert notes == [
        "train: ignored objects, for which yolo has no flag, left out: 1",
        "train: boxes without area in their image, left out: 1",
        "train: difficult objects, written as any other: 1",
    ]
    assert not any("difficult" in note for note in convert(source, "voc", tmp_path / "voc").notes)


def test_keys_that_a_layout_has_no_place_for_are_noted(tmp_path):
    objects = [{"value": value, "depth": value, "attributes": {"colour": "red"}} for value in (1, 7)]
    write_masks(tmp_path / "in", "train", {"a": MASK}, {"a": objects})
    keys = ["draw_order", "depth", "attributes", "masks"]
    for target, lost in (("coco", keys[3:]), ("yolo", keys), ("voc", keys)):
        assert convert(tmp_path / "in", target, tmp_path / target).notes == [
            f"train: keys that {target} has no place for, left out ({', '.join(lost)}): {len(lost)}"
        ]


def test_objects_that_would_be_written_alike_are_left_out_and_counted(tmp_path):
    """Readers leave the second out: it must not be counted as written. VOC's boxes are whole pixels."""
    same = [(1, 10, [2, 2, 5, 5]), (1, 10, [2, 2, 5, 5]), (1, 30, [2, 2, 5, 5]), (1, 10, [2.2, 2, 5, 5])]
    write_coco(tmp_path / "in", [(1, 9, 9)], same, ("cat", "dog", "eel"))
    for target, kept in (("coco", 4), ("yolo", 3), ("voc", 2)):
        done = convert(tmp_path / "in", target, tmp_path / target)
        assert done.objects == {"train": kept}
        assert len(read_annotations(tmp_path / target, "train").image) == kept
        left_out = [
            note for note in done.notes if note.startswith("train: objects whose class and box, as written")
        ]
        assert [note.rpartition(": ")[2] for note in left_out] == ([str(4 - kept)] if kept < 4 else [])


def test_a_split_that_is_named_but_missing_stops_converting(tmp_path):
    write_coco(tmp_path / "in", [(1, 9, 9)], [(1, 10, [0, 0, 5, 5])], ("cat",))
    convert(tmp_path / "in", "yolo", tmp_path / "yolo")
    path = tmp_path / "yolo" / "data.yaml"
    path.write_text(path.read_text() + "val: images/gone\n")
    with pytest.raises(
        InputError, match=r"data\.yaml: val names 'images/gone', but .*images/gone' does not exist"
    ):
        convert(tmp_path / "yolo", "coco", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_empty_split_is_left_out_with_a_note(tmp_path):
    write_coco(tmp_path / "in", [(1, 9, 9)], [(1, 10, [0, 0, 5, 5])], ("cat",))
    write_coco(tmp_path / "in", [], [], ("cat",), "val")
    done = convert(tmp_path / "in", "coco", tmp_path / "out")
    assert done.images == {"train": 1}
    (note,) = done.notes
    assert "instances_val.json: the split is empty" in note


def test_supervision_reads_what_is_written(source, tmp_path):
    convert(source, "yolo", tmp_path / "yolo")
    convert(source, "voc", tmp_path / "voc")
    yolo = supervision.DetectionDataset.from_yolo(
        str(tmp_path / "yolo/images/train"), str(tmp_path / "yolo/labels/train"), str(tmp_path / "yolo/data.yaml")
    )
    voc = supervision.DetectionDataset.from_pascal_voc(
        str(tmp_path / "voc/JPEGImages"), str(tmp_path / "voc/Annotations")
    )
    assert yolo.classes == ["dog", "zebra", "a cat"]
    theirs = {path.split("/")[-1]: detections for path, _, detections in yolo}
    ours = read_annotations(tmp_path / "yolo", "train")
    for i, name in enumerate(ours.image_names):
        assert theirs[name.split("/")[-1]].xyxy == pytest.approx(ours.boxes_px[ours.image == i], abs=1e-4)
    theirs = {path.split("/")[-1]: detections for path, _, detections in voc}
    ours = read_annotations(tmp_path / "voc", "train")
    for i, name in enumerate(ours.image_names):
        assert theirs[name.split("/")[-1]].xyxy == pytest.approx(ours.boxes_px[ours.image == i])


def test_scattered_images_keep_order_and_source(tmp_path):
    write_scatter(tmp_path / "digits", "digits", ScatterConfig(canvas=32, train=2, val=0, test=1))
    done = convert(tmp_path / "digits", "coco", tmp_path / "out")
    assert done.images == {"test": 1, "train": 2}
    assert done.notes == []
    before, after = (open_dataset(tmp_path / name, "train") for name in ("digits", "out"))
    assert after.table.info == before.table.info
    for name in ("draw_order", "source_index"):
        assert np.array_equal(getattr(before.table, name), getattr(after.table, name))


def test_attributes_and_invalid_faces(tmp_path):
    done = convert(write_widerface(tmp_path / "wider"), "coco", tmp_path / "out")
    assert (done.layout, done.images, done.objects) == ("WIDER FACE", {"train": 5}, {"train": 5})
    content = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    first, second = content["annotations"][:2]
    assert (first["attributes"]["blur"], first["attributes"]["occlusion"]) == ("heavy blur", "heavy")
    assert (first["iscrowd"], second["iscrowd"]) == (0, 1)
    assert content["images"][0]["file_name"] == "a.jpg"


def test_images_that_share_a_name_get_different_ones(tmp_path):
    names = ["x/a.jpg", "y/a.jpg", "y/A.JPG", "b.jpg"]
    text = "".join(f"{name}\n0\n" for name in names)
    write_widerface(tmp_path / "wider", text, names=names)
    write_widerface(tmp_path / "wider", "a.jpg\n0\nc.jpg\n0\n", "val", ["a.jpg", "c.jpg"])
    for target, first_val in (("voc", "val_a.jpg"), ("coco", "a.jpg"), ("yolo", "a.jpg")):
        convert(tmp_path / "wider", target, tmp_path / target)
        written = {path.split("/")[-1] for path in read_annotations(tmp_path / target, "train").image_names}
        assert {"train_a.jpg", "b.jpg"} < written
        assert len({name.casefold() for name in written}) == 4
        assert read_annotations(tmp_path / target, "val").image_names[0].split("/")[-1] == first_val
        for split in ("train", "val"):
            assert sorted(images_of(tmp_path / target, split)) == sorted(images_of(tmp_path / "wider", split))


def test_splits_take_their_usual_names(source, tmp_path):
    for split in ("train", "val"):
        (source / split).rename(source / f"{split}2017")
        path = source / "annotations" / f"instances_{split}.json"
        path.rename(path.with_name(f"instances_{split}2017.json"))
    assert convert(source, "yolo", tmp_path / "out").images == {"train": 3, "val": 1}
    content = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
    assert content == {
        "train": "images/train",
        "val": "images/val",
        "names": {0: "dog", 1: "zebra", 2: "a cat"},
    }
    path = source / "annotations" / "instances_val2017.json"
    path.rename(path.with_name("instances_minival.json"))
    (source / "val2017").rename(source / "minival")
    with pytest.raises(InputError, match=r"split 'minival', but a data\.yaml only train, val, test"):
        convert(source, "yolo", tmp_path / "other")
    assert convert(source, "coco", tmp_path / "other").images == {"minival": 1, "train": 3}


def test_splits_may_have_different_categories(tmp_path):
    write_coco(tmp_path / "in", [(1, 9, 9)], [(1, 10, [0, 0, 5, 5])], ("cat",))
    write_coco(tmp_path / "in", [(1, 9, 9)], [(1, 10, [0, 0, 5, 5])], ("dog", "cat"), "val")
    convert(tmp_path / "in", "yolo", tmp_path / "out")
    tables = [read_annotations(tmp_path / "out", split) for split in ("train", "val")]
    assert [table.category_names for table in tables] == [["cat", "dog"]] * 2
    assert [table.category.tolist() for table in tables] == [[0], [1]]


def test_images_in_the_wrong_shape_or_missing(source, tmp_path):
    path = source / "train" / "1.png"
    Image.new("L", (80, 40)).save(path)  # Twice as large: the boxes grow with it.
    convert(source, "yolo", tmp_path / "out")
    assert read_annotations(tmp_path / "out", "train").boxes_px[0] == pytest.approx(np.array([10.8, 10, 31.2, 30]))
    Image.new("L", (20, 40)).save(path)
    with pytest.raises(InputError, match=r"1\.png: 20 x 40 pixels, but annotated as 40 x 20"):
        convert(source, "voc", tmp_path / "voc")
    path.unlink()
    with pytest.raises(InputError, match=r"1\.png' does not exist"):
        convert(source, "voc", tmp_path / "voc")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_outputs_that_must_not_be_written(source, tmp_path):
    for out in (source, tmp_path):
        with pytest.raises(InputError, match="would replace the data set that is read"):
            convert(source, "yolo", out, force=True)
    convert(source, "yolo", tmp_path / "out")
    with pytest.raises(InputError, match="exists already"):
        convert(source, "yolo", tmp_path / "out")
    convert(source, "voc", tmp_path / "out", force=True)
    assert find_layout(tmp_path / "out").name == "Pascal VOC"
    with pytest.raises(InputError, match="no layout that ssdir knows"):
        convert(tmp_path, "voc", tmp_path / "none")
    assert not (tmp_path / "none").exists()


@needs_coco128
def test_real_labels_survive_a_round_trip(tmp_path):
    convert(COCO128, "voc", tmp_path / "voc")
    convert(tmp_path / "voc", "coco", tmp_path / "coco")
    done = convert(tmp_path / "coco", "yolo", tmp_path / "yolo")
    assert (done.images, done.objects) == ({"train": 50}, {"train": 422})
    before, after = (read_annotations(folder, "train") for folder in (COCO128, tmp_path / "yolo"))
    assert after.category_names == before.category_names
    assert np.array_equal(after.category, before.category)
    assert np.abs(after.boxes_px - before.boxes_px).max() < 0.51


@needs_widerface
def test_real_faces_become_voc(tmp_path):
    done = convert(WIDERFACE, "voc", tmp_path / "voc")
    assert done.images == {"train": 297, "val": 120}
    assert done.objects == {"train": 4133 - 41, "val": 1451 - 153}
    table = read_annotations(WIDERFACE, "val")
    assert read_annotations(tmp_path / "voc", "val").boxes_px.tolist() == table.boxes_px[~table.ignored].tolist()
