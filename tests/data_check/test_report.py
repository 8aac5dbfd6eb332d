"""`ssdir data check` prints one screen, and writes a folder with a recipe that training accepts."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

from data.defects import noise, write_defects, write_folder
from data.test_clevr import CLEVR_MINI, needs_clevr_mini
from ssdir.cli import app
from ssdir.config import presets
from ssdir.data.learnable import usable_boxes
from ssdir.data.scatter.generator import ScatterConfig
from ssdir.data.scatter.writer import write_scatter
from ssdir.data.transforms import AugmentConfig
from ssdir.data_check.anchors import fit_detector
from ssdir.data_check.annotations import box_flags
from ssdir.data_check.check import check_data
from ssdir.data_check.recommendation import recommend, recommend_within
from ssdir.data_check.report import screen_lines, write_report
from ssdir.data_check.size_priors import GridModelConfig, measure_prior
from ssdir.models.base import GenerativeModel
from ssdir.models.detected.model import DetectedConfig
from ssdir.models.registry import build_model
from ssdir.ops.boxes import to_cxcywh
from ssdir.training.estimate import StageTime, TrainingTime
from ssdir.training.recipe import Recipe, read_recipe


def run(*args: object) -> Any:
    return CliRunner().invoke(app, ["data", "check", *(str(arg) for arg in args)])


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes six images with wide boxes, which tiny's anchors hardly match."""
    rng = np.random.default_rng(0)
    images = [(f"{i}.png", noise(120, 200, i)) for i in range(6)]
    boxes = [
        (i, name, (*rng.integers(0, 80, 2).tolist(), int(rng.integers(90, 110)), 20))
        for i in range(6)
        for name in ("cat", "dog", "cat")
    ]
    return write_folder(tmp_path_factory.mktemp("clean") / "pets", images, boxes, ["cat", "dog"])


@pytest.fixture(scope="module")
def defects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_defects(tmp_path_factory.mktemp("defects") / "data")


def test_letterboxed_boxes_are_measured_in_the_padded_square(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = read_recipe("tiny", ["model.ssd.resize=letterbox"])
    monkeypatch.setattr("ssdir.data_check.check.read_recipe", lambda _: recipe)
    check = check_data(clean, None, "tiny")
    # As in images that were padded before.
    table = check.tables["train"]
    square = dataclasses.replace(table, image_sizes=np.full_like(table.image_sizes, 200))
    assert isinstance(recipe.model, DetectedConfig)
    boxes = to_cxcywh(torch.from_numpy(usable_boxes(square)[1]))
    expected = fit_detector(boxes, [200] * 6, check.summary.nms_threshold, recipe.model.ssd)
    assert check.detector is not None
    assert check.detector.current == expected.current
    for size in (30, 60):
        flagged = box_flags(table, size, "letterbox")["tiny_boxes"]
        assert np.array_equal(flagged, box_flags(square, size)["tiny_boxes"])
        assert flagged.sum() > box_flags(table, size)["tiny_boxes"].sum() or size == 60


def test_the_screen_reports_every_result(clean: Path) -> None:
    result = run(clean, "--preset", "tiny")
    assert result.exit_code == 0, result.output
    for part in (
        "pets, split train: COCO layout",
        "images     6, 200 x 120 px",
        "objects    18; per image 3 min, 3 median, 3 mean, 3 max",
        "cat 12 ████████",
        "dog  6 ████",
        "> 3:1     18 ████████",
        "level 3",
        "nothing broken, nothing suspicious",
        "training   ",
        "ready to train, but tiny's anchors match",
        "next: ssdir data check",
    ):
        assert part in result.stdout
    lines = result.stdout.splitlines()
    assert len(lines) < 52
    assert max(len(line) for line in lines[1:-1]) <= 100


def test_every_defect_is_on_the_screen(defects: Path) -> None:
    result = run(defects)
    assert result.exit_code == 1
    assert "error: images that can't be read: 2\n    train/cut.png: " in result.stdout
    assert "error: images that are missing: 1\n    train/gone.png\n" in result.stdout
    assert "note: boxes outside of their image (left out): 1\n    train/good.png: dog (200, 10, " in result.stdout
    assert (
        "training on this would stop: images that are missing (1); images that can't be read (2)" in result.stdout
    )
    assert "next: ssdir train" not in result.stdout
    assert result.stdout.index("error: ") < result.stdout.index("note: ")


def test_a_folder_holds_findings_recipe_and_picture(clean: Path, tmp_path: Path) -> None:
    out = tmp_path / "check"
    result = run(clean, "--out", out, "--preset", "tiny", "--minutes", 10_000)
    assert f"next: ssdir train {out}/recommended.yaml --data {clean}" in result.stdout
    names = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    assert names == {"check.json", "recommended.yaml", "image-grid.png"}
    content = json.loads((out / "check.json").read_text())
    assert content["trainable"]
    assert content["summary"]["classes"] == {"cat": 12, "dog": 6}
    recipe = read_recipe(out / "recommended.yaml")
    assert recipe.name == "pets"
    tiny = read_recipe("tiny")
    assert recipe.classes == tiny.classes
    # Six images are seen again and again, in all else as in the preset.
    often = {"epochs": 200, "batch_size": 16}
    assert recipe.representation == tiny.representation.model_copy(update=often)
    assert recipe.detector == tiny.detector.model_copy(update={**often, "keep": "best", "patience": 50})
    assert recipe.augment == AugmentConfig(flip=0.5, photometric=0.5, zoom_out=0.3, iou_crop=0.5)
    detector = recipe.model.ssd
    better, now = content["recommended"], content["current"]
    assert detector.image_size == better["image_size"]
    assert detector.anchors.model_dump(mode="json") == better["anchors"]
    assert detector.nms_threshold == better["nms_threshold"] == content["summary"]["nms_threshold"]
    assert better["together"]["share"] > now["together"]["share"] + 0.2
    assert detector.backbone == tiny.model.ssd.backbone
    with Image.open(out / "image-grid.png") as grid:
        assert grid.width > 1000


@pytest.mark.parametrize(
    ("images", "epochs"), [(20, 200), (310, 39), (2_500, 5), (3_000, 4), (6_000, None), (100_000, None)]
)
def test_few_images_are_seen_more_often(
    images: int, epochs: int | None, clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = check_data(clean, None, "tiny")
    summary = dataclasses.replace(check.summary, images=images)
    monkeypatch.setitem(check.summaries, check.split, summary)
    recipe = yaml.safe_load(recommend(check).yaml)
    for stage in ("detector", "representation"):
        own = getattr(read_recipe("tiny"), stage).epochs
        assert recipe.get(stage, {}).get("epochs") == (epochs if epochs is not None and epochs > own else None)
    patience = None if epochs is None or epochs <= 10 else max(10, round(epochs / 4))
    measured = {} if epochs is None else {"keep": "best", "patience": patience}
    assert {key: recipe.get("detector", {}).get(key) for key in measured} == measured
    assert ("augment" in recipe) == (epochs is not None)
    assert recipe["model"]["ssd"].get("refiner") == (None if epochs is None else {"copies": 3})
    assert "decoder" not in recipe["model"], "tiny interpolates, so it needs no ICNR initialisation"


@pytest.mark.parametrize(
    ("names", "flip"),
    [
        (("cat", "dog"), 0.5),
        (("cat", "7"), 0),
        (("a", "b"), 0),
        (("left arrow", "right arrow"), 0),
        (("turn_left", "go"), 0),
        (("RIGHT-arrow", "go"), 0),
        (("LeftHand", "go"), 0),
        (("CurveRIGHT2", "go"), 0),
        (("copyright", "cleft"), 0.5),
    ],
)
def test_what_changes_in_a_mirror_is_not_mirrored(names: tuple[str, str], flip: float, tmp_path: Path) -> None:
    boxes = [(i, names[i % 2], (20, 20, 40, 30)) for i in range(4)]
    data = write_folder(tmp_path / "data", [(f"{i}.png", noise(80, 80, i)) for i in range(4)], boxes, names)
    assert yaml.safe_load(recommend(check_data(data, None, "tiny")).yaml)["augment"].get("flip", 0) == flip
    recommended = recommend(check_data(data, None, "clevr-128"))
    assert recommended.recipe.augment == read_recipe("clevr-128").augment.model_copy(update={"flip": flip})
    assert ("Images are not mirrored" in recommended.yaml) == (flip == 0)


def test_a_preset_with_augmentation_keeps_its_own(clean: Path) -> None:
    assert "augment" not in yaml.safe_load(recommend(check_data(clean, None, "clevr-128")).yaml)
    assert read_recipe("clevr-128").augment.iou_crop > 0


def test_epochs_are_compared_only_where_there_are_objects_to_validate_on(clean: Path, tmp_path: Path) -> None:
    classes = ["cat", "dog"]
    data = tmp_path / "pets"
    shutil.copytree(clean, data)
    assert check_data(data, None, "tiny").validates, "a tenth of the images will be held out"
    write_folder(data, [("x.png", noise(60, 90, 7))], [], classes, "val")
    check = check_data(data, None, "tiny")
    assert not check.validates
    assert not check_data(data, "train", "tiny").validates
    recipe = yaml.safe_load(recommend(check).yaml)
    assert "keep" not in recipe["detector"]
    assert "augment" in recipe


def test_epochs_are_compared_if_one_split_of_several_is_checked(clean: Path, tmp_path: Path) -> None:
    data = tmp_path / "pets"
    shutil.copytree(clean, data)
    write_folder(data, [("x.png", noise(60, 90, 7))], [(0, "cat", (20, 20, 40, 30))], ["cat", "dog"], "val")
    every, one = (check_data(data, split, "tiny") for split in (None, "train"))
    assert every.validates
    assert one.validates
    assert recommend(one) == recommend(every)


@pytest.mark.slow
def test_few_generated_images_get_icnr_initialisation(clean: Path) -> None:
    recipe = yaml.safe_load(recommend(check_data(clean, None, "paper-clevr")).yaml)
    assert recipe["model"]["decoder"] == {"icnr": True}
    assert "refiner" not in recipe["model"]["ssd"], "the preset has no refiner"


@pytest.mark.parametrize(("grey", "view"), [(0, "copy_paste"), (90, "warp")])
def test_the_copy_paste_view_is_recommended_only_where_images_are_black(
    grey: int, view: str, tmp_path: Path
) -> None:
    config = ScatterConfig(canvas=64, train=4, val=0, test=0)
    data = tmp_path / "digits"
    write_scatter(data, "digits", config)
    for path in (data / "train").glob("*.png"):
        pixels = np.maximum(np.asarray(Image.open(path)), grey).astype(np.uint8)
        Image.fromarray(pixels).save(path)
    check = check_data(data, "train", "tiny")
    path = tmp_path / "recommended.yaml"
    path.write_text(recommend(check).yaml, encoding="utf-8")
    assert check.on_black == (grey == 0)
    assert read_recipe(path).model.consistency.view == view
    augment = read_recipe(path).augment
    assert (augment.photometric > 0) == (grey > 0), "what is black stays black"
    assert augment.flip == 0, "digits are not mirrored"


@pytest.mark.slow
@pytest.mark.parametrize(
    "preset", [name for name in presets() if isinstance(read_recipe(name).model, DetectedConfig)]
)
def test_every_preset_can_be_recommended_for(
    clean: Path, tmp_path: Path, preset: str, untrained_recipe: Callable[..., Recipe]
) -> None:
    check = check_data(clean, "train", preset)
    path = tmp_path / "recommended.yaml"
    path.write_text(recommend(check).yaml, encoding="utf-8")
    model = build_model(untrained_recipe(path).model, ["object"])
    fit = check.detector
    assert fit is not None
    assert model.detector.feature_sizes == [level.cells for level in fit.recommended.levels]
    assert fit.recommended.together.share >= fit.current.together.share
    nms = "nms_threshold" in path.read_text()
    assert nms == fit.nms == read_recipe(preset).model.ssd.nms


def test_broken_data_still_yields_a_picture(defects: Path, tmp_path: Path) -> None:
    out = tmp_path / "check"
    assert run(defects, "--out", out).exit_code == 1
    content = json.loads((out / "check.json").read_text())
    assert not content["trainable"]
    assert {"damaged_images", "tiny_boxes"} <= {problem["kind"] for problem in content["problems"]}
    with Image.open(out / "image-grid.png") as grid:
        pixels = np.asarray(grid.convert("RGB"))
    red = (pixels == (255, 0, 0)).all(axis=-1)
    assert red.sum() > 100


def test_nothing_can_be_read_and_nothing_to_learn(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "none", [("a.png", noise(8, 8))], [], ["cat"])
    (root / "train" / "a.png").unlink()
    result = run(root, "--out", tmp_path / "check")
    assert result.exit_code == 1
    assert "no image has an object" in result.stdout
    assert (tmp_path / "check" / "image-grid.png").is_file()


def test_json_is_json_alone(clean: Path) -> None:
    result = run(clean, "--json", "--preset", "tiny")
    content = json.loads(result.stdout)
    assert content["layout"] == "COCO"
    assert [level["cells"] for level in content["current"]["levels"]] == [16, 8, 4]
    assert content["size_priors"].keys() == {"space-64", "spair-64"}
    assert content["size_priors"]["space-64"]["current"]["size_loc"] == -1
    seconds = content["recommendation"]["seconds"]
    assert seconds.keys() == {"reading", "detector", "representation", "all"}
    assert seconds["all"] == pytest.approx(sum(seconds.values()) - seconds["all"])
    assert content["recommendation"]["recipe"]["base"] == "tiny"


@pytest.mark.parametrize(
    "preset", [name for name in presets() if isinstance(read_recipe(name).model, GridModelConfig)]
)
def test_presets_without_a_detector_get_a_size_prior(clean: Path, tmp_path: Path, preset: str) -> None:
    out = tmp_path / "check"
    result = run(clean, "--preset", preset, "--split", "train", "--out", out)
    assert result.exit_code == 0, result.output
    assert f"next: ssdir train {out}/recommended.yaml --data {clean}" in result.stdout
    assert "ready to train" in result.stdout
    assert "anchor matches" not in result.stdout
    content = json.loads((out / "check.json").read_text())
    assert content["size_priors"].keys() == {preset}
    assert "recommended" not in content
    config = read_recipe(out / "recommended.yaml").model
    assert type(config) is type(read_recipe(preset).model)
    read_back = dataclasses.asdict(measure_prior(torch.zeros(0, 4), np.zeros(0, dtype=np.int64), config))
    recommended = content["size_priors"][preset]["recommended"]
    for of_boxes in ("too_large", "shared"):
        del read_back[of_boxes], recommended[of_boxes]
    assert read_back == recommended


@pytest.mark.parametrize("preset", ["space-64", "spair-64"])
def test_a_recommended_grid_trains(preset: str, tmp_path: Path) -> None:
    """Four objects share a cell of the preset's grid, so the recommended grid is finer."""
    boxes = [(i, "dot", (x, y, 5, 3)) for i in range(4) for x in (2, 9) for y in (2, 10)]
    images = [(f"{i}.png", noise(64, 64, i)) for i in range(4)]
    check = check_data(write_folder(tmp_path / "dots", images, boxes, ["dot"]), "train", preset)
    fit = check.priors[preset]
    assert fit.current.shared == 0.75
    assert (fit.recommended.cells, fit.recommended.shared) == (8, 0)
    assert "75% find their cell taken (recommended: 0%)" in screen_lines(check)[-1]
    path = tmp_path / "recommended.yaml"
    path.write_text(recommend(check).yaml, encoding="utf-8")
    torch.manual_seed(0)
    model = build_model(read_recipe(path).model, ["object"]).train()
    assert isinstance(model, GenerativeModel)
    loss = model.loss(torch.rand(2, 3, 64, 64))["total"]
    loss.backward()
    assert torch.isfinite(loss)
    cells = model.eval().encode(torch.rand(1, 3, 64, 64), score_threshold=0.0).anchor_index
    assert cells is not None
    assert cells.tolist() == list(range(64))


def test_what_cannot_be_checked_is_one_sentence(clean: Path, tmp_path: Path) -> None:
    cases = [
        ((tmp_path / "no",), "does not exist"),
        (
            (clean, "--split", "test"),
            "has no split 'test' (there is train): annotations/instances_test.json is missing",
        ),
        ((clean, "--preset", "tyni"), "unknown preset 'tyni'; did you mean 'tiny'?"),
        ((clean, "--out", clean), "exists already"),
        ((clean, "--out", clean, "--force"), "did not write"),
    ]
    for args, message in cases:
        result = run(*args)
        assert result.exit_code == 2, args
        assert result.stderr.startswith("error: ")
        assert message in result.stderr
        assert result.stderr.count("\n") == 1


def test_an_interrupt_leaves_nothing_behind(clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ssdir.data_check.report.draw_image_grid", interrupt)
    check = check_data(clean, "train", "tiny")
    with pytest.raises(KeyboardInterrupt):
        write_report(check, recommend(check), tmp_path / "check")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@needs_clevr_mini
def test_real_scenes() -> None:
    started = time.perf_counter()
    check = check_data(CLEVR_MINI, "train", "tiny")
    assert time.perf_counter() - started < 60
    assert (check.layout, check.problems) == ("CLEVR", [])
    summary = check.summary
    assert (summary.images, summary.objects, summary.empty_images) == (310, 1997, 0)
    assert summary.classes == {"sphere": 692, "cylinder": 654, "cube": 651}
    assert summary.overlapping["0.5"] < 0.001
    assert check.detector is not None
    now, better = check.detector.current.together, check.detector.recommended.together
    assert now.share == pytest.approx(0.70, abs=0.01)
    assert better.share > now.share + 0.05


@needs_clevr_mini
def test_the_document_shows_what_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is of the machine that the page's screen is from."""
    stages = {"detector": StageTime(0.0, 276 / 39), "representation": StageTime(0.0, 432 / 26)}
    measured = TrainingTime("cpu", 1, 2.0, stages)
    monkeypatch.setattr("ssdir.data_check.recommendation.estimate_training", lambda *_: measured)
    text = (Path(__file__).parents[2] / "docs" / "check.md").read_text(encoding="utf-8")
    check = check_data(CLEVR_MINI)
    recommendation = recommend_within(check)
    assert "\n".join(screen_lines(check, recommendation)[1:]) in text
    assert recommendation.yaml in text
