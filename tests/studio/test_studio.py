from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssdir.data.samples import sample_images
from ssdir.errors import InputError
from ssdir.inference.predictor import load
from ssdir.store.writer import ObjectWriter
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


def test_a_model_s_folder_is_named_and_stays_as_given(
    tiny_model_dir: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_model_dir)
    studio = Studio.open(".", images=photos, device="cpu")
    assert (studio.name, studio.model) == (tiny_model_dir.name, ".")


def test_a_file_of_one_object_is_one_sentence(tmp_path: Path) -> None:
    predictor, path = load("tiny-digits", "cpu"), tmp_path / "one.parquet"
    about = (predictor.class_names, predictor.latent_dim, predictor.fingerprint)
    with ObjectWriter(path, "tiny-digits", *about) as writer:
        writer.write(predictor.encode(sample_images(1)[0].image)[:1], ["a.png"], [(128, 128)])
    with pytest.raises(InputError, match=r"one\.parquet' holds 1 object, two are needed at least"):
        Studio.open("tiny-digits", objects=path, device="cpu")


def test_images_without_objects_are_one_sentence(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    with pytest.raises(
        InputError, match="'tiny-digits' detects 0 objects, two are needed at least: give more images"
    ):
        Studio.open("tiny-digits", images=tmp_path, device="cpu")
