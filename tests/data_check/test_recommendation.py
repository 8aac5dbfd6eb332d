"""Tests of the recommended preset, and of the recommended epochs, which let a training end in time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from data.cells import write_cells
from data.defects import write_folder
from data.real import real_data
from data.test_clevr import CLEVR_MINI, needs_clevr_mini
from ssdir.data.scatter.generator import ScatterConfig
from ssdir.data.scatter.writer import write_scatter
from ssdir.data_check.check import DataCheck, check_data, suitable_preset
from ssdir.data_check.recommendation import (
    FEWEST_EPOCHS,
    FEWEST_SEEN,
    MOST_TIMED,
    recommend,
    recommend_within,
)
from ssdir.models.detected.model import DetectedConfig
from ssdir.training.estimate import StageTime, TrainingTime
from ssdir.training.recipe import read_recipe

COCO128, needs_coco128 = real_data("coco128")
VOC, needs_voc = real_data("voc")


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cells(tmp_path_factory.mktemp("data") / "cells", train=20)


@pytest.fixture(scope="module")
def check(cells: Path) -> DataCheck:
    return check_data(cells)


def test_photographs_get_a_pretrained_backbone(check: DataCheck) -> None:
    assert check.photographs
    assert check.preset == suitable_preset(True, False, "cpu") == "photos"
    assert suitable_preset(True, False, "cuda") == suitable_preset(True, False, "mps") == "default"
    recommended = yaml.safe_load(recommend(check).yaml)
    assert recommended["base"] == "photos"
    assert check.detector is not None
    anchors = check.detector.recommended.anchors.model_dump(mode="json")
    assert recommended["model"]["ssd"]["anchors"] == anchors


def test_drawings_get_a_small_model_whatever_the_device(tmp_path: Path) -> None:
    write_scatter(tmp_path / "digits", "digits", ScatterConfig(canvas=64, train=8, val=2, test=0))
    assert check_data(tmp_path / "digits").preset == "tiny"
    assert suitable_preset(False, True, "cuda") == "tiny"


def test_coloured_drawings_get_a_model_of_their_background(tmp_path: Path) -> None:
    images = [(f"{i}.png", np.full((80, 96, 3), (30 * i, 120, 90), np.uint8)) for i in range(5)]
    data = write_folder(tmp_path / "data", images, [(i, "cat", (20, 20, 40, 30)) for i in range(5)], ("cat",))
    check = check_data(data)
    assert (check.photographs, check.on_black, check.preset) == (False, False, "clevr-128")
    assert read_recipe(check.preset).model.background == "learned"


@pytest.mark.slow
@needs_coco128
@needs_voc
@needs_clevr_mini
def test_real_photographs_and_renderings_are_distinguished() -> None:
    assert [check_data(folder).photographs for folder in (COCO128, VOC / "VOCdevkit" / "VOC2012", CLEVR_MINI)] == [
        True,
        True,
        False,
    ]


def measured(monkeypatch: pytest.MonkeyPatch, epoch: float, once: float = 0.0) -> None:
    time = TrainingTime(
        "cpu", 2, 10.0, {"detector": StageTime(0.0, epoch), "representation": StageTime(once, epoch)}
    )
    monkeypatch.setattr("ssdir.data_check.recommendation.estimate_training", lambda *_: time)


def test_epochs_end_in_time(check: DataCheck, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = recommend(check).recipe
    measured(monkeypatch, epoch=2.0, once=30.0)
    fitted = recommend_within(check, minutes=12)
    assert fitted.time is not None
    assert 12 * 60 - 4 < fitted.time.seconds(fitted.recipe) <= 12 * 60
    epochs = (12 * 60 - 40) // 4
    assert fitted.recipe.detector.epochs == fitted.recipe.representation.epochs == epochs < whole.detector.epochs
    assert fitted.recipe.detector.patience == round(epochs / 4)
    assert fitted.recipe.model == whole.model
    assert "more are better" in fitted.yaml


def test_epochs_are_never_fewer_than_the_minimum(check: DataCheck, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, epoch=1000.0)
    fitted = recommend_within(check, minutes=12)
    assert fitted.recipe.detector.epochs == max(FEWEST_EPOCHS, FEWEST_SEEN // 20)
    many = replace(check, summaries={check.split: replace(check.summary, images=300)})
    stage = recommend_within(many, minutes=12).recipe.detector
    assert (stage.epochs, stage.patience) == (FEWEST_EPOCHS, None), "patience would be longer than training"


def test_epochs_that_end_in_time_stay(check: DataCheck, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, epoch=0.01)
    assert recommend_within(check, minutes=12).recipe == recommend(check).recipe


def test_images_of_thousands_of_objects_are_not_timed(check: DataCheck, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, epoch=1000.0)
    summary = replace(check.summary, per_image={**check.summary.per_image, "max": MOST_TIMED})
    assert recommend_within(replace(check, summaries={check.split: summary})).time is not None
    summary = replace(summary, per_image={**summary.per_image, "max": MOST_TIMED + 1})
    untimed = recommend_within(replace(check, summaries={check.split: summary}))
    assert untimed.time is None
    assert untimed.recipe == recommend(check).recipe
    assert "not timed" in untimed.yaml


def test_anchors_are_fitted_to_boxes_as_the_model_sees_them(cells: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A letterboxed circle of a photograph of 640 x 480 stays a circle; a stretched one is 4/3 as high as wide."""
    seen: list[Tensor] = []
    monkeypatch.setattr("ssdir.data_check.check.fit_detector", lambda boxes, *_: seen.append(boxes))
    for resize in ("stretch", "letterbox"):
        monkeypatch.setattr(DetectedConfig, "resize", property(lambda self, how=resize: how))
        check_data(cells)
    stretched, letterboxed = seen
    proportions = letterboxed[:, 2] / letterboxed[:, 3]
    assert torch.allclose(letterboxed[:, 0], stretched[:, 0])
    assert torch.allclose(stretched[:, 2] / stretched[:, 3], proportions * 3 / 4)
