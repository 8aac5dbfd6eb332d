"""Models with letterboxed images return boxes of the original image, the same from every engine."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from conftest import CLASS_NAMES, build_tiny_model
from ssdir.data.annotations import AnnotationTable
from ssdir.data.dataset import ObjectDataset
from ssdir.data.letterbox import PADDING
from ssdir.data.samples import NamedImage
from ssdir.evaluation.detection import detection_metrics
from ssdir.evaluation.measure import MeasureOptions, measure
from ssdir.export.onnx import export_model
from ssdir.export.runtime import OnnxEncoder
from ssdir.inference.files import encode_files
from ssdir.inference.predictor import Predictor
from ssdir.models.io import load_model, save_model
from ssdir.models.ssdir import SSDIR
from ssdir.objects import Objects
from ssdir.studio.images import encode_image

Picture = NDArray[np.uint8]
THRESHOLD = 0.7
WIDE, TALL = (96, 192), (192, 72)
"""Their sides shrink by whole factors to 64 pixels, so that padding before resizing is the same as after it."""


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    stretching = build_tiny_model(CLASS_NAMES)
    config = stretching.config.model_copy(
        update={
            "ssd": stretching.config.ssd.model_copy(update={"resize": "letterbox", "score_threshold": THRESHOLD})
        }
    )
    model = SSDIR(config, CLASS_NAMES)
    model.load_state_dict(stretching.state_dict())
    return Predictor(model)


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    numbers = np.random.default_rng(3)
    return [
        np.kron(numbers.integers(0, 256, (height // 12, width // 12, 3)), np.ones((12, 12, 1))).astype(np.uint8)
        for height, width in (WIDE, TALL)
    ]


@pytest.fixture(scope="module")
def files(pictures: list[Picture], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


def padded(picture: Picture) -> Picture:
    height, width, _ = picture.shape
    side = max(height, width)
    return np.pad(picture, ((0, side - height), (0, side - width), (0, 0)), constant_values=PADDING)


def assert_same(left: Objects, right: Objects) -> None:
    assert left.batch_size == right.batch_size
    assert torch.equal(left.image_index, right.image_index)
    assert left.z_what is not None
    assert right.z_what is not None
    torch.testing.assert_close(left.z_where, right.z_where, atol=1e-5, rtol=0)
    torch.testing.assert_close(left.z_what, right.z_what, atol=1e-4, rtol=0)


def test_an_image_and_its_padded_copy_have_the_same_objects(predictor: Predictor, pictures: list[Picture]) -> None:
    left_out = 0
    for picture in pictures:
        height, width, _ = picture.shape
        objects, of_padded = (predictor.encode(image, 0.5) for image in (picture, padded(picture)))
        boxes = of_padded.boxes_px((max(picture.shape),) * 2)
        center = of_padded.z_where[:, :2] * max(picture.shape)
        inside = (center < torch.tensor([width, height])).all(dim=1)
        left_out += int((~inside).sum())
        clipped = boxes[inside].minimum(torch.tensor([width, height]).repeat(2))
        assert len(objects) > 0
        torch.testing.assert_close(objects.boxes_px((height, width)), clipped, atol=1e-3, rtol=0)
        assert objects.z_what is not None
        assert of_padded.z_what is not None
        torch.testing.assert_close(objects.z_what, of_padded.z_what[inside])
    assert left_out > 0


def test_own_boxes_are_embedded_where_they_are(predictor: Predictor, pictures: list[Picture]) -> None:
    for picture in pictures:
        boxes = np.array([[10, 20, 60, 70], [0, 0, picture.shape[1], picture.shape[0]]], dtype=float)
        objects = predictor.encode(picture, boxes=boxes, box_unit="pixels")
        of_padded = predictor.encode(padded(picture), boxes=boxes, box_unit="pixels")
        assert objects.z_what is not None
        assert of_padded.z_what is not None
        torch.testing.assert_close(objects.z_what, of_padded.z_what)
        torch.testing.assert_close(
            objects.boxes_px(picture.shape[:2]), torch.from_numpy(boxes).float(), atol=1e-3, rtol=0
        )


def test_every_way_and_engine_gives_the_same_objects(
    predictor: Predictor, pictures: list[Picture], files: list[Path], tmp_path: Path
) -> None:
    expected = predictor.encode(pictures)
    save_model(predictor.model, tmp_path / "model")
    assert_same(Predictor(load_model(tmp_path / "model")).encode(files), expected)
    export_model(predictor.model, tmp_path / "m.onnx")
    exported = OnnxEncoder(tmp_path / "m.onnx", "cpu")
    assert exported.resize == "letterbox"
    (by_files,) = encode_files(predictor, files)
    assert_same(by_files.objects, expected)
    (by_onnx,) = encode_files(exported, files)
    assert_same(Objects.from_arrays(by_onnx.objects), expected)
    whole = [Objects.from_arrays(exported.encode_pixels(picture[None])) for picture in pictures]
    assert_same(Objects.cat(whole), expected)
    odd = pictures[0][:83, :190]
    assert_same(Objects.from_arrays(exported.encode_pixels(odd[None])), predictor.encode(odd))


def test_reconstructions_show_the_image_without_padding(predictor: Predictor, pictures: list[Picture]) -> None:
    for picture in pictures:
        seen = encode_image(predictor, NamedImage("picture", picture))
        stretched = Predictor(build_tiny_model(CLASS_NAMES)).prepare(picture)[0]
        assert torch.equal(seen.square, stretched)
        # The image's part of the scene that is decoded in the padded square is the same picture, smaller.
        prepared = predictor.prepare(picture)
        square = predictor.decode(predictor.encode_batch(prepared)).reconstructions[0]
        height, width = (side * 64 // max(picture.shape) for side in picture.shape[:2])
        shrunk = torch.nn.functional.interpolate(seen.scene.reconstructions, (height, width), mode="area")[0]
        assert (shrunk - square[:, :height, :width]).abs().mean() < 0.03


def test_metrics_are_those_of_the_original_images(
    predictor: Predictor, pictures: list[Picture], files: list[Path]
) -> None:
    detected = predictor.encode(pictures)
    sizes = np.array([picture.shape[:2] for picture in pictures])
    # Every other detection, moved by a tenth of its size, is a true object.
    true = detected[torch.arange(0, len(detected), 2)]
    image = true.image_index.numpy()
    boxes_px = true.boxes.numpy() * np.tile(sizes[image][:, ::-1], 2)
    boxes_px += 0.1 * (boxes_px[:, 2:] - boxes_px[:, :2])[:, [0, 1, 0, 1]]
    names, none = [file.name for file in files], np.zeros(len(true), bool)
    table = AnnotationTable(
        files[0].parent, (), ["object"], names, sizes, image, image * 0, boxes_px.astype(float), none
    )
    data = ObjectDataset(table, "object", 64, resize="letterbox")
    metrics = measure(predictor.model, data, options=MeasureOptions(score_threshold=THRESHOLD)).metrics
    ranked = predictor.encode(pictures, 0.05)
    expected = detection_metrics(ranked, ObjectDataset(table, "object", 64).all_objects(), (64, 64))
    assert 0 < expected["detection/ap50_class_agnostic"] < 1
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
