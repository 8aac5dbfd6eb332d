"""Tests of letterboxed images: where they lie in the square, and where their boxes are."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torchvision import tv_tensors
from torchvision.transforms import v2

from ssdir.data.annotations import AnnotationTable
from ssdir.data.dataset import ObjectDataset, fingerprint
from ssdir.data.letterbox import PADDING, Letterbox, fitted_size, read_square
from ssdir.data.transforms import AugmentConfig, build_augmentation
from ssdir.objects import Objects

SIDE = 64
SIZES = [(30, 60), (60, 30), (64, 64), (9, 700), (200, 201), (427, 640)]
lengths = st.integers(1, 3000)


def objects_of(boxes_cxcywh: torch.Tensor) -> Objects:
    return Objects(torch.zeros(len(boxes_cxcywh), dtype=torch.int64), 1, boxes_cxcywh)


@given(lengths, lengths)
def test_the_longer_side_fills_the_square_and_proportions_stay(height: int, width: int) -> None:
    fitted = fitted_size((height, width), SIDE, "letterbox")
    assert max(fitted) == SIDE
    for new, old in zip(fitted, (height, width), strict=True):
        assert abs(new - old * SIDE / max(height, width)) <= 0.5 or new == 1
    assert fitted_size((height, width), SIDE, "stretch") == (SIDE, SIDE)


@pytest.mark.parametrize("size", SIZES)
def test_an_image_lies_where_pillow_puts_it(size: tuple[int, int]) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(160, 256, (*size, 3), dtype=np.uint8))
    shown, square = read_square(picture, SIDE, "letterbox")
    expected = np.asarray(ImageOps.pad(picture, (SIDE, SIDE), color=(PADDING,) * 3, centering=(0, 0)))
    assert shown == size
    assert square.shape == (SIDE, SIDE, 3)
    assert np.array_equal(square == PADDING, expected == PADDING)


@pytest.mark.parametrize("size", SIZES)
def test_boxes_are_where_torchvision_moves_them(size: tuple[int, int]) -> None:
    height, width = fitted_size(size, SIDE, "letterbox")
    boxes = torch.tensor([[0.1, 0.2, 0.5, 0.9], [0, 0, 1, 1]]) * torch.tensor([size[1], size[0]]).repeat(2)
    moved = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size)
    for step in (v2.Resize((height, width)), v2.Pad([0, 0, SIDE - width, SIDE - height])):
        moved = step(moved)
    objects = objects_of(torch.tensor([[0.3, 0.55, 0.4, 0.7], [0.5, 0.5, 1, 1]]))
    square = Letterbox.of([size], SIDE, "letterbox").to_square(objects)
    torch.testing.assert_close(square.boxes_px((SIDE, SIDE)), moved.as_subclass(torch.Tensor))


@given(lengths, lengths, st.lists(st.floats(0.01, 0.99), min_size=2, max_size=2), st.floats(0.01, 2))
def test_boxes_return_clipped(height: int, width: int, center: list[float], side: float) -> None:
    letterbox = Letterbox.of([(height, width)], SIDE, "letterbox")
    objects = objects_of(torch.tensor([[*center, side, side]]))
    back = letterbox.to_image(letterbox.to_square(objects))
    torch.testing.assert_close(back.boxes, objects.boxes, atol=1e-5, rtol=0)
    assert letterbox.is_full or float(back.z_where[:, 2:].max()) <= 1
    arrays = objects.to_arrays()
    assert np.allclose(letterbox.to_image(letterbox.to_square(arrays)).z_where, back.z_where, atol=1e-6)


def test_what_is_detected_in_the_padding_is_left_out() -> None:
    letterbox = Letterbox.of([(50, 100), (100, 50)], SIDE, "letterbox")
    centers = torch.tensor([[0.2, 0.49], [0.2, 0.51], [0.49, 0.2], [0.51, 0.2]])
    z_where = torch.cat([centers, torch.full((4, 2), 0.1)], dim=1)
    objects = Objects(torch.tensor([0, 0, 1, 1]), 2, z_where, scores=torch.arange(4.0) / 4)
    kept = letterbox.to_image(objects)
    assert kept.scores is not None
    assert kept.scores.tolist() == [0, 0.5]
    torch.testing.assert_close(kept.boxes[0], torch.tensor([0.15, 0.88, 0.25, 1]))
    assert letterbox.to_image(objects.to_arrays()).image_index.tolist() == [0, 1]
    with pytest.raises(ValueError, match="2 images, got 1"):
        letterbox.to_image(objects_of(z_where))


BOXES_PX = np.array([[10, 5, 40, 35], [60, 10, 90, 40], [0, 50, 20, 100]])
"""The first two in an image of 120 x 60, the last in one of 50 x 100: squares but for the last."""


@pytest.fixture
def table(tmp_path: Path) -> AnnotationTable:
    sizes = np.array([[60, 120], [100, 50]])
    image = np.array([0, 0, 1])
    for number, (height, width) in enumerate(sizes.tolist()):
        pixels = np.zeros((height, width, 3), np.uint8)
        for x1, y1, x2, y2 in BOXES_PX[image == number].tolist():
            pixels[y1:y2, x1:x2] = 255
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    names, none = ["0.png", "1.png"], np.zeros(3, bool)
    return AnnotationTable(tmp_path, (), ["a"], names, sizes, image, image * 0, BOXES_PX.astype(float), none)


def lit(image: torch.Tensor) -> list[int]:
    rows, columns = ((image[0] > 200).any(axis).nonzero()[:, 0] for axis in (1, 0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


@pytest.mark.parametrize("preload", [False, True])
def test_a_data_set_gives_boxes_of_the_padded_image(table: AnnotationTable, preload: bool) -> None:
    data = ObjectDataset(table, image_size=120, preload=preload, resize="letterbox")
    (wide, objects), (tall, last) = data[0], data[1]
    assert wide.shape == tall.shape == (3, 120, 120)
    torch.testing.assert_close(objects.boxes_px((120, 120)), torch.from_numpy(BOXES_PX[:2]).float())
    assert (wide[:, 60:] == PADDING).all()
    assert (tall[:, :, 60:] == PADDING).all()
    assert lit(tall) == last.boxes_px((120, 120))[0].round().tolist() == [0, 60, 24, 120]
    assert torch.equal(data.all_objects().boxes, torch.cat([objects.boxes, last.boxes]))
    stretched = ObjectDataset(table, image_size=120)
    torch.testing.assert_close(data.letterbox([0]).to_image(objects).boxes, stretched.objects(0).boxes)
    seen = data.letterbox([1]).unpad(tall[None].float())[0]
    assert (seen - stretched.image(1).float()).abs().mean() < 4
    assert fingerprint(data) != fingerprint(stretched)
    assert fingerprint(ObjectDataset(table)) == fingerprint(ObjectDataset(table, resize="letterbox"))


@pytest.mark.parametrize("config", [{"flip": 1}, {"zoom_out": 1}, {"iou_crop": 1}, {"scale_jitter": 1}])
def test_augmented_images_keep_the_shape_of_objects(table: AnnotationTable, config: dict[str, float]) -> None:
    augment = build_augmentation(AugmentConfig(**config), 120, "letterbox")
    data = ObjectDataset(table, image_size=120, resize="letterbox").with_transform(augment)
    torch.manual_seed(0)
    uncut = 0
    for _ in range(20):
        image, objects = data[0]
        assert image.shape == (3, 120, 120)
        boxes = objects.boxes_px((120, 120))
        bounds = torch.cat([boxes[:, :2].amin(dim=0), boxes[:, 2:].amax(dim=0)])
        # What is left of an object whose centre was cut off is still seen.
        assert len(objects) < 2 or (torch.tensor(lit(image)) - bounds).abs().max() < 1.5
        whole = (boxes > 1).all(dim=1) & (boxes[:, 2:] < 119).all(dim=1)
        sides = (boxes[:, 2:] - boxes[:, :2])[whole]
        uncut += int(((sides[:, 0] - sides[:, 1]).abs() < 1.5).sum())
        assert (image == PADDING).any()
    assert uncut >= 10
