import numpy as np
import pytest
import yaml
from PIL import Image

from ssdir.data.readers.registry import find_layout, open_dataset
from ssdir.data.readers.yolo.reader import is_yolo, read_yolo, yolo_splits
from ssdir.data.writers.convert import convert
from ssdir.documents import read_lines
from ssdir.errors import EmptySplitError, InputError

from .real import real_data

COCO128, needs_coco128 = real_data("coco128")

LABELS = {
    "a": "1 0.5 0.5 0.5 0.25\n\n0 0.25 0.5 0.1 0.2\n",  # A box, an empty line, a box.
    "b": "",
    "c": None,  # No label file.
    "d": "0 0.1 0.2 0.5 0.2 0.3 0.9\n1.0 0.9 0.9 0.4 0.4\n",  # A polygon; a box out of the image.
}


def write_images(folder, names=tuple(LABELS), size=(40, 80)):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", size[::-1], "red").save(folder / f"{name}.png")


def write_labels(folder, labels=LABELS):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in labels.items():
        if text is not None:
            (folder / f"{name}.txt").write_text(text)


@pytest.fixture
def golden(tmp_path):
    """Writes images/train, labels/train and classes.txt. Only the last `images` of a path becomes `labels`."""
    root = tmp_path / "images" / "yolo"
    write_images(root / "images" / "train")
    write_labels(root / "labels" / "train")
    (root / "classes.txt").write_text("cat\ndog\n")
    return root


def relabel(root, text, name="a"):
    (root / "labels" / "train" / f"{name}.txt").write_text(text)
    return root


def write_yaml(root, name="data.yaml", **content):
    (root / name).write_text(yaml.safe_dump(content, sort_keys=False))


def check_golden(table, names=("cat", "dog")):
    assert [name.split("/")[-1] for name in table.image_names] == ["a.png", "b.png", "c.png", "d.png"]
    assert table.image_sizes.tolist() == [[40, 80]] * 4
    assert table.category_names == list(names)
    assert table.image.tolist() == [0, 0, 3, 3]
    assert table.category.tolist() == [1, 0, 0, 1]
    expected = [[20, 15, 60, 25], [16, 16, 24, 24], [8, 8, 40, 36], [56, 28, 88, 44]]
    assert table.boxes_px == pytest.approx(np.array(expected))
    assert not table.ignored.any()
    assert table.difficult is None
    assert len([note for note in table.notes if "without a label file" in note and "c.png" in note]) == 1


def test_bare_folders(golden):
    assert is_yolo(golden)
    assert find_layout(golden).name == "YOLO"
    assert yolo_splits(golden) == ["train"]
    table = read_yolo(golden, "train")
    check_golden(table)
    assert len(table.notes) == 1
    assert table.root / table.image_names[0] == golden / "images" / "train" / "a.png"
    assert golden / "labels" / "train" / "a.txt" in table.sources
    assert golden / "classes.txt" in table.sources


def test_as_a_data_set_boxes_are_clipped(golden):
    data = open_dataset(golden, "train")
    assert [len(data.objects(i)) for i in range(4)] == [2, 0, 0, 2]
    assert data.objects(3).boxes_px((40, 80)).numpy()[1] == pytest.approx(np.array([56, 28, 80, 40]))


def test_folders_named_after_splits_are_these_splits(golden):
    for top in ("images", "labels"):
        (golden / top / "train").rename(golden / top / "train2017")
    write_images(golden / "images" / "valid", ["x"])
    write_labels(golden / "labels" / "valid", {"x": "0 0.5 0.5 1 1"})
    assert yolo_splits(golden) == ["train", "val"]
    for split in ("train", "train2017"):
        check_golden(read_yolo(golden, split))
    assert read_yolo(golden, "val").boxes_px.tolist() == [[0, 0, 80, 40]]
    with pytest.raises(InputError, match=r"no split 'test' \(there is train, val\): give it a folder"):
        read_yolo(golden, "test")
    (golden / "images" / "train2014").mkdir()
    assert yolo_splits(golden) == ["train2014", "train2017", "val"]
    check_golden(read_yolo(golden, "train2017"))


def test_split_folders_may_come_first(golden):
    for top in ("images", "labels"):
        (golden / "train").mkdir(exist_ok=True)
        (golden / top / "train").rename(golden / "train" / top)
        (golden / top).rmdir()
    assert is_yolo(golden)
    check_golden(read_yolo(golden, "train"))


@pytest.mark.parametrize("names", [["cat", "dog"], {0: "cat", 1: "dog"}, {"1": "dog", "0": "cat"}])
@pytest.mark.parametrize("place", ["images/train", ["images/train"], "../images/train", "list.txt"])
def test_a_data_yaml(golden, names, place):
    (golden / "classes.txt").unlink()
    (golden / "list.txt").write_text("".join(f"./images/train/{name}.png\n" for name in LABELS))
    write_yaml(golden, path="somewhere/else", train=place, val=None, test="images/absent", names=names)
    assert is_yolo(golden)
    assert yolo_splits(golden) == ["train", "test"]  # It is named, so it is missed.
    check_golden(read_yolo(golden, "train"))
    with pytest.raises(InputError, match=r"no split 'val' \(there is train, test\): name its folder in data.yaml"):
        read_yolo(golden, "val")
    with pytest.raises(InputError, match=r"images/absent' does not exist"):
        read_yolo(golden, "test")


def test_a_data_yaml_by_another_name_that_leads_elsewhere(golden, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    places = {"train": "images/train", "val": "images/train", "test": "absent"}
    write_yaml(other, "pets.yaml", path=str(golden), **places, names=None, nc=None)
    table = read_yolo(other, "val")
    check_golden(table, names=("0", "1"))
    write_yaml(other, "pets.yaml", path=str(golden), **places, nc=2)
    table = read_yolo(other, "val")
    check_golden(table, names=("0", "1"))
    assert table.image_paths[0] == golden / "images" / "train" / "a.png"
    assert any("val and train are the same images" in note for note in table.notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: [\nnames: x: y\n", r"data\.yaml: not valid YAML at line \d"),
        ("- train\n", r"must be a mapping"),
        ("path: .\n", "says neither where train"),
        ("train: 3\nnames: [a]\n", "train names '3', but .* does not exist"),
        ("train: images/train\nnames: [a, a]\n", "two classes are called 'a'"),
        ("train: images/train\nnames: []\n", "no class names"),
        ("train: images/train\nnames: a\n", "names must be a list.*got 'a'"),
        ("train: images/train\nnames: {0: a, 2: b}\n", "keys of names must be 0 ... 1"),
        ("train: images/train\nnames: {a: b}\n", "keys of names must be the classes' numbers"),
        ("train: images/train\nnames: [a, b]\nkpt_shape: 3\n", "'kpt_shape' must be a list"),
        ("train: images/train\nnames: [a, b]\nkpt_shape: [17, 4]\n", "kpt_shape must be .number of keypoints"),
        ("train: images/train\nnc: 3\nnames: [a, b]\n", r"nc is 3, but names has 2 \('a' ... 'b'\): correct one"),
        ("train: images/train\nnc: 3\nnames:\n", "names is empty, though nc is 3: list the classes"),
        ("train: images/train\nnc: -3\n", "'nc' must be at least 1, got '-3'"),
        ("train: images/train\nnc: 1000000000000\n", "'nc' must be at most 100000"),
        ("train: images/train\nnc: two\nnames: [a, b]\n", "'nc' must be a whole number, got 'two'"),
        ("train: images/train\nnames: [a, [b]]\n", r"the name of class 1 must be text, got \['b'\]"),
        ("train: images/train\nnames: [a, '']\n", "the name of class 1 must be text"),
        ("train: list.txt\nnames: [a, b]\n", r"list\.txt: line 2 lists image 'gone\.png'"),
        ("train: empty.txt\nnames: [a, b]\n", "lists no images"),
        ("train: images/none\nnames: [a, b]\n", "has no images"),
    ],
)
def test_broken_yaml(golden, text, message):
    (golden / "images" / "none").mkdir()
    (golden / "list.txt").write_text("images/train/a.png\ngone.png\n")
    (golden / "empty.txt").touch()
    (golden / "data.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_yolo(golden, "train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.5", "must be class, x_center, y_center, width, height: 5 numbers, got 4"),
        ("0 0.5 0.5 0.5 wide", "not a number .*'wide'"),
        ("0 0.5 0.5 0.5 nan", "must be relative"),
        ("0 0.5 0.5 inf 0.5", "must be relative"),
        ("0 40 20 10 10", "must be relative to the image's size, 0 ... 1, got 40"),
        ("0 0.5 0.5 -0.1 0.5", "must not be negative"),
        ("2 0.5 0.5 0.5 0.5", r"class 2 is out of range \(.*classes\.txt names 2\)"),
        ("-1 0.5 0.5 0.5 0.5", "class -1 is out of range"),
        ("0.5 0.5 0.5 0.5 0.5", "class must be a whole number, got '0.5'"),
        ("cat 0.5 0.5 0.5 0.5", "class must be a whole number, got 'cat'"),
        ("inf 0.5 0.5 0.5 0.5", "class must be a whole number"),
        ("0 0.1 0.2 0.5 0.2 0.3 0.9 0.4", "a polygon must be class, then pairs of x and y, got 7"),
    ],
)
def test_broken_labels_name_file_and_line(golden, line, message):
    relabel(golden, f"0 0.5 0.5 0.5 0.5\n\n{line}\n")
    with pytest.raises(InputError, match=message) as caught:
        read_yolo(golden, "train")
    assert f"{golden / 'labels' / 'train' / 'a.txt'}: line 3" in str(caught.value)


@pytest.mark.parametrize("name", ["data.yaml", "classes.txt"])
def test_what_is_there_but_no_file_is_not_passed_over(golden, name):
    (golden / name).unlink(missing_ok=True)
    (golden / name).symlink_to(golden / "nothing")
    with pytest.raises(InputError, match=rf"{name}' does not exist"):
        read_yolo(golden, "train")


@pytest.mark.parametrize("count", [1, 2, 12])
def test_all_broken_pictures_are_named_at_once(golden, count):
    names = [f"broken{i:02d}" for i in range(count)]
    for name in names:
        (golden / "images" / "train" / f"{name}.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="or remove") as caught:
        read_yolo(golden, "train")
    named = [name for name in names if name in str(caught.value)]
    assert named == names[:10]
    assert ("; and 2 more" in str(caught.value)) == (count == 12)
    assert (f"split train: {count} faults" in str(caught.value)) == (count > 1)


def test_boxes_without_area_stay_until_the_data_set_is_made(golden):
    relabel(golden, "0 0.5 0.5 0 0.5\n")
    assert read_yolo(golden, "train").boxes_px[0].tolist() == [40, 10, 40, 30]
    data = open_dataset(golden, "train")
    assert (len(data.objects(0)), data.dropped_boxes) == (0, 1)


def test_confidences_are_passed_over_and_counted(golden):
    table = read_yolo(relabel(golden, "0 0.5 0.5 0.5 0.5 0.99\n0 0.5 0.5 0.25 0.5 7\n"), "train")
    assert table.boxes_px[:2].tolist() == [[20, 10, 60, 30], [30, 10, 50, 30]]
    assert any("sixth number" in note and note.endswith(": 2") for note in table.notes)


@pytest.mark.parametrize("predicted", ["", " 0.8", " 0.8 12"])
def test_poses_are_read_as_their_boxes(golden, predicted):
    write_yaml(golden, train="images/train", names=["cat", "dog"], kpt_shape=[2, 3])
    relabel(golden, f"0 0.5 0.5 0.5 0.5 0.3 0.2 2 0.9 0.9 1{predicted}\n")
    assert read_yolo(golden, "train").boxes_px[0].tolist() == [20, 10, 60, 30]


def test_repeated_lines_are_left_out_and_counted(golden):
    table = read_yolo(relabel(golden, "0 0.5 0.5 0.5 0.5\n" * 3), "train")
    assert (table.image == 0).sum() == 1
    assert any("left out: 2" in note and "a.png" in note for note in table.notes)


def test_labels_without_an_image_are_counted(golden):
    relabel(golden, "0 0.5 0.5 0.5 0.5", name="z")
    assert any("without an image" in note and "z.txt" in note for note in read_yolo(golden, "train").notes)


def test_no_label_at_all_is_an_error(golden):
    for path in (golden / "labels" / "train").iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"none of its images, 4 in train, has a label file \(.*a\.txt"):
        read_yolo(golden, "train")


def test_two_images_with_one_label_file_are_an_error(golden):
    Image.new("L", (9, 9)).save(golden / "images" / "train" / "a.jpg")
    with pytest.raises(InputError, match=r"a\.png' and .*a\.jpg' share the label file"):
        read_yolo(golden, "train")


def test_images_listed_twice_are_taken_once(golden):
    (golden / "list.txt").write_text("images/train/a.png\nimages/train/b.png\nimages/train/a.png\n")
    write_yaml(golden, train="list.txt", names=["cat", "dog"])
    table = read_yolo(golden, "train")
    assert table.image_names == ["images/train/a.png", "images/train/b.png"]
    assert any("more than once, taken once: 1" in note for note in table.notes)


def test_without_names_classes_are_numbers_that_agree_between_splits(golden):
    (golden / "classes.txt").unlink()
    write_images(golden / "images" / "val", ["x"])
    write_labels(golden / "labels" / "val", {"x": "3 0.5 0.5 1 1"})
    for split in ("train", "val"):
        assert read_yolo(golden, split).category_names == ["0", "1", "2", "3"]
    (golden / "labels" / "val" / "x.txt").write_text("1000000000000 0.5 0.5 1 1")
    with pytest.raises(InputError, match=r"x\.txt: line 1: class 1e\+12 is out of range"):
        read_yolo(golden, "train")
    (golden / "labels" / "val" / "x.txt").write_text("\nx 0.5 0.5 1 1")
    with pytest.raises(InputError, match=r"x\.txt: line 2: the class must be a whole number, got 'x'"):
        read_yolo(golden, "train")


@pytest.mark.parametrize("named", [True, False])
def test_every_label_file_is_read_once(golden, monkeypatch, named):
    if not named:
        (golden / "classes.txt").unlink()
    reads = []

    def counted(path, *limit):
        reads.append(path.name)
        return read_lines(path, *limit)

    monkeypatch.setattr("ssdir.data.readers.yolo.reader.read_lines", counted)
    table = read_yolo(golden, "train")
    assert sorted(reads) == ["a.txt", "b.txt", "d.txt"]
    assert table.category_names == (["cat", "dog"] if named else ["0", "1"])


def test_names_may_lie_beside_the_labels(golden):
    (golden / "classes.txt").rename(golden / "labels" / "classes.txt")
    check_golden(read_yolo(golden, "train"))


def test_images_without_split_folders_are_divided(tmp_path):
    names = [f"{i:02d}" for i in range(30)]
    write_images(tmp_path / "images", names)
    write_labels(tmp_path / "labels", {name: f"0 0.5 0.5 0.{name} 0.5\n" for name in names[1:]})
    assert yolo_splits(tmp_path) == ["train", "val", "test"]
    parts = {split: read_yolo(tmp_path, split).image_names for split in ("train", "val", "test", "all")}
    assert [len(part) for part in parts.values()] == [24, 3, 3, 30]
    assert sorted(parts["train"] + parts["val"] + parts["test"]) == parts["all"]
    assert parts["all"] == [f"images/{name}.png" for name in names]
    # The same on every machine, and not the first ones.
    assert parts["val"] == ["images/02.png", "images/10.png", "images/28.png"]
    with pytest.raises(InputError, match=r"not divided into splits: ask for train, val or test .* not 'dev'"):
        read_yolo(tmp_path, "dev")
    for name in names[2:]:
        (tmp_path / "images" / f"{name}.png").unlink()
    assert len(read_yolo(tmp_path, "train").image_names) == 2
    with pytest.raises(EmptySplitError, match=r"too few images to divide .*\(2\): train has all of them"):
        read_yolo(tmp_path, "val")
    assert convert(tmp_path, "coco", tmp_path / "coco").images == {"train": 2}


def test_grey_cmyk_and_turned_images(golden):
    """Boxes refer to the image after its EXIF orientation is applied."""
    folder = golden / "images" / "train"
    for name in "abcd":
        (folder / f"{name}.png").unlink()
    Image.new("L", (80, 40), 200).save(folder / "a.jpg")
    Image.new("CMYK", (80, 40), (0, 90, 90, 0)).save(folder / "b.jpg")
    pixels = np.zeros((80, 40, 3), np.uint8)  # As stored, on its side: seen, it is 80 wide and 40 high.
    pixels[:40, 20:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(folder / "c.jpg", exif=exif, quality=95)
    # Turned clockwise, its upper right quarter is the lower right one.
    relabel(golden, "0 0.75 0.75 0.5 0.5\n", name="c")
    data = open_dataset(golden, "train")
    assert data.image_sizes.tolist() == [[40, 80]] * 3
    assert [tuple(data[i][0].shape) for i in range(3)] == [(3, 40, 80)] * 3
    image, objects = data[2]
    x1, y1, x2, y2 = objects.boxes_px((40, 80))[0].int().tolist()
    assert (x1, y1, x2, y2) == (40, 20, 80, 40)
    assert image[:, y1 + 2 : y2 - 2, x1 + 2 : x2 - 2].float().mean() > 250
    assert image.float().mean() < 70


@needs_coco128
def test_real_labels():
    assert find_layout(COCO128).name == "YOLO"
    assert yolo_splits(COCO128) == ["train"]
    table = read_yolo(COCO128, "train")
    assert (len(table.image_names), len(table.image)) == (50, 422)
    assert (len(table.category_names), len(np.unique(table.category))) == (80, 57)
    assert len(table.notes) == 1
    assert "000000000250.jpg" in table.notes[0]
    data = open_dataset(COCO128, "train", classes=["person"])
    assert data.dropped_boxes == 0
    assert data[0][0].shape[0] == 3
    assert (table.boxes_px > -1).all()
    assert (table.boxes_px < table.image_sizes[table.image][:, [1, 0, 1, 0]] + 1).all()
