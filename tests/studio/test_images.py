from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image

import ssdir
from ssdir.data.samples import sample_images, sample_photographs
from ssdir.data.scatter.generator import ScatterConfig, image_rng, scatter_image
from ssdir.data.scatter.glyphs import load_glyphs
from ssdir.encoding.encode import encode_images
from ssdir.errors import InputError, InputWarning
from ssdir.evaluation.matching import match_greedy
from ssdir.inference.predictor import Predictor
from ssdir.models.registry import build_model
from ssdir.objects import Objects
from ssdir.ops.boxes import to_cxcywh
from ssdir.studio.app import NUM_OFFERED
from ssdir.studio.images import depth_ranks, encode_image, read_upload, samples_for, samples_of_folder
from ssdir.studio.studio import default_model
from ssdir.training.recipe import read_recipe


def test_an_encoded_image_is_what_the_predictor_returns_by_falling_score(predictor: Predictor) -> None:
    sample = sample_images(1)[0]
    seen = encode_image(predictor, sample)
    assert seen.objects.scores is not None
    assert len(seen.objects) > 1
    assert bool((seen.objects.scores.diff() <= 0).all())
    expected = predictor.encode(sample.image)
    assert expected.scores is not None
    torch.testing.assert_close(seen.objects.scores, expected.scores.sort(descending=True).values)
    reconstruction = predictor.decode(expected).reconstructions[0]
    squared = (reconstruction.permute(1, 2, 0).numpy() - sample.image / 255) ** 2
    assert seen.error == pytest.approx(float(squared.mean()), rel=1e-3)


def test_a_reconstruction_has_the_background_that_the_model_infers() -> None:
    torch.manual_seed(0)
    predictor = Predictor(build_model(read_recipe("space-64").model, ["object"]))
    sample = sample_images(1)[0]
    seen = encode_image(predictor, sample)
    expected = predictor.reconstruct(sample.image, seen.objects).reconstructions
    assert not torch.allclose(expected, predictor.decode(seen.objects).reconstructions, atol=0.1)
    assert seen.error == pytest.approx(float((expected[0] - seen.square).square().mean()))


def test_samples_are_the_same_each_time_and_do_not_depend_on_how_many() -> None:
    few, many = sample_images(2), sample_images(4)
    assert all(np.array_equal(one.image, other.image) for one, other in zip(few, many, strict=False))
    assert not np.array_equal(many[0].image, many[1].image)


def test_sample_photographs_are_photographs_and_the_same_each_time() -> None:
    few, many = sample_photographs(4), sample_photographs(6)
    assert [each.name for each in many] == ["temple", "portrait", "flower", "collage 1", "collage 2", "collage 3"]
    for one, other in zip(few, many, strict=False):
        assert np.array_equal(one.image, other.image)
    for each in many:
        assert each.image.dtype == np.uint8
        assert each.image.shape[2] == 3
        assert each.image.flags.writeable, "torch warns of others"
        assert len(np.unique(each.image.reshape(-1, 3), axis=0)) > 5000, "colours of a photograph"
    assert not np.array_equal(many[3].image, many[4].image)


def test_the_studio_opens_with_a_model_whose_objects_decode_to_what_they_look_like() -> None:
    assert default_model(images=Path("holiday")) == "photos"
    predictor = ssdir.load(default_model(), "cpu")
    images = [sample.image for sample in samples_for(predictor, default_model(), NUM_OFFERED).images]
    assert len(images) == NUM_OFFERED
    errors = (predictor.prepare(images) - predictor.reconstruct(images).reconstructions).square()
    assert float(errors.mean()) < 0.01


def test_a_file_of_objects_is_opened_with_its_own_model(
    tiny_model_dir: Path, photos: Path, tmp_path: Path
) -> None:
    objects = tmp_path / "objects.parquet"
    encode_images(str(tiny_model_dir), [photos], objects)
    assert default_model(objects, photos) == str(tiny_model_dir.resolve())
    assert default_model(tmp_path / "none.parquet", photos) == "photos"


@pytest.mark.parametrize(("model", "first"), [("photos", "temple"), ("tiny-digits", "sample 1")])
def test_a_shipped_model_detects_something_in_its_samples(model: str, first: str) -> None:
    predictor = ssdir.load(model, "cpu")
    samples = samples_for(predictor, model, NUM_OFFERED).images
    assert len(samples) == NUM_OFFERED
    assert samples[0].name == first
    detected = predictor.encode([sample.image for sample in samples])
    assert len(detected.image_index.unique()) >= NUM_OFFERED - 1


@pytest.mark.parametrize(
    ("preset", "first"),
    [("photos", "temple"), ("tiny", "sample 1"), ("paper-mnist", "sample 1"), ("spair-64", "sample 1")],
)
def test_samples_depend_on_the_preset_of_the_model(preset: str, first: str) -> None:
    config = read_recipe(preset).model
    predictor = cast("Predictor", SimpleNamespace(model=SimpleNamespace(config=config)))
    samples = samples_for(predictor, "runs/mine", 1)
    assert samples.images[0].name == first
    assert ("need not look like" in samples.about) == (first == "sample 1")


def test_only_the_model_of_the_sample_digits_has_no_note_on_unlike_images() -> None:
    for name, known in (("tiny-digits", True), ("tiny-mnist", False)):
        about = samples_for(ssdir.load(name, "cpu"), name, 1).about
        assert ("need not look like its training images" in about) != known


def test_samples_of_a_folder_are_spread_over_it(tmp_path: Path) -> None:
    for number in range(9):
        Image.new("RGB", (1500, 20), (number, 0, 0)).save(tmp_path / f"{number}.png")
    samples = samples_of_folder(tmp_path, 3)
    assert [each.name for each in samples.images] == ["0.png", "4.png", "8.png"]
    assert [each.image[0, 0, 0] for each in samples.images] == [0, 4, 8]
    assert samples.images[0].image.shape[1] == 1024
    assert str(tmp_path) in samples.about
    assert len(samples_of_folder(tmp_path, 30).images) == 9


def test_samples_of_a_folder_leave_out_what_cannot_be_read_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"broken")
    with pytest.raises(
        InputError, match=r"none of the images in .* can be read; the first: .*b\.png' is not an image"
    ):
        samples_of_folder(tmp_path, 3)
    (tmp_path / "below").mkdir()
    for name in ("a.png", "below/a.png"):
        Image.new("RGB", (20, 20)).save(tmp_path / name)
    with pytest.warns(InputWarning, match=r"1 image of .* skipped; the first: .*b\.png' is not an image"):
        samples = samples_of_folder(tmp_path, 3)
    assert [each.name for each in samples.images] == ["a.png", "below/a.png"]


def test_tiny_digits_detects_the_sample_digits() -> None:
    predictor, wrong, digits = ssdir.load("tiny-digits", "cpu"), 0, 0
    for number, sample in enumerate(sample_images(NUM_OFFERED)):
        config, rng = ScatterConfig(grids=(2, 3, 4), seed=1), image_rng(1, "test", number)
        true = scatter_image(load_glyphs("digits", "test"), config, rng)
        assert np.array_equal(true.image, sample.image[..., 0])
        detected = encode_image(predictor, sample).objects
        boxes = to_cxcywh(torch.from_numpy(true.boxes_px) / 128)
        target = Objects(torch.zeros(len(boxes), dtype=torch.int64), 1, boxes)
        matched = int((match_greedy(detected, target) >= 0).sum())
        wrong += len(detected) + len(target) - 2 * matched
        digits += len(target)
    assert wrong <= 0.1 * digits


def test_the_nearest_object_is_the_one_of_the_largest_depth() -> None:
    objects = Objects(
        torch.zeros(3, dtype=torch.int64), 1, torch.full((3, 4), 0.5), z_depth=torch.tensor([0.5, 3.0, -1.0])
    )
    assert depth_ranks(objects) == [2, 1, 3]
    assert depth_ranks(objects.replace(z_depth=None)) == []


def test_pictures_are_shown_reduced_and_refused_without_naming_their_folder(
    tmp_path: Path, predictor: Predictor
) -> None:
    Image.new("RGB", (2048, 512), "red").save(tmp_path / "wide.png")
    seen = encode_image(predictor, read_upload(tmp_path / "wide.png"))
    assert (seen.name, seen.size, seen.shown.shape) == ("wide.png", (512, 2048), (256, 1024, 3))
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(InputError, match=r"^'text\.png' is not an image"):
        read_upload(tmp_path / "text.png")
    Image.new("1", (10_000, 6_000)).save(tmp_path / "huge.png")
    with pytest.raises(InputError, match=r"^'huge\.png' has 10000 x 6000 pixels"):
        read_upload(tmp_path / "huge.png")
