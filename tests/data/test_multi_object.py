import re

import numpy as np
import pytest
from PIL import Image

from ssdir.data.masks import mask_boxes
from ssdir.data.readers.registry import find_layout, open_dataset, read_annotations
from ssdir.data.readers.tfrecord.multi_object import read_multi_object_images
from ssdir.data.readers.tfrecord.unpack import unpack
from ssdir.errors import InputError

from .records import entity_masks, example, write_records

SIZE = (35, 35)
BOXES = [(2, 3, 10, 9), (8, 5, 20, 30), (25, 0, 35, 4)]
RED, YELLOW, CYAN = [255, 0, 0], [255, 255, 0], [0, 255, 255]


def picture(size, seed=0, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (*size, channels), dtype=np.uint8)


def tetrominoes(seed=0, **changes):
    """Returns a record of three shapes on the background, the first partly covered by the second."""
    features = {
        "image": picture(SIZE, seed).tobytes(),
        "mask": entity_masks(SIZE, *BOXES).tobytes(),
        "visibility": [1.0] * 4,
        "shape": [0.0, 2.0, 10.0, 2.0],
        "color": [[0, 0, 0], RED, YELLOW, CYAN],
        "x": [0.0, 1.0, 2.0, 3.0],
        "y": [0.0, 1.0, 2.0, 3.0],
    } | changes
    features["color"] = np.array(features["color"], dtype=float)
    return example(**{name: value for name, value in features.items() if value is not None})


def read_one(tmp_path, name, record):
    (scene,) = read_multi_object_images(write_records(tmp_path / name, [record]))
    return scene


def test_a_golden_tetrominoes_record(tmp_path):
    scene = read_one(tmp_path, "tetrominoes_train.tfrecords", tetrominoes(seed=3))
    assert np.array_equal(scene.image, picture(SIZE, 3))
    assert np.array_equal(scene.mask, entity_masks(SIZE, *BOXES).argmax(axis=0))
    assert [item.value for item in scene.objects] == [1, 2, 3]
    # The first is seen down to where the second begins, and above it.
    assert [item.box for item in scene.objects] == BOXES
    assert [item.category for item in scene.objects] == ["shape 2", "shape 10", "shape 2"]
    assert [item.attributes["colour"] for item in scene.objects] == ["red", "yellow", "cyan"]
    assert {item.depth for item in scene.objects} == {None}


def test_colours_are_named_at_either_scale(tmp_path):
    record = tetrominoes(color=[[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 1]])
    scene = read_one(tmp_path, "tetrominoes_train.tfrecords", record)
    assert [item.attributes["colour"] for item in scene.objects] == ["blue", "green", "magenta"]


def test_boxes_are_of_what_is_seen(tmp_path):
    masks = entity_masks(SIZE, (0, 0, 10, 10), (5, 0, 12, 10))
    scene = read_one(
        tmp_path,
        "tetrominoes_train.tfrecords",
        tetrominoes(mask=masks.tobytes(), visibility=[1.0] * 3, shape=[0.0, 1.0, 2.0], color=[RED] * 3),
    )
    assert [item.box for item in scene.objects] == [(0, 0, 5, 10), (5, 0, 12, 10)]


def test_visibility_decides_what_is_an_object(tmp_path):
    """An entity of visibility 0 is no object even where its mask has pixels; a wholly covered one is an object."""
    masks = entity_masks(SIZE, *BOXES)
    masks[1] = 0
    record = tetrominoes(mask=masks.tobytes(), visibility=[1.0, 1.0, 0.0, 1.0])
    scene = read_one(tmp_path, "tetrominoes_train.tfrecords", record)
    assert [(item.value, item.box) for item in scene.objects] == [(1, (0, 0, 0, 0)), (3, BOXES[2])]
    assert set(np.unique(scene.mask)) == {0, 3}


def test_clevr_has_depth_and_attributes(tmp_path):
    size, boxes = (240, 320), [(10, 20, 60, 80), (200, 100, 320, 240)]
    masks = np.concatenate([entity_masks(size, *boxes), np.zeros((8, *size), np.uint8)])
    coords = np.zeros((11, 3))
    coords[1:3] = [[35, 50, 11.25], [260, 170, 7.5]]
    encoded = {key: bytes([0, *values, *[0] * 8]) for key, values in {"size": (1, 2), "shape": (3, 1)}.items()}
    record = example(
        image=picture(size).tobytes(),
        mask=masks.tobytes(),
        pixel_coords=coords,
        visibility=[1.0] * 3 + [0.0] * 8,
        color=bytes([0, 8, 2, *[0] * 8]),
        material=bytes([0, 2, 1, *[0] * 8]),
        **encoded,
    )
    scene = read_one(tmp_path, "clevr_with_masks_train.tfrecords", record)
    assert scene.image.shape == (240, 320, 3)
    assert [item.box for item in scene.objects] == boxes
    assert [item.depth for item in scene.objects] == [11.25, 7.5]
    assert scene.objects[0].category == "shape 3"
    assert scene.objects[0].attributes == {"size": "1", "colour": "8", "material": "2", "shape": "3"}


@pytest.mark.parametrize(
    ("variant", "entities", "channels"),
    [("binarized", 4, 1), ("colored_on_grayscale", 6, 3), ("colored_on_colored", 5, 3)],
)
def test_multi_dsprites_keep_entities_last(tmp_path, variant, entities, channels):
    size, boxes = (64, 64), [(1, 2, 30, 20), (40, 33, 64, 64)]
    masks = np.concatenate([entity_masks(size, *boxes), np.zeros((entities - 3, *size), np.uint8)])
    record = example(
        image=picture(size, channels=channels).tobytes(),
        mask=masks.transpose(1, 2, 0).tobytes(),
        visibility=[1.0] * 3 + [0.0] * (entities - 3),
        shape=[0.0, 3.0, 1.0] + [0.0] * (entities - 3),
    )
    scene = read_one(tmp_path, f"multi_dsprites_{variant}.tfrecords", record)
    assert np.array_equal(scene.image, picture(size, channels=channels))
    assert [item.box for item in scene.objects] == boxes
    assert [item.category for item in scene.objects] == ["shape 3", "shape 1"]


@pytest.mark.parametrize("number", [0, 3, 6])
def test_objects_room_has_four_backgrounds(tmp_path, number):
    """Sky, floor and walls are no objects, nor are masks without pixels; an empty room has none at all."""
    size, boxes = (64, 64), [(8 * i, 8 * i, 8 * i + 5, 8 * i + 7) for i in range(number)]
    masks = entity_masks(size, *boxes, background=4)
    masks[1, 60:], masks[0, 60:] = 255, 0
    padded = np.concatenate([masks, np.zeros((6 - number, *size), np.uint8)])
    record = example(image=picture(size).tobytes(), mask=padded.tobytes())
    scene = read_one(tmp_path, "objects_room_test_six_objects.tfrecords", record)
    assert [item.box for item in scene.objects] == boxes
    assert {item.category for item in scene.objects} <= {"object"}
    assert scene.mask.max() == number


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": bytes(35 * 35 * 4 - 1)}, "'mask' has 4,899 bytes, which are not tetrominoes's 35 x 35 pixels"),
        ({"image": bytes(35 * 35 * 2)}, "'image' has 2,450 bytes"),
        ({"image": None}, "has no bytes 'image' (it has color, mask, shape, visibility, x, y)"),
        ({"mask": [1.0, 0.0]}, "has no bytes 'mask'"),
        ({"visibility": [1.0] * 3}, "must have 4 numbers 'visibility', as many as masks (got 3)"),
        ({"shape": None}, "must have 4 numbers 'shape', as many as masks (it is missing)"),
        ({"shape": [0.0, 1.0, float("nan"), 1.0]}, "must have 4 numbers 'shape'"),
        ({"color": [[0, 0, 0]]}, "must have 12 numbers 'color'"),
    ],
)
def test_records_of_another_form_are_named(tmp_path, changes, message):
    path = write_records(tmp_path / "tetrominoes_train.tfrecords", [tetrominoes(), tetrominoes(**changes)])
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        list(read_multi_object_images(path))
    assert f"{path}: record 1" in str(caught.value)


def test_fewer_masks_than_backgrounds_are_refused(tmp_path):
    record = example(image=bytes(64 * 64 * 3), mask=bytes(64 * 64 * 3))
    with pytest.raises(InputError, match="'mask' has 12,288 bytes"):
        read_one(tmp_path, "objects_room_train.tfrecords", record)


def test_an_unknown_name_is_refused(tmp_path):
    path = write_records(tmp_path / "shapes.tfrecords", [tetrominoes()])
    with pytest.raises(
        InputError, match=r"not called as any known data set \(clevr_with_masks\*\.tfrecords, multi"
    ):
        list(read_multi_object_images(path))


# Unpacking ------------------------------------------------------------------------------------------------


@pytest.fixture
def packed(tmp_path):
    """Writes six scenes; the second has no object at all, and the third has one that is wholly covered."""
    empty = np.zeros((4, *SIZE), np.uint8)
    empty[0] = 255
    hidden = entity_masks(SIZE, *BOXES)
    hidden[1] = 0
    changes = [
        {},
        {"mask": empty.tobytes(), "visibility": [1.0, 0.0, 0.0, 0.0]},
        {"mask": hidden.tobytes()},
        {},
        {},
    ]
    records = [tetrominoes(seed=i, **change) for i, change in enumerate([*changes, {}])]
    return write_records(tmp_path / "tetrominoes_train.tfrecords", records)


def test_splits_are_taken_in_the_order_of_the_file(packed, tmp_path):
    seen = []
    out = tmp_path / "out"
    objects = unpack(packed, out, {"train": 3, "val": 0, "test": 2}, progress=lambda *at: seen.append(at))
    assert objects == {"train": 6, "test": 6}
    assert seen == [(i, 5) for i in range(1, 6)]
    for split, first, count in (("train", 0, 3), ("test", 3, 2)):
        table = read_annotations(out, split)
        assert table.image_names == [f"images/{split}/{i:06d}.png" for i in range(count)]
        for i, path in enumerate(table.image_paths):
            assert np.array_equal(np.asarray(Image.open(path)), picture(SIZE, first + i))
    assert sorted(path.name for path in out.iterdir()) == [".ssdir-output", "images", "masks", "objects"]
    assert not (out / "images/val").exists()


def test_what_is_unpacked_is_read(packed, tmp_path):
    out = tmp_path / "out"
    unpack(packed, out, {"train": 3, "test": 3})
    assert find_layout(out).name == "index masks"
    table = read_annotations(out, "train")
    assert table.image.tolist() == [0, 0, 0, 2, 2, 2]
    assert table.category_names == ["shape 2", "shape 10"]
    assert table.category.tolist() == [0, 1, 0] * 2
    assert table.attribute_names == {"shape": ["2", "10"], "colour": ["cyan", "red", "yellow"]}
    assert table.attributes["colour"].tolist() == [1, 2, 0] * 2
    assert table.boxes_px.tolist() == [*map(list, BOXES), [0, 0, 0, 0], *map(list, BOXES[1:])]
    assert table.depth is None
    assert table.draw_order is None
    for row, (image, value) in enumerate(zip(table.image, table.mask_value, strict=True)):
        mask = np.asarray(Image.open(table.root / table.mask_names[image]))
        assert mask_boxes(mask, 3)[0][value - 1].tolist() == table.boxes_px[row].tolist()
    dataset = open_dataset(out, "train")
    assert dataset.dropped_boxes == 1
    assert [len(dataset[i][1]) for i in range(3)] == [3, 0, 2]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"train": 4, "test": 3}, "has 6 images, but 7 were asked for"),
        ({"train": 7, "test": 1}, "has 6 images, but 8 were asked for"),
        ({"train": 0}, "no image of"),
    ],
)
def test_nothing_is_left_of_what_can_not_be_whole(packed, tmp_path, counts, message):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=message):
        unpack(packed, tmp_path / "out", counts)
    assert sorted(tmp_path.iterdir()) == before


def test_an_interrupt_leaves_nothing(packed, tmp_path):
    before = sorted(tmp_path.iterdir())

    def interrupt(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(packed, tmp_path / "out", {"train": 3, "test": 3}, progress=interrupt)
    assert sorted(tmp_path.iterdir()) == before


def test_record_files_must_be_unpacked_first(packed):
    sentence = re.escape(f"must be unpacked first: ssdir data unpack {packed} --out FOLDER")
    for given in (packed, packed.parent):
        with pytest.raises(InputError, match=sentence):
            find_layout(given)
