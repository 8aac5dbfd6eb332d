from pathlib import Path
from typing import Any

import numpy as np
import pytest
import supervision
import torch
from PIL import Image

import ssdir
from ssdir.errors import InputError
from ssdir.inference.given_boxes import as_objects
from ssdir.inference.predictor import Predictor
from ssdir.objects import Objects

SIZES = [(60, 90), (100, 50)]


@pytest.fixture(scope="module")
def predictor(tiny_model_dir: Path) -> Predictor:
    predictor = ssdir.load(tiny_model_dir, "cpu")
    predictor.batch_size = 2
    return predictor


@pytest.fixture
def images() -> list[Any]:
    """Returns images of different sizes, as arrays and as a PIL image."""
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in [*SIZES, (64, 64)]]
    return [pictures[0], Image.fromarray(pictures[1]), pictures[2]]


def test_given_boxes_have_the_embeddings_of_equal_detections(predictor: Predictor, images: list[Any]) -> None:
    detected = predictor.encode(images, 0.5)
    assert min(detected.counts.tolist()) > 0
    pixels = [part.boxes_px(size).numpy() for part, size in zip(detected.split(), [*SIZES, (64, 64)], strict=True)]
    again = predictor.encode(images, boxes=pixels, box_unit="pixels")
    relative = predictor.encode(images, boxes=[part.boxes for part in detected.split()], box_unit="relative")
    assert again.image_index.tolist() == detected.image_index.tolist()
    # The model itself, asked about its own boxes, is the oracle for every row.
    expected = predictor.model.embed(predictor.prepare(images), detected)
    for objects in (again, relative):
        assert objects.z_what is not None
        assert expected.z_what is not None
        torch.testing.assert_close(objects.z_what, expected.z_what, rtol=1e-3, atol=1e-4)
    # Where the anchor that detected the object is also the one that fits it best, nothing changes at all.
    assert again.anchor_index is not None
    same = again.anchor_index == detected.anchor_index
    assert same.any()
    assert again.z_what is not None
    assert detected.z_what is not None
    torch.testing.assert_close(again.z_what[same], detected.z_what[same], rtol=1e-3, atol=1e-4)


def test_rows_stay_aligned_over_batches_and_images_without_boxes(predictor: Predictor, images: list[Any]) -> None:
    boxes = [np.array([[5, 5, 40, 40], [1, 2, 20, 30]]), np.zeros((0, 4)), np.array([[3, 3, 60, 60]])]
    objects = predictor.encode(images, boxes=boxes, box_unit="pixels")
    assert objects.counts.tolist() == [2, 0, 1]
    np.testing.assert_allclose(objects.split()[0].boxes_px(SIZES[0]), boxes[0], atol=1e-4)
    assert len(predictor.encode(images[0], boxes=np.zeros((0, 4)), box_unit="pixels")) == 0


def test_a_trackers_detections_keep_scores_classes_and_tracks(predictor: Predictor, images: list[Any]) -> None:
    tracked = supervision.Detections(
        xyxy=np.array([[5.0, 5, 40, 40], [1, 2, 20, 30]]),
        confidence=np.array([0.25, 0.75]),
        class_id=np.array([2, 0]),
        tracker_id=np.array([11, -1]),
    )
    objects = predictor.encode(images[0], boxes=tracked)
    assert objects.scores is not None
    assert objects.labels is not None
    assert objects.track_id is not None
    assert (objects.scores.tolist(), objects.labels.tolist()) == ([0.25, 0.75], [2, 0])
    assert objects.track_id.tolist() == [11, 0]
    assert objects.z_what is not None
    assert objects.z_what.shape == (2, predictor.latent_dim)


def test_thousands_and_tiny_ones_are_finite(predictor: Predictor, images: list[Any]) -> None:
    corners = np.random.default_rng(1).uniform(0, 0.99, (3000, 2))
    boxes = np.concatenate([corners, corners + np.logspace(-6, -2, 3000)[:, None]], axis=1)
    objects = predictor.encode(images[0], boxes=boxes, box_unit="relative")
    assert objects.z_what is not None
    assert len(objects) == 3000
    assert bool(objects.z_what.isfinite().all())


def test_boxes_are_clipped_to_the_image() -> None:
    objects = as_objects(np.array([[-10, 30, 45, 70]]), [(60, 90)], "pixels")
    torch.testing.assert_close(objects.boxes, torch.tensor([[0, 0.5, 0.5, 1]]))


@pytest.mark.parametrize(
    ("box", "sentence"),
    [
        ([95, 0, 120, 30], "box 1 of image 0 has no area inside"),
        ([5, 5, 5, 30], "no area"),
        ([30, 5, 10, 30], "no area"),
        ([0, 0, float("nan"), 5], "no area"),
    ],
)
def test_boxes_without_area_are_named(box: list[float], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        as_objects(np.array([[1, 1, 5, 5], box]), [(60, 90)], "pixels")


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="'pixels' or 'relative'"):
        as_objects(np.zeros((1, 4)), SIZES[:1])
    with pytest.raises(InputError, match="got 1 for 2 images"):
        as_objects(np.zeros((1, 4)), SIZES, "pixels")
    with pytest.raises(InputError, match="of 3 images, but there are 2"):
        as_objects(Objects.empty(3), SIZES)
    with pytest.raises(InputError, match=r"\(n, 4\)"):
        as_objects(np.zeros((2, 5)), SIZES[:1], "pixels")
