from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssdir.data.samples import sample_images
from ssdir.errors import InputError
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


def test_images_without_objects_are_one_sentence(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    with pytest.raises(InputError, match="'tiny-digits' detects 0 objects in the images given"):
        Studio.open("tiny-digits", images=tmp_path, device="cpu")
