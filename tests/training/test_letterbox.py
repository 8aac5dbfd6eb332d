"""Tests of a run on wide images that keep their proportions."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssdir.data.letterbox import PADDING
from ssdir.evaluation.evaluate import EvaluationOptions, evaluate
from ssdir.inference.predictor import load
from ssdir.training.fit import train
from ssdir.training.loading import CachedDataset
from ssdir.training.recipe import Recipe
from ssdir.training.run_folder import read_summary

from .common import SIZE


@pytest.fixture(scope="module")
def wide(scattered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes the scattered digits, padded with black at the right to twice their width."""
    folder = tmp_path_factory.mktemp("data") / "wide"
    shutil.copytree(scattered, folder)
    for path in folder.glob("**/*.png"):
        pixels = np.asarray(Image.open(path))
        Image.fromarray(np.pad(pixels, ((0, 0), (0, SIZE), *((0, 0),) * (pixels.ndim - 2)))).save(path)
    for file in (folder / "annotations").iterdir():
        content = json.loads(file.read_text())
        for image in content["images"]:
            image["width"] = 2 * SIZE
        file.write_text(json.dumps(content))
    return folder


def test_a_run_measures_what_its_users_get(recipe: Recipe, wide: Path, tmp_path: Path) -> None:
    changes = {"model.ssd.resize": "letterbox", "detector.keep": "best", "augment.representation": True}
    values = recipe.model_dump(mode="json")
    for key, value in (
        changes | {"augment.zoom_out": 0.5, "augment.scale_jitter": 0.5, "augment.flip": 0.5}
    ).items():
        *parents, last = key.split(".")
        part = values
        for name in parents:
            part = part[name]
        part[last] = value
    run = tmp_path / "run"
    train(Recipe.model_validate(values), wide, run)
    kept = read_summary(run, "detector").model_dump()["kept_ap50"]
    report = evaluate(run / "detector" / "model", wide, "val", EvaluationOptions(train_split=None))
    assert kept > 0
    assert report.metrics["detection/ap50"] == pytest.approx(kept, abs=1e-6)
    predictor, path = load(run), next(wide.glob("**/*.png"))
    assert predictor.resize == "letterbox"
    assert (predictor.prepare(path)[0, :, SIZE // 2 :] * 255 == PADDING).all()
    objects = predictor.encode(path)
    assert predictor.reconstruct(path, objects).reconstructions.shape == (1, 3, SIZE, SIZE)


def test_detections_move_with_their_augmented_image(recipe: Recipe, wide: Path) -> None:
    recipe = recipe.model_copy(
        update={
            "model": recipe.model.model_copy(
                update={"ssd": recipe.model.ssd.model_copy(update={"resize": "letterbox"})}
            )
        }
    )
    data = recipe.open_data(wide, "val").with_transform(lambda image, objects: (image, objects))
    true = data.with_transform(None).all_objects()
    image, moved, _ = CachedDataset(data, true, [])[0]
    assert image.shape == (3, SIZE // 2, SIZE)
    # A transform sees the image without padding, and boxes relative to it.
    square = data.objects(0)
    assert moved.z_where[:, 3].numpy() == pytest.approx(2 * square.z_where[:, 3].numpy(), abs=1e-5)
    assert moved.z_where[:, 2].numpy() == pytest.approx(square.z_where[:, 2].numpy(), abs=1e-5)
