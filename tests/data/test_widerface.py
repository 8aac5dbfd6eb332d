import numpy as np
import pytest
from PIL import Image

from ssdir.data.readers.registry import find_layout, open_dataset
from ssdir.data.readers.widerface import ATTRIBUTES, is_widerface, read_widerface, widerface_splits
from ssdir.errors import InputError

from .real import real_data

WIDERFACE, needs_widerface = real_data("widerface")

GOLDEN = """0--Parade/a.jpg
3
2 3 10 20 2 1 1 0 2 1 
0 0 1 1 0 0 0 1 0 0 
5 5 0 4 0 0 0 0 0 0 
0--Parade/zero_with_line.jpg
0
0 0 0 0 0 0 0 0 0 0 
0--Parade/zero_without_line.jpg
0
1--Handshaking/one_zero_line.jpg
1
0 0 0 0 0 0 0 0 0 0 
1--Handshaking/zero_box_among_two.jpg
2
0 0 0 0 0 0 0 0 0 0 
-4 30 20 40 0 0 0 0 0 0 
"""  # noqa: W291
NAMES = [line for line in GOLDEN.splitlines() if line.endswith(".jpg")]


def write_widerface(root, text=GOLDEN, split="train", names=NAMES, size=(40, 60)):
    (root / "wider_face_split").mkdir(parents=True, exist_ok=True)
    (root / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt").write_text(text)
    for i, name in enumerate(names):
        path = root / f"WIDER_{split}" / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*size, 3), 50 * i % 256, np.uint8)).save(path)
    return root


@pytest.fixture
def golden(tmp_path):
    return write_widerface(tmp_path / "wider")


def test_a_golden_sample_is_read(golden):
    assert is_widerface(golden)
    assert find_layout(golden).name == "WIDER FACE"
    table = read_widerface(golden, "train")
    assert table.category_names == ["face"]
    assert table.image_names == [f"WIDER_train/images/{name}" for name in NAMES]
    assert table.image_sizes.tolist() == [[40, 60]] * 5
    assert table.image.tolist() == [0, 0, 0, 4, 4]
    assert table.boxes_px.tolist() == [
        [2, 3, 12, 23],
        [0, 0, 1, 1],
        [5, 5, 5, 9],
        [0, 0, 0, 0],
        [-4, 30, 16, 70],
    ]
    assert table.ignored.tolist() == [False, True, False, False, False]
    first = {name: ATTRIBUTES[name][column[0]] for name, column in table.attributes.items()}
    assert first == {
        "blur": "heavy blur",
        "expression": "exaggerate",
        "illumination": "extreme",
        "occlusion": "heavy",
        "pose": "atypical",
    }
    assert table.notes == ()


def test_as_a_data_set_it_has_no_boxes_without_area_and_none_that_are_invalid(golden):
    data = open_dataset(golden, "train")
    assert [len(data.objects(i)) for i in range(5)] == [1, 0, 0, 0, 1]
    assert data.dropped_boxes == 3
    assert data.objects(4).boxes_px((40, 60)).tolist() == [[0, 30, 16, 40]]


def test_an_image_with_410_faces(tmp_path):
    faces = "".join(f"{i % 60} {i // 60} 1 1 0 0 0 0 0 0\n" for i in range(410))
    root = write_widerface(tmp_path, f"a.jpg\n410\n{faces}b.jpg\n0\n", names=["a.jpg", "b.jpg"])
    assert np.bincount(read_widerface(root, "train").image, minlength=2).tolist() == [410, 0]


def test_repeated_faces_are_left_out_and_counted(tmp_path):
    face = "1 2 3 4 0 0 0 0 0 0\n"
    table = read_widerface(write_widerface(tmp_path, f"a.jpg\n2\n{face}{face}", names=["a.jpg"]), "train")
    assert table.boxes_px.tolist() == [[1, 2, 4, 6]]
    assert len(table.notes) == 1
    assert "left out: 1" in table.notes[0]
    assert "a.jpg" in table.notes[0]


def test_missing_images_are_skipped_and_counted(golden):
    for name in NAMES[1:4]:
        (golden / "WIDER_train/images" / name).unlink()
    table = read_widerface(golden, "train")
    assert [name.split("/")[-1] for name in table.image_names] == ["a.jpg", "zero_box_among_two.jpg"]
    assert table.image.tolist() == [0, 0, 0, 1, 1]
    assert len(table.notes) == 1
    assert "3 of 5 images are not there" in table.notes[0]
    assert "zero_with_line.jpg', line 6" in table.notes[0]


def test_no_image_at_all_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"none of its 5 images is in '.*WIDER_train"):
        read_widerface(write_widerface(tmp_path, names=[]), "train")
    with pytest.raises(InputError, match="names no images"):
        read_widerface(write_widerface(tmp_path, "\n", names=[]), "train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg\n2\n1 1 5 5 0 0 0 0 0 0\na.jpg\n", "line 4 should be a face, 10 whole numbers.*'a.jpg'"),
        ("a.jpg\n1\n1 1 5 5 0 0 0 0 0\n", "line 3 should be a face"),
        ("a.jpg\n1\n1 1 5 1_0 0 0 0 0 0 0\n", "line 3 should be a face"),
        (f"a.jpg\n1\n1 1 5 {'9' * 5000} 0 0 0 0 0 0\n", "line 3 should be a face.{1,200}$"),
        (f"a.jpg\n{'9' * 5000}\n", "line 2 should be the number of faces of 'a.jpg', got '999.{1,80}$"),
        ("a.jpg\n999999999\n1 1 5 5 0 0 0 0 0 0\n", "line 2 says that 'a.jpg' has 999999999 faces, but the"),
        ("a.jpg\n1\n1 1 5 5.5 0 0 0 0 0 0\n", "line 3 should be a face"),
        ("a.jpg\n1\n1 1 5 5 0 0 0 0 3 0\n", "line 3: occlusion must be 0 ... 2, got 3"),
        ("a.jpg\n1\n1 1 5 5 0 0 0 2 0 0\n", "line 3: invalid must be 0 ... 1, got 2"),
        ("a.jpg\nb.jpg\n", "line 2 should be the number of faces of 'a.jpg', got 'b.jpg'"),
        ("a.jpg\n", "line 2 should be the number of faces"),
        ("a.jpg\n-1\n", "line 2 should be the number of faces"),
        ("a.jpg\n0\n1 1 5 5 0 0 0 0 0 0\n", "line 3 should name an image"),
        ("a.jpg\n0\n\na.jpg\n0\n", r"line 4 names 'a.jpg' again \(first in line 1\)"),
    ],
)
def test_broken_lines_are_named(tmp_path, text, message):
    root = write_widerface(tmp_path, text, names=["a.jpg"])
    with pytest.raises(InputError, match=message) as caught:
        read_widerface(root, "train")
    assert "wider_face_train_bbx_gt.txt" in str(caught.value)


def test_all_faults_are_named_at_once(tmp_path):
    text = "a.jpg\n12\n" + "1 1 5 5 0 0 0 0 9 0\n" * 12 + "b.jpg\n1\n1 1 5 5 0 0 0 7 0 0\n"
    with pytest.raises(InputError, match=r"13 faults: .*line 3: occlusion.*line 12: occlusion.*; and 3 more$"):
        read_widerface(write_widerface(tmp_path, text, names=["a.jpg"]), "train")


@pytest.mark.parametrize("name", ["../../../secret.jpg", "/etc/secret.jpg", "x" * 300 + ".jpg"])
def test_images_outside_are_counted_and_not_read(tmp_path, name):
    root = write_widerface(tmp_path / "set", f"a.jpg\n0\n{name}\n1\n1 1 5 5 0 0 0 0 0 0\n", names=["a.jpg"])
    (tmp_path / "secret.jpg").write_bytes((root / "WIDER_train/images/a.jpg").read_bytes())
    table = read_widerface(root, "train")
    assert table.image_names == ["WIDER_train/images/a.jpg"]
    assert len(table.image) == 0
    assert "1 of 2 images lie outside of the data set and were not read (first: '" in table.notes[0]


def test_missing_splits_and_broken_images(golden, tmp_path):
    assert widerface_splits(golden) == ["train"]
    with pytest.raises(
        InputError, match=r"there is train\): .*_test_bbx_gt\.txt is missing .* no boxes for its test split"
    ):
        read_widerface(golden, "test")
    with pytest.raises(InputError, match="does not exist"):
        read_widerface(tmp_path / "no", "train")
    (golden / "WIDER_train/images" / NAMES[0]).write_text("no image")
    with pytest.raises(InputError, match=r"a\.jpg' is not an image"):
        read_widerface(golden, "train")


@needs_widerface
@pytest.mark.parametrize(
    ("split", "images", "faces", "invalid", "empty", "no_area"),
    [("train", 297, 4133, 38, 2, 3), ("val", 120, 1451, 153, 1, 0)],
)
def test_real_images(split, images, faces, invalid, empty, no_area):
    assert widerface_splits(WIDERFACE) == ["train", "val"]
    table = read_widerface(WIDERFACE, split)
    assert (len(table.image_names), len(table.image), table.ignored.sum()) == (images, faces, invalid)
    per_image = np.bincount(table.image, minlength=images)
    assert (per_image == 0).sum() == empty
    assert per_image.max() == {"train": 410, "val": 317}[split]
    assert (table.boxes_px[:, 2:] <= table.boxes_px[:, :2]).any(axis=1).sum() == no_area
    assert (table.boxes_px >= 0).all()
    assert (table.boxes_px[:, 2:] <= table.image_sizes[table.image][:, ::-1]).all()
    assert table.notes == ()
