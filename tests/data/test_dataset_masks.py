"""Masks and attributes of a data set follow its objects, in order and in geometry."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ssdir.data.annotations import AnnotationTable, keep_readable
from ssdir.data.dataset import ObjectDataset, fingerprint
from ssdir.data.masks import read_mask
from ssdir.data.readers.clevr.reader import ATTRIBUTES, read_clevr
from ssdir.errors import InputError

from .real import real_data

CLEVR_MINI, needs_clevr_mini = real_data("clevr-mini")
HEIGHT, WIDTH = 45, 70
SHADE = 200


def make_table(root, **changes):
    """Returns a table of an empty image and one with three objects, listed against the order of their values."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for value, (y, x, h, w) in {1: (3, 5, 20, 30), 2: (10, 40, 31, 25), 3: (30, 2, 12, 17)}.items():
        mask[y : y + h, x : x + w] = value
    for number, values in enumerate((mask, np.zeros_like(mask))):
        Image.fromarray((values > 0).astype(np.uint8) * SHADE).save(root / f"{number}.png")
        Image.fromarray(values).save(root / f"mask{number}.png")
    table = AnnotationTable(
        root=root,
        sources=(),
        category_names=["a", "b"],
        image_names=["0.png", "1.png"],
        image_sizes=np.array([(HEIGHT, WIDTH)] * 2),
        image=np.zeros(3, dtype=np.int64),
        category=np.array([1, 0, 1]),
        boxes_px=np.array([(2, 30, 19, 42), (40, 10, 65, 41), (5, 3, 35, 23)], dtype=float),
        ignored=np.zeros(3, dtype=bool),
        attributes={"colour": np.array([2, 0, 1])},
        attribute_names={"colour": ["red", "green", "blue"]},
        mask_names=["mask0.png", "mask1.png"],
        mask_value=np.array([3, 2, 1]),
    )
    return ObjectDataset(table, **changes)


def box_of(mask):
    rows, columns = np.nonzero(np.asarray(mask))
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_values_are_the_objects_places(tmp_path):
    data = make_table(tmp_path)
    mask = data.mask(0)
    assert (mask.dtype, mask.shape) == (torch.int64, (HEIGHT, WIDTH))
    boxes = [box_of(mask == number) for number in (1, 2, 3)]
    assert boxes == pytest.approx(data.objects(0).boxes_px((HEIGHT, WIDTH)).numpy(), abs=1e-4)
    assert data.mask(1).unique().tolist() == data.mask(-1).unique().tolist() == [0]
    with pytest.raises(IndexError):
        data.mask(2)


@pytest.mark.parametrize("size", [32, 45, 64, 160])
def test_masks_lie_on_their_images_at_any_size(tmp_path, size):
    data = make_table(tmp_path, image_size=size)
    share = data.image(0)[0].float() / SHADE  # of each pixel that objects cover
    inside = data.mask(0) > 0
    # A rectangle that covers a pixel's centre covers a quarter of it; one that does not, half at most.
    assert inside[share > 0.52].all()
    assert not inside[share < 0.23].any()
    assert (share > 0.23).float().mean() > 0.2


def test_objects_left_out_are_background(tmp_path):
    data = make_table(tmp_path, classes=["b"])
    mask = data.mask(0)
    assert mask.unique().tolist() == [0, 1, 2]
    assert box_of(mask == 2) == [5, 3, 35, 23]
    assert data.attributes(0)["colour"].tolist() == [2, 1]


def test_subsets_keep_masks_and_attributes(tmp_path):
    table = make_table(tmp_path).table
    data = ObjectDataset(keep_readable(table, min_side=0.3, drop_empty=True))
    assert len(data) == 1
    assert data.mask(0).unique().tolist() == [0, 1, 2]
    assert data.attributes(0)["colour"].tolist() == [0, 1]


def test_without_masks_or_attributes_nothing_is_read(tmp_path):
    table = replace(
        make_table(tmp_path).table, mask_names=None, mask_value=None, attributes=None, attribute_names=None
    )
    for file in tmp_path.glob("mask*"):
        file.unlink()
    data = ObjectDataset(table)
    assert data.mask(0) is None
    assert data.attributes(0) == {}


def test_broken_masks_are_named(tmp_path):
    data = make_table(tmp_path)
    Image.new("L", (WIDTH, WIDTH)).save(tmp_path / "mask0.png")
    with pytest.raises(InputError, match=rf"mask0.png' must be .*, {WIDTH} x {HEIGHT} pixels as its image"):
        data.mask(0)
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "mask0.png")
    with pytest.raises(InputError, match=r"mask0.png' must be 8-bit grey, 16-bit grey or palette"):
        data.mask(0)
    whole = (tmp_path / "mask1.png").read_bytes()
    (tmp_path / "mask0.png").write_bytes(whole[:60])
    with pytest.raises(InputError, match=r"mask0.png'"):
        data.mask(0)
    (tmp_path / "mask0.png").unlink()
    with pytest.raises(InputError, match=r"the mask of .* can't be read: '.*mask0.png' does not exist"):
        data.mask(0)


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "1"])
def test_numbers_of_masks_are_taken_as_they_are(tmp_path, mode):
    values = np.array([[0, 1, 1], [1, 0, 0]]) if mode == "1" else np.array([[0, 7, 3], [200, 3, 0]])
    if mode == "I;16":
        values = values * 300
    image = Image.fromarray(values.astype({"I;16": np.uint16, "1": bool}.get(mode, np.uint8)))
    if mode == "P":
        image.putpalette([255, 0, 0] * 256)
    assert image.mode == mode
    image.save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png", values.shape, "an image").tolist() == values.tolist()


@needs_clevr_mini
def test_masks_of_real_scenes_fit_their_boxes():
    data = ObjectDataset(read_clevr(CLEVR_MINI, "val", extent="visible"), "object", 128)
    for index in range(5):
        mask, objects = data.mask(index), data.objects(index)
        boxes = torch.tensor([box_of(mask == number) for number in range(1, len(objects) + 1)])
        assert (boxes - objects.boxes_px((128, 128))).abs().max() <= 1
    assert data.attributes(0).keys() == ATTRIBUTES.keys()


def test_fingerprints_follow_masks_and_attributes(tmp_path):
    table = make_table(tmp_path).table
    changes = [
        {},
        {"mask_value": np.array([1, 2, 3])},
        {"attributes": {"colour": np.array([2, 1, 1])}},
        {"attributes": {"hue": np.array([2, 0, 1])}},
        {"depth": np.array([2.0, 1.0, 3.0])},
    ]
    marks = [fingerprint(ObjectDataset(replace(table, **change))) for change in changes]
    assert marks[0] == fingerprint(ObjectDataset(replace(table)))
    Image.fromarray(np.ones((HEIGHT, WIDTH), dtype=np.uint8)).save(tmp_path / "mask1.png")
    marks.append(fingerprint(ObjectDataset(table)))
    (tmp_path / "mask1.png").unlink()
    marks.append(fingerprint(ObjectDataset(table)))
    assert len(set(marks)) == len(marks)
