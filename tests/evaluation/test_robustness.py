from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics.pairwise import cosine_similarity

from ssdir.evaluation.embedded import EmbeddedObjects
from ssdir.evaluation.robustness import (
    CHANGES,
    PADDING,
    blurred,
    compressed,
    padded,
    same_object_cosine,
    shrunk,
    unrelated_cosine,
)

BOX = np.array([[0.2, 0.4, 0.5, 0.8]], dtype=np.float32)


@pytest.fixture
def photograph() -> NDArray[np.uint8]:
    """Returns an image of 120 × 160 pixels with a red box on noise."""
    image = np.random.default_rng(0).integers(0, 100, (120, 160, 3), dtype=np.uint8)
    image[48:96, 32:80] = (255, 0, 0)
    return image


@pytest.mark.parametrize("name", CHANGES)
def test_the_box_stays_around_its_object(name: str, photograph: NDArray[np.uint8]) -> None:
    image, boxes = CHANGES[name](photograph, BOX)
    assert image.dtype == np.uint8
    height, width = image.shape[:2]
    left, top, right, bottom = (boxes[0] * (width, height, width, height)).round().astype(int)
    inside = np.zeros((height, width), dtype=bool)
    inside[top:bottom, left:right] = True
    red = (image[..., 0] > 180) & (image[..., 1] < 80)
    assert red[inside].mean() > 0.8
    assert red[~inside].mean() < 0.01


@pytest.mark.parametrize("factor", [1 / 2, 1 / 4])
def test_shrunk_keeps_the_canvas_and_scales_the_box(factor: float, photograph: NDArray[np.uint8]) -> None:
    image, boxes = shrunk(photograph, BOX, factor)
    assert image.shape == photograph.shape
    assert boxes[0, 2:] - boxes[0, :2] == pytest.approx((BOX[0, 2:] - BOX[0, :2]) * factor, abs=1e-6)
    assert (image[0] == PADDING).all()


def test_padded_has_twice_the_area_and_the_same_pixels(photograph: NDArray[np.uint8]) -> None:
    image, _ = padded(photograph, BOX)
    assert image.shape[0] == image.shape[1]
    assert image.shape[0] ** 2 == pytest.approx(2 * 120 * 160, rel=0.01)
    top, left = (image.shape[0] - 120) // 2, (image.shape[1] - 160) // 2
    assert (image[top : top + 120, left : left + 160] == photograph).all()


def test_padded_panorama_is_not_cut() -> None:
    assert padded(np.zeros((20, 100, 3), dtype=np.uint8), BOX)[0].shape == (100, 100, 3)


def test_jpeg_and_blur_change_pixels_and_keep_colours(photograph: NDArray[np.uint8]) -> None:
    for change in (compressed, blurred):
        image, boxes = change(photograph, BOX)
        assert (boxes == BOX).all()
        assert 1 < np.abs(image.astype(int) - photograph).mean() < 40
        assert image.mean(axis=(0, 1)) == pytest.approx(photograph.mean(axis=(0, 1)), abs=4)


def some(labels: list[int], images: list[int]) -> EmbeddedObjects:
    embeddings = np.random.default_rng(0).standard_normal((len(labels), 5)) + 1
    return EmbeddedObjects(embeddings, np.array(labels), np.array(images))


def test_same_object_cosine_ignores_length() -> None:
    objects = some([0, 1, 2], [0, 1, 2])
    longer = EmbeddedObjects(3 * objects.embeddings, objects.labels, objects.image_index)
    assert same_object_cosine(objects, longer) == pytest.approx(1)
    opposite = EmbeddedObjects(-objects.embeddings, objects.labels, objects.image_index)
    assert same_object_cosine(objects, opposite) == pytest.approx(-1)


@pytest.mark.parametrize("labels", [[0, 1, 1, 2, 0, 2], [0] * 6])
def test_unrelated_objects_differ_in_class_and_image(labels: list[int]) -> None:
    objects = some(labels, [0, 0, 1, 1, 2, 3])
    cosines = cosine_similarity(objects.embeddings)
    one_class = len(set(labels)) == 1
    expected = [
        cosines[i, j]
        for i, j in combinations(range(6), 2)
        if objects.image_index[i] != objects.image_index[j] and (one_class or labels[i] != labels[j])
    ]
    assert unrelated_cosine(objects) == pytest.approx(np.median(expected))


def test_no_unrelated_objects_in_one_image() -> None:
    assert unrelated_cosine(some([0, 1], [0, 0])) is None
