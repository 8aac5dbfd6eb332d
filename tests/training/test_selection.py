"""Tests of which epoch of the detector is kept: on data that it overfits, not the last one."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from ssdir.cli import app
from ssdir.data.dataset import collate
from ssdir.data.readers.registry import open_dataset
from ssdir.data.scatter.generator import ScatterConfig
from ssdir.data.scatter.writer import write_scatter
from ssdir.errors import InputError
from ssdir.evaluation.detection import RANKING_THRESHOLD, detection_metrics
from ssdir.models.io import load_model
from ssdir.training.fit import train
from ssdir.training.loading import Batch
from ssdir.training.loop import CHECKPOINT, StageLoop
from ssdir.training.recipe import Recipe, read_recipe
from ssdir.training.run_folder import read_summary
from ssdir.training.selection import (
    LARGEST_SHARE,
    MEASURED_COST,
    BestEpoch,
    measuring_interval,
)

from .common import SIZE, changed

pytestmark = pytest.mark.slow

EPOCHS, PATIENCE = 20, 5


@pytest.fixture(scope="session")
def misplaced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes eight training images with boxes displaced by up to half their size, so that overfitting hurts."""
    folder = tmp_path_factory.mktemp("data") / "misplaced"
    write_scatter(folder, "digits", ScatterConfig(canvas=SIZE, grids=(2,), train=8, val=24, test=0))
    file = folder / "annotations" / "instances_train.json"
    content, rng = json.loads(file.read_text()), np.random.default_rng(0)
    for entry in content["annotations"]:
        x, y, width, height = entry["bbox"]
        across, down = rng.uniform(-0.5, 0.5, 2).tolist()
        entry["bbox"] = [x + across * width, y + down * height, width, height]
    file.write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="session")
def overfitting(recipe: Recipe) -> Recipe:
    stage = {"epochs": EPOCHS, "batch_size": 4, "lr": 5e-3, "schedule": "constant", "grad_clip": None}
    return changed(recipe, "detector", **stage, keep="best", patience=PATIENCE)


@pytest.fixture(scope="module", autouse=True)
def _every_epoch_is_measured() -> Iterator[None]:
    """Measures every epoch, as on data with fewer images to validate on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ssdir.training.fit.measuring_interval", lambda *_: 1)
        yield


@pytest.fixture(scope="module")
def chosen(overfitting: Recipe, misplaced: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trains the detector alone."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs") / "chosen"
    train(overfitting, misplaced, out, stage="detector")
    return out


def column(run: Path, name: str) -> list[float]:
    with (run / "detector" / "metrics.csv").open() as stream:
        return [float(row[name]) for row in csv.DictReader(stream) if row[name]]


def weights(run: Path) -> dict[str, Tensor]:
    """Returns the trained detector's weights."""
    return load_model(run / "detector" / "model").state_dict()


def test_the_best_epoch_is_kept_and_training_stops_after_it(chosen: Path, misplaced: Path) -> None:
    measured = column(chosen, "val/ap50")
    best = int(np.argmax(measured))
    assert 0 < best < len(measured) - 1
    assert len(measured) == best + 1 + PATIENCE < EPOCHS, "it stops once AP50 no longer rises"
    learned = column(chosen, "train/total")
    assert learned[-1] < learned[best], "the training loss still fell"
    summary = read_summary(chosen, "detector")
    assert (summary.ended, summary.kept_epoch) == (True, best)
    assert summary.kept_ap50 == pytest.approx(measured[best])
    split = open_dataset(misplaced, "val", "object", SIZE)
    images, targets = collate([split[index] for index in range(len(split))])
    with torch.no_grad():
        detections = load_model(chosen / "detector" / "model").encode(images, RANKING_THRESHOLD)
    metrics = detection_metrics(detections, targets, (SIZE, SIZE))
    assert metrics["detection/ap50"] == pytest.approx(measured[best], abs=1e-6), (
        "the saved weights are that epoch's"
    )


def test_the_kept_epoch_is_printed(chosen: Path, misplaced: Path) -> None:
    kept = read_summary(chosen, "detector")
    assert kept.kept_ap50 is not None
    command = ["train", chosen / "recipe.yaml", "stage=detector", "--data", misplaced, "--out", chosen, "--resume"]
    result = CliRunner().invoke(app, [str(part) for part in command])
    assert result.exit_code == 0, result.output
    assert kept.kept_epoch is not None
    expected = f"the weights kept are those after epoch {kept.kept_epoch + 1}, with AP50 {kept.kept_ap50:.3f} on"
    assert expected in " ".join(result.stdout.split())


def test_the_kept_weights_are_those_that_so_many_epochs_give(
    chosen: Path, overfitting: Recipe, misplaced: Path, tmp_path: Path
) -> None:
    best = read_summary(chosen, "detector").kept_epoch
    assert best is not None
    short = changed(overfitting, "detector", epochs=best + 1, keep="last", patience=None)
    train(short, misplaced, tmp_path / "run", stage="detector")
    assert read_summary(tmp_path / "run", "detector").kept_ap50 is None, "nothing is measured unless asked for"
    expected = weights(tmp_path / "run")
    assert all(torch.equal(expected[name], tensor) for name, tensor in weights(chosen).items())


@pytest.mark.parametrize("epoch", ["before the best", "after it"])
def test_a_resumed_run_chooses_the_same_epoch(
    epoch: str, chosen: Path, overfitting: Recipe, misplaced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = read_summary(chosen, "detector").kept_epoch
    assert best is not None
    stop_in = best - 1 if epoch == "before the best" else best + 3
    step = StageLoop.step

    def interrupted(self: StageLoop, batch: Batch) -> dict[str, float]:
        if self.epoch == stop_in:
            raise KeyboardInterrupt
        return step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(StageLoop, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(overfitting, misplaced, tmp_path / "run", stage="detector")
    train(overfitting, misplaced, tmp_path / "run", stage="detector", resume=True)
    expected, resumed = read_summary(chosen, "detector"), read_summary(tmp_path / "run", "detector")
    assert (resumed.kept_epoch, resumed.kept_ap50) == (expected.kept_epoch, expected.kept_ap50)
    whole = weights(chosen)
    assert all(torch.equal(whole[name], tensor) for name, tensor in weights(tmp_path / "run").items())


def test_a_run_that_had_stopped_trains_no_further(
    chosen: Path, overfitting: Recipe, misplaced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run looks as if the process had been killed after the last checkpoint, before the summary."""
    out, epochs = tmp_path / "run", list[int]()
    (out / "detector" / "checkpoints").mkdir(parents=True)
    for name in ("recipe.yaml", "data.json", Path("detector") / CHECKPOINT):
        (out / name).write_bytes((chosen / name).read_bytes())
    monkeypatch.setattr(StageLoop, "run_epoch", lambda self, advance: epochs.append(self.epoch))
    train(overfitting, misplaced, out, stage="detector", resume=True)
    assert epochs == []
    whole = weights(chosen)
    assert all(torch.equal(whole[name], tensor) for name, tensor in weights(out).items())


def test_patience_alone_keeps_the_last_epoch(
    overfitting: Recipe, misplaced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = iter([0.2, 0.5, 0.4, 0.5, 0.9])
    monkeypatch.setattr(BestEpoch, "measure", lambda self, *args: next(measured))
    patient = changed(overfitting, "detector", keep="last", patience=2)
    train(patient, misplaced, tmp_path / "run", stage="detector")
    summary = read_summary(tmp_path / "run", "detector")
    assert (summary.kept_epoch, summary.kept_ap50) == (3, 0.5), "an equal AP50 is no better one"


def test_epochs_can_be_compared_only_on_objects(recipe: Recipe, scattered: Path, tmp_path: Path) -> None:
    """The run that was there before is still there."""
    data = tmp_path / "data"
    data.symlink_to(scattered, target_is_directory=True)
    short = changed(recipe, "detector", epochs=1)
    train(short, data, tmp_path / "run", stage="detector")
    data.unlink()
    shutil.copytree(scattered, data)
    file = data / "annotations" / "instances_val.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "annotations": []}))
    measuring = changed(recipe, "detector", epochs=1, keep="best")
    with pytest.raises(InputError, match=r"the split to validate on has no object, .* detector\.keep=last"):
        train(measuring, data, tmp_path / "run", stage="detector", force=True)
    assert read_summary(tmp_path / "run", "detector").ended
    train(short, data, tmp_path / "other", stage="detector")  # As before, where nothing is compared.


def test_epochs_measured_on_other_data_are_not_compared(
    recipe: Recipe, scattered: Path, deserted: Path, tmp_path: Path
) -> None:
    """Only the split to validate on has changed; it counts for a run, and for a detector whose epoch it chose."""
    data = tmp_path / "data"
    shutil.copytree(scattered, data)
    measuring, last = (changed(recipe, "detector", epochs=1, keep=keep) for keep in ("best", "last"))
    for name, each in (("best", measuring), ("last", last)):
        train(each, data, tmp_path / name, stage="detector")
    annotations = Path("annotations") / "instances_val.json"
    shutil.copyfile(deserted / annotations, data / annotations)
    with pytest.raises(InputError, match="was started on other data"):
        train(measuring, data, tmp_path / "best", stage="detector", resume=True)
    with pytest.raises(InputError, match="has a detector of other data"):
        train(measuring, data, tmp_path / "other", stage="detector", start=tmp_path / "best")
    train(last, data, tmp_path / "other", stage="detector", start=tmp_path / "last")
    content = json.loads((tmp_path / "best" / "data.json").read_text())
    (tmp_path / "best" / "data.json").write_text(json.dumps({"fingerprint": content["fingerprint"]}))
    train(measuring, data, tmp_path / "best", stage="detector", resume=True)  # As far as it is recorded.


def test_recipes_configure_which_epoch_is_kept() -> None:
    assert read_recipe("tiny", ["detector.keep=best", "detector.patience=3"]).detector.measures_epochs
    assert not read_recipe("tiny").detector.measures_epochs
    for key, value in (("representation.keep", "best"), ("representation.patience", "3")):
        with pytest.raises(InputError, match=f"unknown key '{key}'"):
            read_recipe("tiny", [f"{key}={value}"])
    with pytest.raises(InputError, match=r"'detector\.keep'"):
        read_recipe("tiny", ["detector.keep=first"])
    with pytest.raises(InputError, match=r"'detector\.patience'"):
        read_recipe("tiny", ["detector.patience=0"])


@pytest.mark.parametrize(("val", "train"), [(20, 180), (100, 180), (1000, 1000), (24, 8), (1, 10**6)])
def test_measuring_takes_a_small_share_and_no_epoch_is_left_out_for_nothing(val: int, train: int) -> None:
    every = measuring_interval(val, train)
    cost = MEASURED_COST * val / train
    assert cost / every <= LARGEST_SHARE
    assert every == 1 or cost / (every - 1) > LARGEST_SHARE


def test_epochs_in_between_are_not_measured(
    overfitting: Recipe, misplaced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssdir.training.fit.measuring_interval", measuring_interval)
    assert measuring_interval(24, 8) == 10
    train(changed(overfitting, "detector", epochs=12, patience=None), misplaced, tmp_path, stage="detector")
    with (tmp_path / "detector" / "metrics.csv").open() as stream:
        rows = {int(row["epoch"]): row["val/ap50"] for row in csv.DictReader(stream)}
    assert [epoch for epoch, ap50 in rows.items() if ap50] == [9, 11]
    summary = read_summary(tmp_path, "detector")
    assert max(float(rows[epoch]) for epoch in (9, 11)) == pytest.approx(summary.kept_ap50)
