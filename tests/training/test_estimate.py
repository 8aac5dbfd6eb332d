"""The estimated time of a training agrees with real trainings and with counted steps."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from ssdir.data.transforms import AugmentConfig
from ssdir.models.backbones.conv import ConvConfig
from ssdir.models.pooled_features import PooledFeaturesConfig
from ssdir.models.ssdir import SSDIRConfig
from ssdir.training import estimate
from ssdir.training.estimate import StageTime, TrainingTime, estimate_training
from ssdir.training.fit import train
from ssdir.training.loop import StageLoop
from ssdir.training.recipe import Recipe

from .common import changed, with_detector


def test_seconds_follow_from_epochs(recipe: Recipe) -> None:
    measured = TrainingTime("cpu", 2, 1.0, {"detector": StageTime(0, 2.0), "representation": StageTime(5, 3.0)})
    recipe = changed(changed(recipe, "detector", epochs=10), "representation", epochs=4)
    assert measured.of_stage("representation", recipe) == 5 + 4 * 3
    assert measured.seconds(recipe) == 1 + 10 * 2 + 5 + 4 * 3


def test_the_time_is_one_sentence(recipe: Recipe) -> None:
    stages = {"detector": StageTime(0, 80.0), "representation": StageTime(60, 80.0)}
    both = TrainingTime("cpu", 1, 9.0, stages).sentence(recipe)
    assert both.startswith("training takes about 9 min for both stages (detector 4 min, representation 5 min) on ")
    assert "(cpu with 1 thread)" in both
    one = TrainingTime("NVIDIA H200", 8, 9.0, {"representation": StageTime(0, 8.0)}).sentence(recipe)
    assert one.startswith("training takes about 25 s (representation) on this machine (NVIDIA H200)")


def test_only_what_takes_long_on_one_device_is_worth_an_estimate(
    recipe: Recipe, scattered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = recipe.open_data(scattered, "train")
    long = changed(recipe, "detector", epochs=25)  # Of four steps each.
    assert estimate.is_worth_estimating(long, split, ["detector"])
    assert not estimate.is_worth_estimating(long, split, ["representation"])
    two = long.model_copy(update={"devices": 2})
    assert not estimate.is_worth_estimating(two, split, ["detector"])
    monkeypatch.setattr(estimate, "MOST_TIMED", 3)  # Grids of 2x2 and 3x3 have images with more objects.
    assert not estimate.is_worth_estimating(long, split, ["detector"])


def test_every_step_of_an_epoch_is_counted(
    recipe: Recipe, scattered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps, validation and saving take given times, and everything else takes almost none."""
    step = StageLoop.step

    def slow_step(self: StageLoop, batch: Any) -> dict[str, float]:
        losses = step(self, batch)
        time.sleep(0.3)
        return losses

    def slow(seconds: float) -> Any:
        return lambda *_: time.sleep(seconds)

    monkeypatch.setattr(StageLoop, "step", slow_step)
    monkeypatch.setattr(StageLoop, "validate", slow(0.5))
    monkeypatch.setattr(StageLoop, "save", slow(0.7))
    recipe = changed(recipe, "detector", batch_size=8)
    epoch = estimate_training(recipe, scattered).stages["detector"].epoch
    expected = 8 * 0.3 + 0.5 + 0.7  # Steps of 8 of the 64 images; the 16 to validate on are all measured.
    assert expected < epoch < 1.5 * expected


@pytest.mark.slow
@pytest.mark.parametrize("augment", [AugmentConfig(), AugmentConfig(photometric=1, representation=True)])
def test_a_real_training_takes_as_long(
    augment: AugmentConfig, recipe: Recipe, scattered: Path, tmp_path: Path
) -> None:
    recipe = recipe.model_copy(update={"augment": augment})
    for stage in ("detector", "representation"):
        recipe = changed(recipe, stage, epochs=12)
    before = estimate_training(recipe, scattered).seconds(recipe)
    began = time.perf_counter()
    train(recipe, scattered, tmp_path / "run")
    real = time.perf_counter() - began
    after = estimate_training(recipe, scattered).seconds(recipe)
    assert min(before, after) / 2.5 < real < 2.5 * max(before, after)


def test_batches_that_suit_the_whole_data_suit_the_part_that_is_measured(recipe: Recipe, scattered: Path) -> None:
    """Of 64 images, 57 are measured, in batches of 19 and of 8: the last one of 8 would have a single image."""
    coarse = ConvConfig(channels=(8, 8, 8, 8, 8, 8), num_levels=2, top_down=16)  # The last map is 1×1.
    uneven = changed(with_detector(recipe, backbone=coarse), "representation", batch_size=19)
    uneven = changed(uneven, "detector", batch_size=8)
    assert estimate_training(uneven, scattered).stages["detector"].epoch > 0


def test_an_estimate_that_fails_ends_no_training(
    recipe: Recipe,
    scattered: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def full(*args: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(estimate, "_FEWEST_STEPS", 1)
    monkeypatch.setattr(estimate, "_read_parts", full)
    train(changed(recipe, "detector", epochs=1), scattered, tmp_path / "run", stage="detector")
    assert "the time of the training could not be estimated: no space left" in capfd.readouterr().err


def test_models_without_epochs_or_detector_are_estimated(recipe: Recipe, scattered: Path) -> None:
    assert isinstance(recipe.model, SSDIRConfig)
    pooled = recipe.model_copy(update={"model": PooledFeaturesConfig(ssd=recipe.model.ssd)})
    measured = estimate_training(pooled, scattered).stages["representation"]
    assert measured.epoch == 0 < measured.once
