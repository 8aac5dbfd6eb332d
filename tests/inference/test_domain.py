"""Images that are unlike a model's training data are reported, by the error of its decoded objects."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

import ssdir
from ssdir.data.readers.registry import open_dataset
from ssdir.data.scatter.generator import ScatterConfig
from ssdir.data.scatter.writer import write_scatter
from ssdir.encoding.encode import encode_images
from ssdir.errors import InputWarning
from ssdir.inference.domain import DomainCheck, check_domain, check_files, familiar_error, image_errors
from ssdir.models.io import load_model, save_model
from ssdir.objects import Objects, Scene


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes scattered digits on which `tiny-digits` was not trained."""
    folder = tmp_path_factory.mktemp("digits") / "data"
    write_scatter(folder, "digits", ScatterConfig(train=1, val=40, test=12, seed=7))
    return folder


def test_the_error_of_an_image_is_the_mean_over_its_objects() -> None:
    images = torch.rand(3, 3, 16, 16)
    whole = torch.tensor([0.5, 0.5, 1.0, 1.0])
    objects = Objects(torch.tensor([0, 0, 2]), 3, whole.expand(3, 4))
    appearances = torch.rand(3, 3, 8, 8)
    scene = Scene(reconstructions=images, appearances=appearances, alpha=torch.ones(3, 1, 8, 8))
    shrunk = interpolate(images, scale_factor=0.5, mode="bilinear", align_corners=False)
    first, second, third = (
        float((appearances[row] - shrunk[image]).square().mean()) for row, image in enumerate([0, 0, 2])
    )
    errors = image_errors(images, objects, scene)
    np.testing.assert_allclose(errors.numpy(), [(first + second) / 2, np.nan, third], rtol=1e-5)


@pytest.mark.parametrize(
    ("errors", "reported"),
    [
        ([0.2], "the image is"),
        ([0.05], None),
        ([np.nan], None),
        ([0.2, 0, 0, 0], None),
        ([0.2, np.nan], "the only image with objects is"),
        ([0.2, 0.2, 0, 0, 0, 0, 0, 0], "2 of 8 images checked are"),
        ([0.2, 0.2, 0, 0, 0, 0, 0, 0, 0], None),
    ],
)
def test_a_quarter_of_the_images_with_objects_and_two_of_several_must_be_unlike(
    errors: list[float], reported: str | None
) -> None:
    sentence = DomainCheck(np.array(errors), limit=0.1).sentence("mine")
    assert (sentence is not None) == (reported is not None)
    if sentence is not None:
        assert sentence.startswith(f"{reported} unlike those that 'mine' was trained on")


def test_the_shipped_model_of_digits_distinguishes_digits_from_a_photograph(
    digits: Path, picture: NDArray[np.uint8]
) -> None:
    model = ssdir.load("tiny-digits", "cpu")
    own = check_files(model, sorted((digits / "test").glob("*.png")))
    other = check_domain(model, picture)
    assert own is not None
    assert other is not None
    assert own.sentence("tiny-digits") is None
    assert other.unlike.tolist() == [True]
    assert np.nanmax(own.errors) < other.errors[0]


def test_the_limit_is_a_quantile_over_validation_images(digits: Path) -> None:
    model = load_model("tiny-digits")
    limit = familiar_error(model, open_dataset(digits, "val", image_size=model.image_size))
    checked = check_files(ssdir.load("tiny-digits", "cpu"), sorted((digits / "val").glob("*.png"))[:32])
    assert limit is not None
    assert checked is not None
    assert np.isfinite(checked.errors).all()
    assert 0.85 <= (checked.errors <= limit).mean() <= 1
    assert (checked.errors > 0.5 * limit).any()
    assert model.familiar_error == pytest.approx(limit, rel=0.25)  # Other images of the same kind.


def test_a_model_without_a_decoder_has_no_limit(digits: Path) -> None:
    model = load_model("tiny-digits")
    detector = model.get_submodule("detector")
    assert familiar_error(detector, open_dataset(digits, "val", image_size=model.image_size)) is None  # type: ignore[arg-type]


def test_the_limit_is_stored_with_the_model(tiny_model_dir: Path, out: Path, picture: NDArray[np.uint8]) -> None:
    model = load_model(tiny_model_dir)
    assert model.familiar_error is None
    assert check_domain(ssdir.load(tiny_model_dir, "cpu"), picture) is None
    model.familiar_error = 0.25
    save_model(model, out)
    assert load_model(out).familiar_error == 0.25


def test_encode_warns_of_images_unlike_the_training_data(digits: Path, photos: Path, out: Path) -> None:
    with pytest.warns(InputWarning, match=r"\d of \d images checked are unlike those that 'tiny-digits'"):
        encode_images("tiny-digits", [str(photos)], out / "photos.parquet")
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputWarning)
        encode_images("tiny-digits", [str(digits / "test")], out / "digits.parquet")


def test_unreadable_files_are_left_to_encode(photos: Path) -> None:
    broken = photos / "broken.png"
    broken.write_bytes(b"no picture")
    check = check_files(ssdir.load("tiny-digits", "cpu"), [broken, photos / "a.png"])
    assert check is not None
    assert len(check.errors) == 1
