import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from ssdir.data.readers.clevrtex import clevrtex_splits, is_clevrtex, read_clevrtex
from ssdir.data.readers.registry import find_layout, open_dataset
from ssdir.errors import EmptySplitError, InputError

SIZE = (24, 32)
# Of the publisher's masks: the object's number is the index, its colour has no meaning.
PALETTE = [0, 0, 0, 255, 0, 0, 0, 128, 0, 0, 0, 255, 255, 255, 0]
SHAPES = ("cube", "sphere", "cylinder", "monkey")
BOXES = [(1, 2, 10, 12), (6, 8, 20, 20)]


def palette(mask):
    image = Image.fromarray(mask)
    image.putpalette(PALETTE)
    return image


def write(root, number, variant="full", boxes=BOXES, convert=palette, per_folder=1000):
    """Writes an image with its mask, its metadata and one of the other pictures beside it."""
    folder = root / f"clevrtex_{variant}" / str(number // per_folder)
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"CLEVRTEX_{variant}_{number:06d}"
    mask = np.zeros(SIZE, np.uint8)
    objects = []
    for i, (x1, y1, x2, y2) in enumerate(boxes, start=1):
        mask[y1:y2, x1:x2] = i
        entry = {
            "shape": SHAPES[(number + i) % 4],
            "size": ("small", "large")[i % 2],
            "color": "red",
            "rotation": 3.5,
        }
        coords = {"3d_coords": [0.0, 1.0, 0.4], "pixel_coords": [(x1 + x2) // 2, (y1 + y2) // 2, 12.0 - i]}
        objects.append(entry | coords | {"material": f"poliigonbricks{number:02d}", "index": i})
    Image.new("RGBA", SIZE[::-1], (number % 256, 0, 0, 255)).save(f"{stem}.png")
    Image.new("L", SIZE[::-1]).save(f"{stem}_depth_0001.png")
    convert(mask).save(f"{stem}_flat.png")
    with open(f"{stem}.json", "w", encoding="utf-8") as file:
        json.dump({"image_index": number, "objects": objects, "relationships": {}}, file)
    return root


def beside(root, number, suffix, variant="full"):
    return root / f"clevrtex_{variant}" / "0" / f"CLEVRTEX_{variant}_{number:06d}{suffix}"


@pytest.fixture
def ten(tmp_path):
    for number in range(10):
        write(tmp_path, number, per_folder=4)
    return tmp_path


def test_a_golden_sample_is_read(tmp_path):
    write(tmp_path, 0)
    assert is_clevrtex(tmp_path)
    assert find_layout(tmp_path).name == "CLEVRTEX"
    table = read_clevrtex(tmp_path, "train")
    assert table.image_names == ["clevrtex_full/0/CLEVRTEX_full_000000.png"]
    assert table.mask_names == ["clevrtex_full/0/CLEVRTEX_full_000000_flat.png"]
    assert table.sources == (tmp_path / "clevrtex_full/0/CLEVRTEX_full_000000.json",)
    assert table.image_sizes.tolist() == [list(SIZE)]
    assert table.category_names == ["cylinder", "sphere"]
    assert table.category.tolist() == [1, 0]
    # The second stands before the first, which is seen left of it and above it.
    assert table.boxes_px.tolist() == [[1, 2, 10, 12], [6, 8, 20, 20]]
    assert table.depth.tolist() == [11, 10]
    assert table.draw_order.tolist() == [0, 1]
    assert table.mask_value.tolist() == [1, 2]
    assert table.attribute_names["size"] == ["large", "small"]
    assert table.attributes["size"].tolist() == [0, 1]
    assert table.attribute_names["material"] == ["poliigonbricks00"]
    assert "colour" not in table.attributes
    assert table.visible is None
    assert table.notes == ()
    dataset = open_dataset(tmp_path, "train", image_size=16)
    assert len(dataset[0][1]) == 2


@pytest.mark.parametrize(
    "convert",
    [palette, Image.fromarray, lambda mask: Image.fromarray(mask.astype(np.uint16))],
    ids=["P", "L", "I;16"],
)
def test_masks_of_any_kind_give_the_same(tmp_path, convert):
    table = read_clevrtex(write(tmp_path, 0, convert=convert), "train")
    assert table.boxes_px.tolist() == [[1, 2, 10, 12], [6, 8, 20, 20]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_masks_of_colours_are_refused(tmp_path, mode):
    write(tmp_path, 0, convert=lambda mask: palette(mask).convert(mode))
    with pytest.raises(InputError, match=r"000000_flat\.png' must be 8-bit grey, 16-bit grey or palette"):
        read_clevrtex(tmp_path, "train")


def test_splits_are_the_publishers(ten):
    """By number, across folders, the images are those of test, then of val, then of train."""
    assert clevrtex_splits(ten) == ["train", "val", "test"]
    numbers = {
        split: [int(name[-10:-4]) for name in read_clevrtex(ten, split).image_names]
        for split in ("test", "val", "train", "all")
    }
    assert numbers == {"test": [0], "val": [1], "train": [*range(2, 10)], "all": [*range(10)]}


def test_splits_share_their_names(ten):
    test, train = read_clevrtex(ten, "test"), read_clevrtex(ten, "train")
    assert test.category_names == train.category_names == ["cube", "cylinder", "monkey", "sphere"]
    assert test.attribute_names == train.attribute_names
    assert len(test.attribute_names["material"]) == 10
    assert test.attributes["material"].tolist() == [0, 0]


def test_the_variant_outd_is_not_divided(tmp_path):
    for number in range(3):
        write(tmp_path, number, "outd")
    assert clevrtex_splits(tmp_path) == ["test"]
    assert len(read_clevrtex(tmp_path, "test").image_names) == 3
    with pytest.raises(InputError, match=r"has no split 'train' \(there is test, all\)"):
        read_clevrtex(tmp_path, "train")


def test_only_the_variant_vbg_has_colours(tmp_path):
    table = read_clevrtex(write(tmp_path, 0, "vbg"), "train")
    assert table.attribute_names["colour"] == ["red"]


@pytest.mark.parametrize("place", ["", "clevrtex_full", "clevrtex_full/0"])
def test_the_root_may_be_any_of_its_folders(tmp_path, place):
    root = write(tmp_path, 0) / place
    assert is_clevrtex(root)
    (path,) = read_clevrtex(root, "train").image_paths
    assert path == beside(tmp_path, 0, ".png")


def test_images_with_few_or_hidden_objects(tmp_path):
    write(tmp_path, 0, boxes=[])
    write(tmp_path, 1, boxes=[(3, 3, 9, 9), (2, 2, 10, 10)])
    table = read_clevrtex(tmp_path, "all")
    assert table.image.tolist() == [1, 1]
    assert table.boxes_px.tolist() == [[0, 0, 0, 0], [2, 2, 10, 10]]
    assert table.draw_order.tolist() == [0, 1]


def test_the_index_of_an_object_is_its_value(tmp_path):
    write(tmp_path, 0)
    path = beside(tmp_path, 0, ".json")
    content = json.loads(path.read_text())
    content["objects"].reverse()
    path.write_text(json.dumps(content))
    assert read_clevrtex(tmp_path, "train").boxes_px.tolist() == [[6, 8, 20, 20], [1, 2, 10, 12]]
    for item in content["objects"]:
        del item["index"]
    path.write_text(json.dumps(content))
    assert read_clevrtex(tmp_path, "train").boxes_px.tolist() == [[1, 2, 10, 12], [6, 8, 20, 20]]


def test_a_part_of_the_data_set_is_read_with_a_note(ten):
    for number, suffix in ((0, ".png"), (5, ".png"), (5, "_flat.png"), (5, ".json")):
        next(ten.rglob(f"CLEVRTEX_full_{number:06d}{suffix}")).unlink()
    table = read_clevrtex(ten, "all")
    assert len(table.image_names) == 8
    assert table.notes == (
        "metadata without an image, passed over: 1, the first of number 0",
        "masks without an image, passed over: 1, the first of number 0",
        "8 images, though the last is number 9: a part of the data set, whose splits are not those of the whole",
    )


def test_all_faults_are_named_at_once(ten):
    beside(ten, 2, ".json").write_text("[]")
    beside(ten, 3, "_flat.png").unlink()
    with pytest.raises(InputError, match=r"2 faults: .*000002\.json: expected .*; .*000003.* has no mask"):
        read_clevrtex(ten, "train")


def test_objects_of_the_variant_vbg_need_colours(tmp_path):
    write(tmp_path, 0, "vbg")
    path = beside(tmp_path, 0, ".json", "vbg")
    content = json.loads(path.read_text())
    del content["objects"][1]["color"]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="object 1 has no 'color', as the objects of this variant do"):
        read_clevrtex(tmp_path, "all")


def change_object(key, value):
    def change(content):
        content["objects"][1][key] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("objects"), "'objects' is missing"),
        (lambda c: c.update(objects={"0": "cube"}), "'objects' must be a list"),
        (lambda c: c.update(objects=["cube"]), "'objects.0' must be "),
        (change_object("shape", None), "'objects.1.shape' must be text, got None"),
        (change_object("shape", ""), "'objects.1.shape' must have at least 1 character"),
        (change_object("material", 3), "'objects.1.material' must be text, got 3"),
        (change_object("pixel_coords", [1, 2]), "'objects.1.pixel_coords' must have at least 3 entries"),
        (change_object("pixel_coords", [1, 2, "3"]), "'objects.1.pixel_coords.2' must be a number"),
        (change_object("pixel_coords", [1, 2, float("nan")]), "'objects.1.pixel_coords.2' must be "),
        (change_object("pixel_coords", [1, 2, 10**400]), "'objects.1.pixel_coords.2' must be "),
        (change_object("index", 0), "'objects.1.index' must be at least 1, got 0"),
        (change_object("index", 10**9), "'objects.1.index' must be at most 65535"),
        (change_object("index", True), "'objects.1.index' must be a whole number, got True"),
        (change_object("index", 1), "two objects have the same index"),
    ],
)
def test_bad_metadata_are_named(tmp_path, change, message):
    write(tmp_path, 0)
    path = beside(tmp_path, 0, ".json")
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        read_clevrtex(tmp_path, "train")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: beside(root, 0, ".json").unlink(), "has no metadata 'CLEVRTEX_full_000000.json' beside it"),
        (lambda root: beside(root, 0, ".json").write_text("{\n?"), "not valid JSON at line 2"),
        (
            lambda root: beside(root, 0, "_flat.png").unlink(),
            "has no mask 'CLEVRTEX_full_000000_flat.png' beside it",
        ),
        (lambda root: Image.new("P", (8, 8)).save(beside(root, 0, "_flat.png")), "32 x 24 pixels as its image"),
        (lambda root: palette(np.full(SIZE, 4, np.uint8)).save(beside(root, 0, "_flat.png")), "has a value 4"),
        (lambda root: beside(root, 0, ".png").write_bytes(b"no image"), "is not an image in a known format"),
        (lambda root: write(root, 0, "camo"), "has several variants (camo, full): name the folder of one"),
    ],
)
def test_broken_files_are_named(tmp_path, spoil, message):
    write(tmp_path, 0)
    write(tmp_path, 1)
    spoil(tmp_path)
    with pytest.raises(InputError, match=re.escape(message)):
        read_clevrtex(tmp_path, "all")


def test_an_image_in_two_places_is_refused(tmp_path):
    write(tmp_path, 0)
    shutil.copytree(tmp_path / "clevrtex_full/0", tmp_path / "clevrtex_full/copy")
    with pytest.raises(InputError, match="are of the same image: remove one of them"):
        read_clevrtex(tmp_path, "train")


def test_missing_folders_and_splits(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_clevrtex(tmp_path / "no", "train")
    assert not is_clevrtex(tmp_path)
    with pytest.raises(InputError, match="has no images CLEVRTEX_<variant>_<six digits>"):
        read_clevrtex(tmp_path, "train")
    write(tmp_path, 0)
    with pytest.raises(InputError, match=r"has no split 'dev' \(there is train, val, test, all\)"):
        read_clevrtex(tmp_path, "dev")
    with pytest.raises(EmptySplitError, match="has only 1 images, none of them in split test"):
        read_clevrtex(tmp_path, "test")
