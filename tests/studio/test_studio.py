from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssdir.data.samples import sample_images
from ssdir.errors import InputError
from ssdir.studio.images import encode_image
from ssdir.studio.studio import Studio


def test_a_folder_of_one_s_own_images_is_shown_and_explored(tmp_path: Path) -> None:
    samples = sample_images(3)
    for sample in samples:
        Image.fromarray(sample.image).save(tmp_path / f"{sample.name}.png")
    stages: list[str] = []
    studio = Studio.open("tiny-digits", images=tmp_path, device="cpu", on_stage=stages.append)
    assert [each.name for each in studio.samples.images] == [f"{sample.name}.png" for sample in samples]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(studio.samples.images, samples, strict=True))
    assert studio.collection.names == [f"{sample.name}.png" for sample in samples]
    assert studio.about == "class-agnostic, scattered scikit-learn digits at 128x128"
    assert stages == ["loading the model tiny-digits", "detecting objects", "mapping the objects"]


def test_large_images_are_encoded_and_saved_as_they_are(tmp_path: Path) -> None:
    """Only what is shown is smaller: objects and boxes in pixels are those of the file."""
    large = np.zeros((1200, 1600, 3), np.uint8)
    large[::256, ::256] = 255
    large[200:328, 100:228] = large[900:1028, 1400:1528] = sample_images(1)[0].image
    Image.fromarray(large).save(tmp_path / "large.png")
    studio = Studio.open("tiny-digits", images=tmp_path, device="cpu")
    expected = studio.predictor.encode(tmp_path / "large.png")
    assert torch.equal(studio.collection.objects.z_where, expected.z_where)
    neighbour = studio.collection.named(0)
    assert neighbour is not None
    for named in (studio.samples.images[0], neighbour):
        encoded = encode_image(studio.predictor, named)
        assert (encoded.size, encoded.shown.shape) == ((1200, 1600), (768, 1024, 3))
        assert sorted(encoded.objects.boxes_px(encoded.size).tolist()) == sorted(
            expected.boxes_px((1200, 1600)).tolist()
        )


def test_images_without_objects_are_one_sentence(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    with pytest.raises(InputError, match="'tiny-digits' detects 0 objects in the images given"):
        Studio.open("tiny-digits", images=tmp_path, device="cpu")
