"""Tests of where YOLO's images, labels and names may lie, and that nothing that is named is skipped."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from ssdir.data.annotations import AnnotationTable
from ssdir.data.readers.file_names import PathEnds
from ssdir.data.readers.registry import find_layout, read_annotations
from ssdir.data.writers.convert import convert
from ssdir.errors import InputError, MissingSplitError

WIDTH, HEIGHT = 100, 50
BOX, XYXY = "0 0.5 0.5 0.2 0.4\n", [40, 15, 60, 35]
OTHER = "0 0.5 0.5 1 1\n"


def write(folder: Path, *names: str, labels: Path | None = None, text: str = BOX) -> None:
    """Writes images with the same label each, beside them or in another folder."""
    for made in (folder, labels or folder):
        made.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (WIDTH, HEIGHT), "red").save(folder / f"{name}.png")
        ((labels or folder) / f"{name}.txt").write_text(text)


def boxes(table: AnnotationTable) -> list[list[int]]:
    return [[round(side) for side in box] for box in table.boxes_px.tolist()]


def splits_of(root: Path) -> list[str]:
    return find_layout(root).splits(root)


# Labels ---------------------------------------------------------------------------------------------------


def test_labels_are_not_looked_for_above_the_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "images" / "mine"
    write(root / "train", "a", "b")
    write(tmp_path / "images" / "mine" / "train", labels=tmp_path / "labels" / "mine" / "train")
    (tmp_path / "labels" / "mine" / "train" / "a.txt").write_text(OTHER)
    (root / "data.yaml").write_text("train: train\nnames: [cat]\n")
    assert boxes(read_annotations(root, "train")) == [XYXY, XYXY]
    monkeypatch.chdir(root)
    for name in (".", "../mine"):
        assert boxes(read_annotations(name, "train")) == [XYXY, XYXY]


def test_labels_in_labels_or_beside(tmp_path: Path) -> None:
    write(tmp_path / "data" / "b" / "images", "y")
    write(tmp_path / "data" / "a", "x")
    (tmp_path / "data.yaml").write_text("train: data\nnames: [cat]\n")
    assert boxes(read_annotations(tmp_path, "train")) == [XYXY, XYXY]
    write(tmp_path / "data" / "b" / "images", "y", labels=tmp_path / "data" / "b" / "labels", text=OTHER)
    table = read_annotations(tmp_path, "train")
    assert boxes(table) == [XYXY, [0, 0, WIDTH, HEIGHT]]
    (note,) = table.notes
    assert "text files beside images that have their labels elsewhere, passed over: 1" in note


def test_a_second_label_beside_is_counted(tmp_path: Path) -> None:
    write(tmp_path / "images" / "train", "a", "b", labels=tmp_path / "labels" / "train")
    (tmp_path / "images" / "train" / "a.txt").write_text(OTHER)
    (note,) = read_annotations(tmp_path, "train").notes
    assert "text files beside images that have their labels elsewhere, passed over: 1" in note


def test_links_to_folders_of_images_and_labels(tmp_path: Path) -> None:
    write(tmp_path / "far" / "i", "a", labels=tmp_path / "far" / "l")
    for name, target in (("images", "i"), ("labels", "l")):
        (tmp_path / "near" / name).mkdir(parents=True)
        (tmp_path / "near" / name / "train").symlink_to(tmp_path / "far" / target)
    assert boxes(read_annotations(tmp_path / "near", "train")) == [XYXY]


def test_no_label_is_asked_of_the_whole_data_set(tmp_path: Path) -> None:
    names = [f"img_{i:03d}" for i in range(12)]
    write(tmp_path / "images", *names, labels=tmp_path / "labels")
    (held_out,) = read_annotations(tmp_path, "val").image_names
    (tmp_path / "labels" / Path(held_out).with_suffix(".txt").name).unlink()
    table = read_annotations(tmp_path, "val")
    assert len(table.image) == 0
    assert [note for note in table.notes if "without a label file" in note and ": 1" in note]
    for path in (tmp_path / "labels").iterdir():
        path.unlink()
    (tmp_path / "labels" / "other.txt").write_text(BOX)
    with pytest.raises(InputError, match="none of its images, 1 in val, has a label file"):
        read_annotations(tmp_path, "val")


# data.yaml ------------------------------------------------------------------------------------------------


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    for split in ("train", "valid"):
        write(tmp_path / split / "images", split[0], labels=tmp_path / split / "labels")
    return tmp_path


@pytest.mark.parametrize("start", ["../", "project-1/", "/content/project-1/", "C:\\x\\", "./"])
def test_folders_of_another_machine_are_matched_by_their_end(exported: Path, start: str) -> None:
    lines = [f"{key}: {start}{folder}/images\n" for key, folder in (("train", "train"), ("val", "valid"))]
    (exported / "data.yaml").write_text("".join(lines) + "names: [cat]\n")
    tables = [read_annotations(exported, split) for split in ("train", "val")]
    assert [table.image_names for table in tables] == [["train/images/t.png"], ["valid/images/v.png"]]
    assert [boxes(table) for table in tables] == [[XYXY], [XYXY]]
    matched = [note for note in tables[0].notes if "matched with" in note and "train/images" in note]
    assert bool(matched) == (start not in ("../", "./"))


def test_a_neighbour_does_not_replace_a_folder_of_the_data_set(exported: Path) -> None:
    root = exported / "mine"
    write(root / "train" / "images", "own", labels=root / "train" / "labels")
    (root / "data.yaml").write_text("train: ../train/images\nval: ../valid/images\nnames: [cat]\n")
    table = read_annotations(root, "train")
    assert table.image_names == ["train/images/own.png"]
    assert "train names '../train/images', matched with" in " | ".join(table.notes)
    assert read_annotations(root, "val").image_names == ["../valid/images/v.png"]


def test_a_data_yaml_that_only_names_classes_leaves_the_splits_to_the_folders(
    exported: Path, tmp_path: Path
) -> None:
    (exported / "data.yaml").write_text("nc: 2\nnames: [cat, dog]\n")
    assert splits_of(exported) == ["train", "val"]
    table = read_annotations(exported, "val")
    assert (table.image_names, table.category_names, boxes(table)) == (
        ["valid/images/v.png"],
        ["cat", "dog"],
        [XYXY],
    )
    assert table.sources[0] == exported / "data.yaml"


@pytest.mark.parametrize("place", ["/x/test/images", "test/images", "../test/images", "gone.txt", "x" * 5000])
def test_what_is_named_but_missing_is_an_error(exported: Path, place: str) -> None:
    """Another split's folder `images` has the same end, but does not replace the missing one."""
    (exported / "data.yaml").write_text(f"train: train/images\ntest: {place}\nnames: [cat]\n")
    assert splits_of(exported) == ["train", "test"]
    for read in (lambda: read_annotations(exported, "test"), lambda: convert(exported, "coco", exported / "out")):
        with pytest.raises(InputError, match=r"data\.yaml: test names '.*', but '.*' does not exist") as caught:
            read()
        assert not isinstance(caught.value, MissingSplitError)
        assert place[:20] in str(caught.value)
        assert len(str(caught.value)) < 1000


def test_keys_for_one_split(exported: Path) -> None:
    path = exported / "data.yaml"
    path.write_text("train: train/images\nval: valid/images\nvalid: valid/images\nnames: [cat]\n")
    assert splits_of(exported) == ["train", "val"]
    path.write_text("train: train/images\nval: valid/images\nvalid: train/images\nnames: [cat]\n")
    assert splits_of(exported) == ["train", "val", "valid"]
    assert read_annotations(exported, "valid").image_names == ["train/images/t.png"]
    path.write_text("train2017: train/images\ntrain_count: many\nval: valid/images\nnames: [cat]\n")
    assert splits_of(exported) == ["train", "val"]


def test_several_descriptions_are_not_chosen_from(exported: Path) -> None:
    for name in ("a.yaml", "b.yml"):
        (exported / name).write_text("train: train/images\nnames: [cat]\n")
    with pytest.raises(InputError, match=r"described by several files \(a\.yaml, b\.yml\)"):
        read_annotations(exported, "train")
    (exported / "data.yaml").write_text("train: train/images\nnames: [dog]\n")
    assert read_annotations(exported, "train").category_names == ["dog"]


def test_names_are_text(exported: Path) -> None:
    for names in ("[no, 010, 1.10, null, 2020-01-01]", "{0: no, 1: 010, 2: 1.10, '3': null, 4: 2020-01-01}"):
        (exported / "data.yaml").write_text(f"train: train/images\nnames: {names}\nval: ~\nnc: 5\n")
        assert read_annotations(exported, "train").category_names == ["no", "010", "1.10", "null", "2020-01-01"]
        assert splits_of(exported) == ["train"]
    (exported / "data.yaml").write_text("train: train/images\nnames: [no, off, on]\n")
    assert read_annotations(exported, "train").category_names == ["no", "off", "on"]


@pytest.mark.parametrize(
    "content",
    [
        b"a: &a [x, x]\nb: &b [*a, *a]\n"
        + b"".join(b"%c: &%c [*%c, *%c]\n" % (c, c, c - 1, c - 1) for c in range(99, 122)),
        b"train: " + b"[" * 5000,
        "train: train/images\nnames: [é]\n".encode("latin-1"),
        b"train",
        b"",
        b"train: train/images\ntrain: valid/images\nnames: [cat]\n",
        b"train: {a: b}\nnames: [cat]\n",
        b"train: [[a]]\nnames: [cat]\n",
        b'train: "a\\0b"\nnames: [cat]\n',
        b"train: train/images\nnames: [[cat]]\n",
        b"train: train/images\nnames: !!int 3\n",
        b"train: train/images\nnc: " + b"9" * 5000 + b"\n",
    ],
)
def test_an_absurd_data_yaml_is_one_sentence(exported: Path, content: bytes) -> None:
    (exported / "data.yaml").write_bytes(content)
    with pytest.raises(InputError, match=r"data\.yaml") as caught:
        read_annotations(exported, "train")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_images_outside_are_counted(exported: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "list.txt").write_text("../train/images/t.png\n../train/images/../images/t.png\n")
    (root / "data.yaml").write_text("train: list.txt\nnames: [cat]\n")
    table = read_annotations(root, "train")
    assert boxes(table) == [XYXY]  # The label is in ../train/labels.
    assert [note for note in table.notes if "outside of the data set's folder" in note and ": 1 (" in note]
    assert [note for note in table.notes if "more than once, taken once: 1" in note]


def test_loose_images_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "images" / "train", "a", labels=tmp_path / "labels" / "train")
    write(tmp_path / "images", "loose", labels=tmp_path / "labels")
    (note,) = read_annotations(tmp_path, "train").notes
    assert "images beside the folders of the splits, passed over: 1 ('images/loose.png')" in note


# Faults ---------------------------------------------------------------------------------------------------


def test_all_faults_are_named_at_once(exported: Path) -> None:
    write(exported / "train" / "images", "b", "c", labels=exported / "train" / "labels")
    (exported / "train" / "images" / "b.png").write_bytes(b"no picture")
    lines = "0 1 1\n0 5 5 5 5\n9 .5 .5 .1 .1\n\n0 .5 .5 nan .1\n1e9 .5 .5 .1 .1\n0 .5 .5 .1 1e400\n"
    (exported / "train" / "labels" / "c.txt").write_text(lines)
    (exported / "train" / "labels" / "t.txt").write_bytes(b"0 .5 .5 .1 .1\n\xff\n")
    (exported / "data.yaml").write_text("train: train/images\nval: valid/images\nnames: [cat]\n")
    with pytest.raises(InputError, match="split train: 8 faults: ") as caught:
        read_annotations(exported, "train")
    for where in ("b.png", *(f"c.txt: line {i}" for i in (1, 2, 3, 5, 6, 7)), "t.txt' is not UTF-8 text (line 2)"):
        assert where in str(caught.value)
    (exported / "train" / "labels" / "c.txt").write_text("x\n" * 30)
    with pytest.raises(InputError, match=r"32 faults: .*; and 22 more$"):
        read_annotations(exported, "train")


def test_all_listed_images_that_are_gone_are_named(exported: Path) -> None:
    (exported / "list.txt").write_text("train/images/t.png\ngone/a.png\n\ngone/b.png\n")
    (exported / "data.yaml").write_text("train: list.txt\nnames: [cat]\n")
    with pytest.raises(InputError, match=r"2 faults: .*line 2 lists image 'gone/a\.png'.*line 4 .*b\.png"):
        read_annotations(exported, "train")


# Poses ----------------------------------------------------------------------------------------------------

MARKED = "0 0.5 0.5 0.2 0.4 0.45 0.4 2 0.55 0.4 2 0.5 0.6 1 0.5 0.7 0\n"
ODD_MARKED = "0 0.5 0.5 0.2 0.4 0.45 0.4 1 0.55 0.4 1 0.5 0.6 0\n"
PAIRS = "0 0.5 0.5 0.2 0.4 0.45 0.4 0.55 0.4 0.5 0.6\n"
MARKED_0_1 = "0 0.5 0.5 0.2 0.4 0.45 0.4 1 0.55 0.4 1\n"
TRIANGLE = "0 0.1 0.2 0.5 0.2 0.3 0.9\n"
ROTATED = "0 0.5 0.5 0.6 0.5 0.6 0.6 0.5 0.6\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MARKED, [XYXY]),
        (ODD_MARKED, [XYXY]),
        (BOX + MARKED, [XYXY, XYXY]),
        (TRIANGLE, [[10, 10, 50, 45]]),
        (ROTATED, [[50, 25, 60, 30]]),  # It would do as a box with two keypoints, but is a rectangle.
        (PAIRS + TRIANGLE, [[20, 20, 55, 30], [10, 10, 50, 45]]),  # Poses have as many numbers in each line.
        (PAIRS, "lines of 11 numbers may be boxes with keypoints, or polygons: give kpt_shape"),
        (MARKED_0_1, "lines of 11 numbers may be boxes with keypoints, or polygons: give kpt_shape"),
        (MARKED + PAIRS, "line 1: a box and its keypoints, it seems: give kpt_shape"),
        (TRIANGLE + MARKED, "line 2: a box and its keypoints, it seems: give kpt_shape"),
    ],
)
def test_poses_are_not_taken_for_polygons(tmp_path: Path, text: str, expected: list[list[int]] | str) -> None:
    write(tmp_path / "images" / "train", "a", labels=tmp_path / "labels" / "train", text=text)
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [cat]\n")
    if isinstance(expected, str):
        with pytest.raises(InputError, match=expected):
            read_annotations(tmp_path, "train")
        return
    table = read_annotations(tmp_path, "train")
    assert [[round(side) for side in box] for box in table.boxes_px.tolist()] == expected[: len(table.image)]
    by_form = [note for note in table.notes if "by the form of their lines" in note and note.endswith(": 1")]
    assert bool(by_form) == (text in (MARKED, ODD_MARKED, BOX + MARKED))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 0.5 0.5 0.2 0.2 0.9 1\n", [[40, 20, 60, 30]]),
        ("0 0.5 0.5 0.2 0.2 0.9 317\n0 0.9 0.5 0.2 0.2 1 2\n", [[40, 20, 60, 30], [80, 20, 100, 30]]),
        ("0 0.1 0.2 0.5 0.2 0.3 1\n", [[10, 10, 50, 50]]),  # As a box, it would leave the image.
    ],
)
def test_tracked_predictions_are_not_taken_for_triangles(
    tmp_path: Path, text: str, expected: list[list[int]]
) -> None:
    write(tmp_path / "images" / "train", "a", labels=tmp_path / "labels" / "train", text=text)
    table = read_annotations(tmp_path, "train")
    assert boxes(table) == expected
    assert any("or a track after it, passed over" in note for note in table.notes) == (expected[0][0] > 10)


def test_kpt_shape_decides(tmp_path: Path) -> None:
    write(tmp_path / "images" / "train", "a", labels=tmp_path / "labels" / "train", text=PAIRS)
    for shape, expected in (("[3, 2]", XYXY), ("[2, 3]", XYXY), ("null", [20, 20, 55, 30])):
        (tmp_path / "data.yaml").write_text(f"train: images/train\nnames: [cat]\nkpt_shape: {shape}\n")
        assert boxes(read_annotations(tmp_path, "train")) == [expected]
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [cat]\nkpt_shape: [17, 3]\n")
    with pytest.raises(InputError, match="a box and its keypoints are 55 numbers, got 10"):
        read_annotations(tmp_path, "train")


def test_what_lines_are_is_asked_of_the_whole_data_set(tmp_path: Path) -> None:
    for split, text in (("train", TRIANGLE), ("val", PAIRS)):
        write(tmp_path / "images" / split, "a", labels=tmp_path / "labels" / split, text=text)
    assert boxes(read_annotations(tmp_path, "val")) == [[20, 20, 55, 30]]


# Darknet, and labels beside images ------------------------------------------------------------------------


@pytest.fixture
def darknet(tmp_path: Path) -> Path:
    write(tmp_path / "obj_train_data", "a", "b")
    write(tmp_path / "obj_valid_data", "a")
    (tmp_path / "obj.names").write_text("cat\n")
    (tmp_path / "obj.data").write_text(
        "classes = 1\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\nbackup = backup/\n"
    )
    (tmp_path / "train.txt").write_text("data/obj_train_data/a.png\ndata/obj_train_data/b.png\n")
    (tmp_path / "valid.txt").write_text("data/obj_valid_data/a.png\n")
    return tmp_path


def test_darknet(darknet: Path) -> None:
    assert find_layout(darknet).name == "Darknet"
    assert splits_of(darknet) == ["train", "val"]
    table = read_annotations(darknet, "train")
    assert table.image_names == ["obj_train_data/a.png", "obj_train_data/b.png"]
    assert (table.category_names, boxes(table)) == (["cat"], [XYXY, XYXY])
    assert [note for note in table.notes if "matched by the end of their paths: 2 (" in note]
    assert read_annotations(darknet, "val").image_names == ["obj_valid_data/a.png"]


def test_what_darknet_names_but_is_missing(darknet: Path) -> None:
    """An image of the same name in another split's folder does not replace the missing one."""
    (darknet / "obj_valid_data" / "a.png").unlink()
    with pytest.raises(
        InputError, match=r"valid\.txt: line 1 lists image 'data/obj_valid_data/a\.png', which does"
    ):
        read_annotations(darknet, "val")
    (darknet / "valid.txt").unlink()
    with pytest.raises(InputError, match=r"obj\.data: valid names 'data/valid\.txt', but .* does not exist"):
        read_annotations(darknet, "val")
    assert len(read_annotations(darknet, "train").image) == 2
    (darknet / "obj.data").write_text("train = train.txt\nnames = obj.names\ntrain = valid.txt\n")
    with pytest.raises(InputError, match=r"obj\.data has the key 'train' twice"):
        read_annotations(darknet, "train")
    (darknet / "obj.data").write_text("classes = 1\ntrain = train.txt\nnames = obj.names\n")
    (darknet / "obj.names").write_text("cat\ndog\n")
    with pytest.raises(InputError, match=r"obj\.data: classes is '1', but .*obj\.names has 2"):
        read_annotations(darknet, "train")


def test_labels_beside_images_in_one_folder(tmp_path: Path) -> None:
    write(tmp_path, "p0", "p1", "p2")
    (tmp_path / "classes.txt").write_text("cat\n")
    assert find_layout(tmp_path).name == "YOLO beside images"
    assert splits_of(tmp_path) == ["train", "val", "test"]
    table = read_annotations(tmp_path, "all")
    assert (table.image_names, table.category_names) == (["p0.png", "p1.png", "p2.png"], ["cat"])
    assert boxes(table) == [XYXY] * 3


@pytest.mark.parametrize("names_file", ["classes.txt", "_darknet.labels"])
def test_labels_beside_images_in_a_folder_for_each_split(tmp_path: Path, names_file: str) -> None:
    for split in ("train", "valid", "test"):
        write(tmp_path / split, split[0])
        (tmp_path / split / names_file).write_text("cat\n")
    write(tmp_path, "loose")
    assert splits_of(tmp_path) == ["test", "train", "val"]
    table = read_annotations(tmp_path, "val")
    assert (table.image_names, table.category_names, boxes(table)) == (["valid/v.png"], ["cat"], [XYXY])
    assert [note for note in table.notes if "images beside the folders of the splits, passed over: 1" in note]
    (tmp_path / "test" / names_file).write_text("dog\n")
    with pytest.raises(InputError, match="name other classes: keep one of them"):
        read_annotations(tmp_path, "val")


def test_many_images_without_objects_do_not_hide_labels_beside_images(tmp_path: Path) -> None:
    write(tmp_path, *(f"a{number:03d}" for number in range(100)), text="")
    write(tmp_path, "b")
    assert find_layout(tmp_path).name == "YOLO beside images"


def test_captions_beside_images_are_no_labels(tmp_path: Path) -> None:
    write(tmp_path, "a", text="a cat on a mat in the sun\n")
    with pytest.raises(InputError, match="no layout that ssdir knows"):
        find_layout(tmp_path)


# Ends of paths --------------------------------------------------------------------------------------------


def test_ends_of_paths(tmp_path: Path) -> None:
    for name in (
        "train/images/a.png",
        "valid/images/b.png",
        "deep/down/c.png",
        "images/d.png",
        "e.png",
        "x/f.png",
        "y/f.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    ends = PathEnds(tmp_path)
    for name, meant in (
        ("/home/ann/train/images/a.png", "train/images/a.png"),
        ("C:\\ann\\train\\images\\a.png", "train/images/a.png"),
        ("data/train/images/a.png", "train/images/a.png"),
        ("down/c.png", "deep/down/c.png"),
        ("c.png", "deep/down/c.png"),
        ("/old/images/d.png", "images/d.png"),
        ("/old/e.png", "e.png"),
        ("old/x/f.png", "x/f.png"),
        ("/home/train/images/b.png", None),  # `images` is in every split.
        ("/old/c.png", None),
        ("f.png", None),  # There are two.
        ("..", None),
        ("", None),
    ):
        path = ends.find_file(name)
        assert (None if path is None else path.relative_to(tmp_path).as_posix()) == meant, name
    assert ends.find_folder("/x/valid/images") == tmp_path / "valid" / "images"
    assert ends.find_folder("/x/test/images") is None


# Odd files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"0 " * 10_000_000, "is too large to be read"),
        (b"0 " * 100_002, "line 1: a polygon must be class, then pairs"),
        ("0 .5 .5 .1 .1\n".encode("utf-16-le"), "is not UTF-8 text"),
        (b"0,0.5,0.5,0.2,0.4\n", "5 numbers, got 1"),
        (b"0 0.5 0.5 0.2 0.4\n" + b"x" * 5000, "5 numbers, got 1"),
        (b"0 0.5 0.5 0.2 " + b"y" * 5000, "not a number"),
        (b"9" * 400 + b" 0.5 0.5 0.2 0.2", "whole number"),
    ],
)
def test_odd_label_files_are_one_sentence(exported: Path, content: bytes, message: str) -> None:
    (exported / "train" / "labels" / "t.txt").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_annotations(exported, "train")
    assert "t.txt" in str(caught.value)
    assert len(str(caught.value).replace(str(exported), "")) < 500, "without the names of temporary folders"


def test_label_files_that_are_read_all_the_same(exported: Path) -> None:
    path = exported / "train" / "labels" / "t.txt"
    for content in (BOX.encode("utf-16"), b"\xef\xbb\xbf" + BOX.encode(), BOX.encode().replace(b"\n", b"\r\n")):
        path.write_bytes(content)
        assert boxes(read_annotations(exported, "train")) == [XYXY]
    path.write_bytes(b"")
    assert not boxes(read_annotations(exported, "train"))


def test_very_many_names_are_compared_fast(exported: Path) -> None:
    names = [f"n{i}" for i in range(100_000)]
    (exported / "classes.txt").write_text("\n".join(names))
    assert len(read_annotations(exported, "train").category_names) == len(names)
    (exported / "classes.txt").write_text("\n".join([*names, "n7"]))
    with pytest.raises(InputError, match="two classes are called 'n7'"):
        read_annotations(exported, "train")


def test_an_empty_line_between_names_is_not_passed_over(exported: Path) -> None:
    (exported / "classes.txt").write_text("cat\n\ndog\n")
    with pytest.raises(InputError, match=r"classes\.txt: line 2 is empty"):
        read_annotations(exported, "train")
    (exported / "classes.txt").write_text("cat\r\ndog \r\n\r\n\n")
    assert read_annotations(exported, "train").category_names == ["cat", "dog"]


def test_a_label_that_is_a_link_to_nothing_is_an_error(exported: Path) -> None:
    """The broken link is not taken for the label of an image without objects."""
    path = exported / "train" / "labels" / "t.txt"
    path.unlink()
    path.symlink_to(exported / "gone.txt")
    (exported / "data.yaml").write_text("train: train/images\nnames: [cat]\n")
    with pytest.raises(InputError, match=r"t\.txt' does not exist"):
        read_annotations(exported, "train")
