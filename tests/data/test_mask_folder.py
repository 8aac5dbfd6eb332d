import json
import re
import resource
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from ssdir.data.readers.mask_folder import mask_folder_splits, read_mask_folder
from ssdir.data.readers.registry import find_layout, read_annotations
from ssdir.errors import EmptySplitError, InputError

SIZE = (20, 30)
MASK = np.zeros(SIZE, np.uint8)
MASK[2:9, 3:12] = 1
MASK[5:15, 10:25] = 7


def write(root, split, masks, lines=None, suffix=".png"):
    """Writes images, masks and, if given, the lines of each image's objects."""
    for name, mask in masks.items():
        for folder in ("images", "masks"):
            (root / folder / split / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE[::-1]).save(root / "images" / split / f"{name}{suffix}")
        Image.fromarray(mask).save(root / "masks" / split / f"{name}.png")
    if lines is not None:
        (root / "objects").mkdir(exist_ok=True)
        text = "".join(
            json.dumps({"image": f"{name}{suffix}", "objects": own}) + "\n" for name, own in lines.items()
        )
        (root / "objects" / f"{split or 'all'}.jsonl").write_text(text)
    return root


def test_masks_alone_are_enough(tmp_path):
    write(tmp_path, "train", {"a": MASK, "b": np.zeros(SIZE, np.uint8)}, suffix=".jpg")
    assert find_layout(tmp_path).name == "index masks"
    assert mask_folder_splits(tmp_path) == ["train"]
    table = read_annotations(tmp_path, "train")
    assert table.image_names == ["images/train/a.jpg", "images/train/b.jpg"]
    assert table.mask_names == ["masks/train/a.png", "masks/train/b.png"]
    assert table.image_sizes.tolist() == [[20, 30]] * 2
    assert table.category_names == ["object"]
    assert table.image.tolist() == [0, 0]
    assert table.mask_value.tolist() == [1, 7]
    assert table.boxes_px.tolist() == [[3, 2, 12, 9], [10, 5, 25, 15]]
    assert (table.attributes, table.depth, table.draw_order, table.visible) == (None, None, None, None)


def palette(mask):
    image = Image.fromarray(mask)
    image.putpalette([v for i in range(256) for v in (255 - i, i, 7)])
    assert image.mode == "P"
    return image


@pytest.mark.parametrize(
    "convert", [Image.fromarray, palette, lambda mask: Image.fromarray(mask.astype(np.uint16))]
)
def test_masks_of_any_kind_give_the_same(tmp_path, convert):
    write(tmp_path, "train", {"a": MASK})
    convert(MASK).save(tmp_path / "masks/train/a.png")
    table = read_mask_folder(tmp_path, "train")
    assert table.mask_value.tolist() == [1, 7]
    assert table.boxes_px.tolist() == [[3, 2, 12, 9], [10, 5, 25, 15]]


def test_values_beyond_255_need_16_bits(tmp_path):
    write(tmp_path, "train", {"a": np.where(MASK == 7, 1000, 0).astype(np.uint16)})
    table = read_mask_folder(tmp_path, "train")
    assert (table.mask_value.tolist(), table.boxes_px.tolist()) == ([1000], [[10, 5, 25, 15]])


def test_lines_of_objects_add_what_masks_lack(tmp_path):
    far = {"value": 7, "category": "cube", "attributes": {"colour": "red", "size": "big"}, "depth": 9.5}
    near = {"value": 1, "category": "ball", "attributes": {"colour": "blue", "size": "big"}, "depth": 2}
    hidden = near | {"value": 30, "depth": 4.5}
    write(tmp_path, "train", {"a": MASK, "b": MASK * 0}, {"a": [near, far, hidden], "b": []})
    table = read_mask_folder(tmp_path, "train")
    assert table.category_names == ["ball", "cube"]
    assert table.category.tolist() == [0, 1, 0]
    assert table.attribute_names == {"colour": ["blue", "red"], "size": ["big"]}
    assert table.attributes["colour"].tolist() == [0, 1, 0]
    assert table.depth.tolist() == [2, 9.5, 4.5]
    assert table.draw_order.tolist() == [2, 0, 1]
    assert table.boxes_px.tolist() == [[3, 2, 12, 9], [10, 5, 25, 15], [0, 0, 0, 0]]


def test_blank_lines_and_a_byte_order_mark_are_ignored(tmp_path):
    write(tmp_path, "train", {"a": MASK}, {"a": []})
    path = tmp_path / "objects" / "train.jsonl"
    path.write_text(path.read_text() + "\n \n", encoding="utf-8-sig")
    assert len(read_mask_folder(tmp_path, "train").image) == 0


def test_given_boxes_are_taken(tmp_path):
    write(tmp_path, "train", {"a": MASK}, {"a": [{"value": 1, "box": [1, 2, 3, 4.5]}, {"value": 7}]})
    assert read_mask_folder(tmp_path, "train").boxes_px.tolist() == [[1, 2, 3, 4.5], [10, 5, 25, 15]]


def test_splits_share_their_names(tmp_path):
    """A label must mean the same in every split, whatever occurs there."""
    for split, names in (("train", ("shape 10", "shape 2")), ("val", ("shape 9", "shape 10"))):
        objects = [
            {"value": v, "category": name, "attributes": {"x": name}}
            for v, name in zip((1, 7), names, strict=True)
        ]
        write(tmp_path, split, {"a": MASK}, {"a": objects})
    train, val = (read_mask_folder(tmp_path, split) for split in ("train", "val"))
    assert train.category_names == val.category_names == ["shape 2", "shape 9", "shape 10"]
    assert (train.category.tolist(), val.category.tolist()) == ([2, 0], [1, 2])
    assert train.attribute_names == val.attribute_names
    assert len(train.image_names) == len(val.image_names) == 1


def test_only_the_split_that_is_read_needs_images(tmp_path):
    write(tmp_path, "train", {"a": MASK})
    (tmp_path / "images" / "test").mkdir()
    assert read_mask_folder(tmp_path, "train").image_names == ["images/train/a.png"]
    with pytest.raises(EmptySplitError, match="test' has no images"):
        read_mask_folder(tmp_path, "test")


def test_what_only_some_objects_have_is_left_out(tmp_path):
    objects = [
        {"value": 1, "attributes": {"a": "x", "b": "y"}, "depth": 3},
        {"value": 7, "attributes": {"a": "z"}},
    ]
    table = read_mask_folder(write(tmp_path, "train", {"a": MASK}, {"a": objects}), "train")
    assert table.attribute_names == {"a": ["x", "z"]}
    assert table.depth is None
    assert table.notes == ("attributes that only some objects have, left out: b",)


def test_attributes_are_left_out_where_a_split_has_masks_alone(tmp_path):
    write(tmp_path, "train", {"a": MASK}, {"a": [{"value": v, "attributes": {"colour": "red"}} for v in (1, 7)]})
    write(tmp_path, "val", {"a": MASK})
    for split in ("train", "val"):
        table = read_mask_folder(tmp_path, split)
        assert (len(table.image), table.attributes) == (2, None)
        assert table.notes == ("attributes that only some objects have, left out: colour",)


def test_images_beside_the_folders_of_the_splits_are_counted(tmp_path):
    write(tmp_path, "train", {"a": MASK})
    Image.new("RGB", SIZE[::-1]).save(tmp_path / "images" / "loose.png")
    table = read_mask_folder(tmp_path, "train")
    assert table.image_names == ["images/train/a.png"]
    assert table.notes == ("images beside the folders of the splits, passed over: 1 ('loose.png')",)


def test_undivided_images_are_divided(tmp_path):
    write(
        tmp_path,
        "",
        {f"{i:02d}": MASK for i in range(20)},
        {f"{i:02d}": [{"value": 1}, {"value": 7}] for i in range(20)},
    )
    assert mask_folder_splits(tmp_path) == ["train", "val", "test"]
    parts = {split: read_mask_folder(tmp_path, split) for split in ("train", "val", "test", "all")}
    assert [len(table.image_names) for table in parts.values()] == [16, 2, 2, 20]
    together = sorted(name for split in ("train", "val", "test") for name in parts[split].image_names)
    assert together == parts["all"].image_names == [f"images/{i:02d}.png" for i in range(20)]


def test_images_in_folders_of_a_split_are_found(tmp_path):
    write(tmp_path, "train", {"one/a": MASK, "two/a": MASK * 0})
    table = read_mask_folder(tmp_path, "train")
    assert table.image_names == ["images/train/one/a.png", "images/train/two/a.png"]
    assert table.image.tolist() == [0, 0]


def test_masks_without_an_image_are_noted(tmp_path):
    write(tmp_path, "train", {"a": MASK, "b": MASK})
    (tmp_path / "images/train/b.png").unlink()
    (tmp_path / "masks/train/._a.png").write_bytes(b"macOS")
    table = read_mask_folder(tmp_path, "train")
    assert table.notes == ("masks without an image, passed over: 1",)
    assert table.image_names == ["images/train/a.png"]


UNREAD = r"the mask of images/train/a\.png can't be read: '.*masks/train/a\.png'"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda mask: mask.unlink(), rf"{UNREAD} does not exist"),
        (lambda mask: mask.write_bytes(b"no image"), rf"{UNREAD} is not an image in a known format"),
        (lambda mask: Image.new("L", (8, 8)).save(mask), "16-bit grey or palette, 30 x 20 pixels as its image"),
        (lambda mask: Image.new("RGB", SIZE[::-1]).save(mask), "16-bit grey or palette, 30 x 20 pixels"),
        (
            lambda mask: Image.new("L", SIZE[::-1], 3).save(mask),
            r"has a value 3, for which images/train/a\.png has no",
        ),
    ],
)
def test_bad_masks_are_named(tmp_path, spoil, message):
    write(tmp_path, "train", {"a": MASK}, {"a": [{"value": 1}, {"value": 7}]})
    spoil(tmp_path / "masks/train/a.png")
    with pytest.raises(InputError, match=message):
        read_mask_folder(tmp_path, "train")


def test_known_boxes_do_not_excuse_a_missing_mask(tmp_path):
    write(tmp_path, "train", {"a": MASK}, {"a": [{"value": 1, "box": [0, 0, 1, 1]}]})
    (tmp_path / "masks/train/a.png").unlink()
    with pytest.raises(InputError, match=r"masks/train/a\.png' of images/train/a\.png does not exist"):
        read_mask_folder(tmp_path, "train")


LINE = '{"image": "a.png", "objects": [{"value": 1}, %s]}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1: not valid JSON"),
        ("[" * 100_000, "line 1: not valid JSON (lists within lists, too deep to read)"),
        ("[1]", "line 1: expected keys and values, got [1]"),
        ("\x00", "line 1: not valid JSON"),
        ('{"image": "a.png"}', "line 1: 'objects' is missing"),
        ('{"image": "a.png", "objects": {}}', "line 1: 'objects' must be a list"),
        ('{"image": "b.png", "objects": []}', "is about image 'b.png', which"),
        ('{"image": "../../b.png", "objects": []}', "is about image '../../b.png', which"),
        ('{"image": "a.png", "objects": []}\n' * 2, "line 2 is about image 'a.png', as an earlier line"),
        ("", "has no line for image 'a.png'"),
        (LINE % "3", "line 1: 'objects.1' must be "),
        (LINE % '{"value": 0}', "'objects.1.value' must be at least 1, got 0"),
        (LINE % '{"value": 100000000}', "'objects.1.value' must be at most 65535"),
        (LINE % '{"value": true}', "'objects.1.value' must be a whole number, got True"),
        (LINE % '{"value": 1}', "line 1: two objects have the same value"),
        (LINE % '{"value": 7, "category": 3}', "'objects.1.category' must be text, got 3"),
        (LINE % '{"value": 7, "category": ""}', "'objects.1.category' must have at least 1 character"),
        (
            LINE % ('{"value": 7, "category": "%s"}' % ("x" * 5000)),
            "'objects.1.category' must have at most",
        ),
        (LINE % '{"value": 7, "category": "\\ud83d"}', "half of a surrogate pair"),
        (
            LINE % '{"value": 7, "attributes": {"a": 1}}',
            "'objects.1.attributes.a' must be ",
        ),
        (LINE % '{"value": 7, "depth": NaN}', "'objects.1.depth' must be a finite number, got nan"),
        (LINE % '{"value": 7, "box": [1, 2, 3]}', "'objects.1.box' must have at least 4 entries"),
        (LINE % '{"value": 7, "box": [1, 2, 3, Infinity]}', "'objects.1.box.3' must be a finite number"),
        (
            LINE % '{"value": 7, "box": [1, 2, 3, null]}',
            "box.3' must be a number, got None",
        ),
    ],
)
def test_bad_lines_are_named(tmp_path, text, message):
    write(tmp_path, "train", {"a": MASK}, {})
    path = tmp_path / "objects/train.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        read_mask_folder(tmp_path, "train")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lines_of_another_encoding_are_refused(tmp_path):
    write(tmp_path, "train", {"a": MASK}, {})
    path = tmp_path / "objects/train.jsonl"
    path.write_text('{"image": "a.png", "objects": []}', encoding="utf-16")
    with pytest.raises(InputError, match=r"train\.jsonl: line 1 is not UTF-8 text: save the file"):
        read_mask_folder(tmp_path, "train")
    path.write_bytes(b'{"image": "a.png", "objects": [{"value": 1, "category": "caf\xe9"}, {"value": 7}]}')
    with pytest.raises(InputError, match=r"train\.jsonl: line 1 is not UTF-8 text: save the file"):
        read_mask_folder(tmp_path, "train")


def test_all_faults_are_named_at_once(tmp_path):
    write(tmp_path, "train", {f"{i:02d}": MASK for i in range(12)}, {})
    (tmp_path / "objects/train.jsonl").write_text("?\n" * 12)
    with pytest.raises(InputError, match=r"train\.jsonl: 12 faults: .*line 1: .*line 10: .*; and 2 more$"):
        read_mask_folder(tmp_path, "train")
    (tmp_path / "objects/train.jsonl").unlink()
    for i in (3, 5):
        (tmp_path / f"masks/train/{i:02d}.png").unlink()
    with pytest.raises(InputError, match=r"2 faults: the mask of images/train/03\.png.*; the mask of .*/05"):
        read_mask_folder(tmp_path, "train")


def grey_png(values, bits):
    """Returns a grey PNG of so many bits for each pixel, by the standard (chunks, and rows without a filter)."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = values.shape
    binary = (values[..., None] >> np.arange(bits)[::-1]) & 1
    rows = np.packbits(binary.reshape(height, -1).astype(np.uint8), axis=1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(("bits", "values"), [(2, [1, 3]), (4, [1, 7]), (8, [1, 7])])
def test_grey_values_of_few_bits_are_those_in_the_file(tmp_path, bits, values):
    write(tmp_path, "train", {"a": MASK})
    mask = np.where(MASK == 7, values[1], MASK)
    (tmp_path / "masks/train/a.png").write_bytes(grey_png(mask, bits))
    table = read_mask_folder(tmp_path, "train")
    assert table.mask_value.tolist() == values
    assert table.boxes_px.tolist() == [[3, 2, 12, 9], [10, 5, 25, 15]]


def test_a_mask_of_another_size_is_not_decoded(tmp_path):
    """The mask has 12,000 × 12,000 zeros in a file of 140 kB."""
    write(tmp_path, "train", {"a": MASK})
    Image.new("L", (12_000, 12_000)).save(tmp_path / "masks/train/a.png")
    tracemalloc.start()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="30 x 20 pixels as its image"):
        read_mask_folder(tmp_path, "train")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_missing_splits_and_images(tmp_path):
    write(tmp_path, "train", {"a": MASK})
    with pytest.raises(InputError, match=r"has no split 'test' \(there is train\): images/test is missing"):
        read_mask_folder(tmp_path, "test")
    Image.new("RGB", SIZE[::-1]).save(tmp_path / "images/train/a.jpg")
    with pytest.raises(InputError, match=r"a\.jpg and a\.png would share a mask"):
        read_mask_folder(tmp_path, "train")
