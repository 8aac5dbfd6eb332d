"""A photograph gives the network the same input in every file format and for every purpose."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images

import ssdir
from ssdir.data.annotations import AnnotationTable
from ssdir.data.dataset import ObjectDataset
from ssdir.data.images import read_image
from ssdir.data.letterbox import read_square
from ssdir.inference.files import encode_files, read_image_batches
from ssdir.inference.predictor import Predictor
from ssdir.objects import Objects
from ssdir.ops.resize import resize_area
from ssdir.studio.images import encode_image, read_upload


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Writes two photographs of 640 x 427 as JPEG, PNG and WebP, one also turned and four times as large."""
    folder, paths = tmp_path_factory.mktemp("photographs"), []
    for number, pixels in enumerate(load_sample_images().images):
        picture = Image.fromarray(pixels)
        for suffix in ("jpg", "png", "webp"):
            paths.append(folder / f"{number}.{suffix}")
            picture.save(paths[-1])
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, image in (("side.jpg", picture), ("large.jpg", picture.resize((2560, 1708)))):
        paths.append(folder / name)
        image.save(paths[-1], exif=exif)
    return paths


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return ssdir.load("tiny-digits", device="cpu")


def as_table(paths: list[Path]) -> AnnotationTable:
    none = np.zeros(0, dtype=np.int64)
    sizes = np.array([read_image(path).shape[:2] for path in paths], dtype=np.int64)
    names = [path.name for path in paths]
    return AnnotationTable(
        paths[0].parent, (), ["object"], names, sizes, none, none, np.zeros((0, 4)), none.astype(bool)
    )


def in_8_bits(seen: torch.Tensor) -> NDArray[np.uint8]:
    return (seen * 255).round().byte().permute(0, 2, 3, 1).numpy()


def test_every_way_in_makes_the_same_pixels(photographs: list[Path], predictor: Predictor) -> None:
    side = predictor.image_size
    expected = in_8_bits(predictor.prepare(photographs))
    arrays = [read_image(path) for path in photographs]
    tensors = [torch.from_numpy(array).permute(2, 0, 1) for array in arrays]
    pictures = [Image.open(path) for path in photographs]
    for sources in ([*map(str, photographs)], arrays, tensors, [tensor / 255 for tensor in tensors], pictures):
        assert np.array_equal(in_8_bits(predictor.prepare(sources)), expected)
    (batch,) = read_image_batches(photographs, side)
    assert np.array_equal(batch.pixels, expected)
    for preload in (False, True):
        dataset = ObjectDataset(as_table(photographs), image_size=side, preload=preload)
        read = torch.stack([dataset[index][0] for index in range(len(dataset))])
        assert np.array_equal(read.permute(0, 2, 3, 1).numpy(), expected)
    for path, pixels in zip(photographs, expected, strict=True):
        assert np.array_equal(in_8_bits(encode_image(predictor, read_upload(path)).square[None])[0], pixels)


def test_every_way_in_gives_the_same_objects(photographs: list[Path], predictor: Predictor) -> None:
    by_path = predictor.encode(photographs)
    by_array = predictor.encode([read_image(path) for path in photographs])
    by_file = Objects.cat([batch.objects for batch in encode_files(predictor, photographs)])
    assert len(by_path) > len(photographs)
    for other in (by_array, by_file):
        assert torch.equal(by_path.image_index, other.image_index)
        assert torch.equal(by_path.z_where, other.z_where)
        assert by_path.z_what is not None
        assert other.z_what is not None
        assert torch.equal(by_path.z_what, other.z_what)


def test_an_exported_graph_resizes_to_the_same_pixels_within_one(photographs: list[Path]) -> None:
    for path in photographs:
        whole = torch.from_numpy(read_image(path)).permute(2, 0, 1)[None] / 255
        resized = in_8_bits(resize_area(whole, 128))[0].astype(int)
        assert np.abs(resized - read_square(path, 128)[1]).max() <= 1
