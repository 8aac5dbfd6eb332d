"""Training stops at the problems that `ssdir data check` names as such, before anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssdir.data.learnable import Learned, nothing_to_learn
from ssdir.data.readers.coco.reader import read_coco
from ssdir.data.readers.registry import open_dataset
from ssdir.data_check.annotations import check_annotations
from ssdir.data_check.check import check_data
from ssdir.errors import InputError
from ssdir.models.space.model import SPACEConfig
from ssdir.training.fit import train
from ssdir.training.recipe import Recipe, read_recipe

from .common import changed

SIDE = 64
BOX = [16, 16, 24, 24]


def write(root: Path, split: str, annotations: list[dict[str, Any]], images: int = 4) -> None:
    """Writes a COCO split of noise; an annotation is a cat at `BOX` in the first image, unless its keys differ."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / split).mkdir()
    for i in range(images):
        pixels = np.random.default_rng(i).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / split / f"{i}.png")
    content = {
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "images": [{"id": i, "file_name": f"{i}.png", "width": SIDE, "height": SIDE} for i in range(images)],
        "annotations": [
            {"id": i, "image_id": 0, "category_id": 1, "bbox": BOX, **entry} for i, entry in enumerate(annotations)
        ],
    }
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    write(root, "train", [{"image_id": i} for i in range(4)])
    write(root, "val", [{"image_id": i} for i in range(4)])
    return root


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def stretch(path: Path) -> None:
    with Image.open(path) as image:
        image.resize((SIDE, 2 * SIDE)).save(path)


def rewrite(root: Path, annotations: list[dict[str, Any]]) -> None:
    file = root / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    entries = [
        {"id": i, "image_id": 0, "category_id": 1, "bbox": BOX, **entry} for i, entry in enumerate(annotations)
    ]
    file.write_text(json.dumps({**content, "annotations": entries}))


STOPS: dict[str, tuple[Callable[[Path], object], str]] = {
    "an image is missing": (lambda root: (root / "train" / "1.png").unlink(), r"train.1\.png"),
    "an image to validate on is missing": (lambda root: (root / "val" / "2.png").unlink(), r"val.2\.png"),
    "an image is cut": (lambda root: shorten(root / "train" / "3.png"), r"train.3\.png"),
    "an image has other proportions": (
        lambda root: stretch(root / "train" / "0.png"),
        "64 x 128 pixels, but .* 64 x 64",
    ),
    "val cannot be read": (
        lambda root: (root / "annotations" / "instances_val.json").write_text('{"images": ['),
        r"instances_val\.json",
    ),
    "there is nothing to train on": (
        lambda root: (root / "annotations" / "instances_train.json").unlink(),
        "has no split 'train'",
    ),
    "no box": (lambda root: rewrite(root, []), r"no image has an object \(no box is annotated\)"),
    "crowds only": (lambda root: rewrite(root, [{"iscrowd": 1}] * 2), r"\(2 boxes of crowds and the like\)"),
    "boxes outside": (
        lambda root: rewrite(root, [{"bbox": [90, 90, 20, 20]}]),
        r"\(1 box without area or outside of their image\)",
    ),
}


@pytest.mark.parametrize("case", STOPS)
def test_training_stops_at_the_problems_that_the_check_names(
    case: str, data: Path, recipe: Recipe, tmp_path: Path
) -> None:
    damage, sentence = STOPS[case]
    assert check_data(data, None, "tiny").trainable
    damage(data)
    assert not check_data(data, None, "tiny").trainable
    with pytest.raises(InputError, match=sentence) as raised:
        train(recipe, data, tmp_path / "run")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"classes": ("dog",)}, r"\(4 boxes of other classes than asked for\)"),
        ({"min_side": 0.5}, r"\(4 boxes too small or too hidden\)"),
        ({"min_side": 0.5, "drop_empty": True}, "no image has an object of min_side 0.5 or more"),
        ({"classes": ("dog",), "min_side": 0.2}, r"\(4 boxes of other classes than asked for\)"),
    ],
)
def test_what_a_recipe_leaves_out_is_not_learned(
    settings: dict[str, Any], sentence: str, data: Path, recipe: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=sentence):
        train(recipe.model_copy(update=settings), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    table = read_coco(data, "train")
    learned = Learned(settings.get("classes", "all"), settings.get("min_side", 0.0))
    assert nothing_to_learn(table, learned) is not None, "the check says the same"


def test_nothing_to_learn_deletes_no_run(data: Path, recipe: Recipe, tmp_path: Path) -> None:
    one = changed(recipe, "detector", epochs=1)
    train(one, data, tmp_path / "run", stage="detector")
    rewrite(data, [])
    with pytest.raises(InputError, match="nothing to learn"):
        train(one, data, tmp_path / "run", stage="detector", force=True)
    assert (tmp_path / "run" / "detector" / "model" / "config.json").exists()


def test_one_object_is_enough(data: Path, recipe: Recipe, tmp_path: Path) -> None:
    rewrite(data, [{"iscrowd": 1}, {"image_id": 2, "category_id": 2}])
    one = changed(recipe, "detector", epochs=1).model_copy(update={"classes": ("dog",)})
    train(one, data, tmp_path / "run", stage="detector")
    assert check_data(data, None, "tiny").trainable


def test_objects_that_are_all_held_out_are_nothing_to_learn(data: Path, recipe: Recipe, tmp_path: Path) -> None:
    (data / "annotations" / "instances_val.json").unlink()
    held = {Path(path).name for path in open_dataset(data, "val", for_training=True).file_names}
    (number,) = (int(name.removesuffix(".png")) for name in held)
    rewrite(data, [{"image_id": number}])
    assert [p.kind for p in check_data(data, None, "tiny").problems if p.stops] == ["no_objects"]
    with pytest.raises(InputError, match="nothing to learn"):
        train(recipe, data, tmp_path / "run")
    rewrite(data, [{"image_id": (number + 1) % 4}])
    check = check_data(data, None, "tiny")
    assert check.trainable
    assert not check.validates


def test_one_image_cannot_be_divided(recipe: Recipe, tmp_path: Path) -> None:
    write(tmp_path / "data", "train", [{}], images=1)
    assert not check_data(tmp_path / "data", None, "tiny").trainable
    with pytest.raises(InputError, match="none can be held out to validate on"):
        train(recipe, tmp_path / "data", tmp_path / "run")


def test_models_that_learn_without_boxes_need_none(data: Path, tmp_path: Path) -> None:
    rewrite(data, [])
    assert isinstance(read_recipe("space-64").model, SPACEConfig)
    check = check_data(data, None, "space-64")
    assert check.trainable
    train(read_recipe("space-64", ["representation.epochs=1"]), data, tmp_path / "run")
    assert (tmp_path / "run" / "model" / "config.json").exists()


def test_presets_that_leave_small_objects_out_are_checked_as_they_train(data: Path) -> None:
    """`paper-widerface` learns no object narrower than 0.04 of the image: here less than 2.56 pixels."""
    learned = read_recipe("paper-widerface").learned
    rewrite(data, [{"bbox": [10, 10, 2.5, 30]}])
    assert [p.kind for p in check_annotations(read_coco(data, "train"), 300, learned) if p.stops] == ["no_objects"]
    rewrite(data, [{"bbox": [10, 10, 2.6, 30]}])
    assert [p.kind for p in check_annotations(read_coco(data, "train"), 300, learned) if p.stops] == []
