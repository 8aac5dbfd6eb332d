from __future__ import annotations

import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssdir.data.dataset import collate
from ssdir.data.images import Image8, read_channels
from ssdir.data.readers.registry import open_dataset
from ssdir.data.transforms import AugmentConfig
from ssdir.device import choose_device, device_name
from ssdir.errors import InputError, InputWarning
from ssdir.inference.domain import familiar_error
from ssdir.models.backbones.conv import ConvConfig
from ssdir.models.backbones.timm_net import TimmConfig
from ssdir.models.io import load_model
from ssdir.training.devices import fabric_precision
from ssdir.training.fit import Run, train
from ssdir.training.loading import Batch
from ssdir.training.loop import StageLoop
from ssdir.training.recipe import Recipe, read_recipe
from ssdir.training.run_folder import read_training
from ssdir.training.steps import Objective

from .common import SIZE, all_finite, changed, rows_of, summary, with_detector

STAGES = ("detector", "representation")


@pytest.fixture(scope="session")
def augmented(recipe: Recipe) -> Recipe:
    """Returns a recipe that draws random numbers wherever training can, with another optimiser for each stage."""
    muon = recipe.representation.model_copy(update={"optimizer": "muon"})
    augment = AugmentConfig(zoom_out=0.5, photometric=0.5, scale_jitter=0.5, representation=True)
    return recipe.model_copy(update={"augment": augment, "representation": muon})


@pytest.fixture(scope="session")
def run(augmented: Recipe, scattered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trains both stages without interruption."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs") / "whole"
    result = train(augmented, scattered, out)
    assert result.model_dir == out / "model"
    assert set(result.seconds) == {"detector", "representation"}
    assert all(seconds > 0 for seconds in result.seconds.values())
    return out


STAGES = ("detector", "representation")


def test_a_runs_record_has_recipe_and_times(run: Path, augmented: Recipe, tmp_path: Path) -> None:
    record = read_training(run / "model")
    assert record is not None
    assert record["recipe"] == augmented.model_dump(mode="json")
    assert {stage for stage, seconds in record["wall_seconds"].items() if seconds > 0} == set(STAGES)
    assert record["device"] == device_name(choose_device())
    assert record["precision"] == fabric_precision(augmented, choose_device())
    assert read_training(tmp_path) is None


def test_a_model_has_the_error_of_its_validation_images(run: Path, recipe: Recipe, scattered: Path) -> None:
    model = load_model(run / "model")
    assert model.familiar_error is not None
    assert model.familiar_error == pytest.approx(familiar_error(model, recipe.open_data(scattered, "val")))


def test_a_part_of_a_split_is_all_that_training_sees(
    recipe: Recipe, scattered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[str]] = {}

    def reported(run: Run, stages: list[str]) -> None:
        seen.update({name: split.table.image_names for name, split in run.splits.items()})
        raise KeyboardInterrupt

    monkeypatch.setattr("ssdir.training.fit._print_estimate", reported)
    parts = recipe.model_copy(update={"train_split": "train[:40]", "val_split": "train[40:56]"})
    with pytest.raises(KeyboardInterrupt):
        train(parts, scattered, tmp_path / "run")
    every = open_dataset(scattered, "train").table.image_names
    assert (seen["train"], seen["val"]) == (every[:40], every[40:56])
    for changed_part in ({"train_split": "train[:39]"}, {"val_split": "val"}):
        with pytest.raises(InputError, match=r"another recipe.*_split"):
            train(parts.model_copy(update=changed_part), scattered, tmp_path / "run", resume=True)
    shared = recipe.model_copy(update={"val_split": "train[:16]"})
    with (
        pytest.warns(InputWarning, match=r"train and train\[:16\] share images"),
        pytest.raises(KeyboardInterrupt),
    ):
        train(shared, scattered, tmp_path / "shared")


def test_augmentation_does_not_read_the_images_again(
    augmented: Recipe, scattered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []

    def counted(path: Path) -> Image8:
        reads.append(str(path))
        return read_channels(path)

    monkeypatch.setattr("ssdir.data.dataset.read_channels", counted)
    monkeypatch.setattr("ssdir.training.fit.fit_stage", lambda *args: None)
    train(augmented, scattered, tmp_path / "run", stage="detector")
    assert len(reads) == len(set(reads)) == 64 + 16


def test_only_training_flushes_denormal_numbers(
    augmented: Recipe, scattered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside: list[float] = []
    monkeypatch.setattr("ssdir.training.fit.fit_stage", lambda *args: inside.append(sys.float_info.min / 2))
    train(augmented, scattered, tmp_path / "run", stage="detector")
    assert inside == [0]
    assert sys.float_info.min / 2 > 0


def test_splits_with_other_classes_are_refused(recipe: Recipe, scattered: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(scattered, data)
    path = data / "annotations" / "instances_val.json"
    content = json.loads(path.read_text())
    content["categories"][0]["name"], content["categories"][1]["name"] = "1", "0"
    path.write_text(json.dumps(content))
    every = recipe.model_copy(update={"classes": "all"})
    with pytest.raises(InputError, match=r"train and val number their classes differently \(0, 1, .*; 1, 0, "):
        train(every, data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_run_folder_holds_what_is_documented(run: Path, augmented: Recipe) -> None:
    assert read_recipe(run / "recipe.yaml") == augmented
    for stage in ("detector", "representation"):
        assert (run / stage / "checkpoints" / "last.ckpt").is_file()
        assert any((run / stage).rglob("events.out.tfevents*"))
        assert summary(run, stage)["ended"]
        rows = rows_of(run / stage / "metrics.csv")
        assert {row["epoch"] for row in rows} == {"0", "1", "2"}
        for column in ("train/total", "val/total"):
            values = [float(row[column]) for row in rows if row[column]]
            assert len(values) == 3
            assert all(value > 0 for value in values)
    assert {file.name for file in (run / "model").iterdir()} == {"config.json", "model.safetensors"}
    pictures = sorted((run / "representation" / "samples").iterdir())
    assert [picture.name for picture in pictures] == [f"epoch-00{epoch}.png" for epoch in range(3)]
    assert not (run / "representation" / "cache").exists()


def test_training_lowers_both_losses(run: Path) -> None:
    for stage in ("detector", "representation"):
        totals = [float(row["val/total"]) for row in rows_of(run / stage / "metrics.csv") if row["val/total"]]
        assert totals[-1] < totals[0], stage


def test_trained_model_encodes_and_decodes(run: Path, scattered: Path) -> None:
    model = load_model(run)
    assert model.class_names == ["object"]
    images, _ = collate([open_dataset(scattered, "val", "object", SIZE)[0]])
    scene = model(images)
    assert scene.reconstructions.shape == images.shape
    detector = load_model(run / "detector" / "model").state_dict()
    trained = model.detector.state_dict()
    assert all(torch.equal(trained[name], tensor) for name, tensor in detector.items())


def interrupt_at(stage: str, epoch: int, batch: int) -> Callable[[StageLoop, Batch], dict[str, float]]:
    """Returns a step that is interrupted, as by Ctrl-C, at a batch of an epoch of a stage."""
    taken, take = Counter[int](), StageLoop.step

    def step(self: StageLoop, data: Batch) -> dict[str, float]:
        if self.stage.folder.name == stage:
            if (self.epoch, taken[self.epoch]) == (epoch, batch):
                raise KeyboardInterrupt
            taken[self.epoch] += 1
        return take(self, data)

    return step


def noting_epochs(stage: str, epochs: list[int]) -> Callable[[StageLoop, Batch], dict[str, float]]:
    take = StageLoop.step

    def step(self: StageLoop, data: Batch) -> dict[str, float]:
        if self.stage.folder.name == stage:
            epochs.append(self.epoch)
        return take(self, data)

    return step


@pytest.mark.parametrize("stage", STAGES)
def test_resumed_training_equals_uninterrupted(
    stage: str,
    run: Path,
    augmented: Recipe,
    scattered: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(StageLoop, "step", interrupt_at(stage, epoch=1, batch=2))
        with pytest.raises(KeyboardInterrupt):
            train(augmented, scattered, out)
    assert not (out / "model").exists()
    torch.rand(5)  # the state of the generator must not matter
    epochs: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(StageLoop, "step", noting_epochs(stage, epochs))
        train(augmented, scattered, out, resume=True)
    assert epochs == [1] * 4 + [2] * 4  # the finished one is not repeated
    whole, resumed = (load_model(folder).state_dict() for folder in (run, out))
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())
    for name in STAGES:
        logged, uninterrupted = (rows_of(folder / name / "metrics.csv") for folder in (out, run))
        assert logged == uninterrupted


@pytest.mark.slow
def test_resumed_training_with_workers_equals_uninterrupted(
    augmented: Recipe, scattered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = augmented.model_copy(update={"workers": 1})
    train(recipe, scattered, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(StageLoop, "step", interrupt_at("representation", epoch=1, batch=2))
        with pytest.raises(KeyboardInterrupt):
            train(recipe, scattered, tmp_path / "run")
    train(recipe, scattered, tmp_path / "run", resume=True)
    whole, resumed = (load_model(tmp_path / name / "model").state_dict() for name in ("whole", "run"))
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())


def test_progress_goes_to_stderr(
    recipe: Recipe,
    scattered: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(StageLoop, "step", interrupt_at("detector", epoch=1, batch=1))
        with pytest.raises(KeyboardInterrupt):
            train(recipe, scattered, tmp_path / "run", stage="detector")
    train(recipe, scattered, tmp_path / "run", resume=True)
    printed = capsys.readouterr()
    assert printed.out == ""
    number = r"[0-9.e+-]+"
    second, third = re.findall(r"^detector: epoch [23] of 3.*$", printed.err, re.M)
    assert re.fullmatch(rf"detector: epoch 2 of 3, about 5 s left: loss {number}, on validation {number}", second)
    assert re.fullmatch(rf"detector: epoch 3 of 3: loss {number}, on validation {number}", third)
    assert [str(warning.message) for warning in recwarn if "lightning" in str(warning.filename)] == []


def test_ended_stages_are_not_repeated(run: Path, augmented: Recipe, scattered: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*") if file.is_file()}
    result = train(augmented, scattered, run, resume=True)
    assert set(result.seconds) == {"detector", "representation"}
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*") if file.is_file()} == before


def test_stages_can_be_run_one_by_one(run: Path, augmented: Recipe, scattered: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(InputError, match="has no trained detector"):
        train(augmented, scattered, out, stage="representation")
    assert not out.exists()
    assert set(train(augmented, scattered, out, stage="detector").seconds) == {"detector"}
    with pytest.raises(InputError, match=r"--force would delete the detector of .* then this with --resume"):
        train(augmented, scattered, out, stage="representation", force=True)
    train(augmented, scattered, out, stage="representation", resume=True)
    whole, staged = (load_model(folder).state_dict() for folder in (run, out))
    assert all(torch.equal(staged[name], tensor) for name, tensor in whole.items())


def test_existing_folders_are_safe(run: Path, augmented: Recipe, scattered: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exists: pass --resume to go on with it, or --force"):
        train(augmented, scattered, run)
    with pytest.raises(InputError, match=r"was started from another recipe .*'seed'"):
        train(augmented.model_copy(update={"seed": 1}), scattered, run, resume=True)
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="is not a training run"):
        train(augmented, scattered, tmp_path, force=True)
    (tmp_path / "recipe.yaml").write_text("base: tiny")  # anyone's
    with pytest.raises(InputError, match="is not a training run: use a new --out"):
        train(augmented, scattered, tmp_path, force=True)
    assert (tmp_path / "thesis.txt").exists()
    assert (tmp_path / "recipe.yaml").read_text() == "base: tiny"
    assert load_model(run).class_names == ["object"]


def test_bad_data_leaves_no_folder(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        train(recipe, tmp_path / "nowhere", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_weights_out_of_reach_leave_no_folder(
    recipe: Recipe, scattered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*args: Any, **kwargs: Any) -> Any:
        raise OSError("no route")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", unreachable)
    wanting = with_detector(recipe, backbone=TimmConfig(name="test_resnet", weights="hub"))
    with pytest.raises(InputError, match=r"as model\.ssd\.backbone\.weights, or null to train from scratch"):
        train(wanting, scattered, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    # Nor do they take one away.
    (tmp_path / "run" / "detector" / "model").mkdir(parents=True)
    (tmp_path / "run" / "detector" / "model" / "config.json").touch()
    (tmp_path / "run" / "detector" / "summary.json").write_text(json.dumps({"ended": True}))
    (tmp_path / "run" / "data.json").write_text(json.dumps({"fingerprint": "that"}))
    (tmp_path / "run" / "recipe.yaml").touch()
    with pytest.raises(InputError, match="could not be fetched"):
        train(wanting, scattered, tmp_path / "run", force=True)
    assert (tmp_path / "run" / "detector" / "summary.json").exists()


def test_force_replaces_a_run(recipe: Recipe, scattered: Path, tmp_path: Path) -> None:
    out, short = tmp_path / "run", changed(recipe, "detector", epochs=1)
    train(short, scattered, out, stage="detector")
    (out / "notes.txt").touch()
    (out / "detector" / "leftover").touch()
    train(changed(short, "detector", lr=1e-3), scattered, out, stage="detector", force=True)
    assert not (out / "detector" / "leftover").exists()
    assert (out / "notes.txt").exists()
    assert read_recipe(out / "recipe.yaml").detector.lr == 1e-3


def vanishing_gradient(module: nn.Module) -> Tensor:
    """Returns zero, with a gradient that is not a number."""
    return sum(p.sum() for p in module.parameters() if p.requires_grad).mul(0).sqrt()  # type: ignore[union-attr]


@pytest.mark.parametrize("what", ["loss", "gradient", "images"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_step_gone_wrong_is_skipped_and_counted(
    what: str, stage: str, recipe: Recipe, scattered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute, weights = Objective.forward, []

    def broken(self: Objective, batch: Batch) -> dict[str, Tensor]:
        if what == "images" and len(weights) == 1:  # Batch norm's statistics become NaN.
            batch = replace(batch, images=batch.images * torch.inf)
        losses = compute(self, batch)
        if torch.is_grad_enabled():
            weights.append([p.detach().clone() for p in self.parameters()])
            if len(weights) == 2 and what != "images":
                extra = torch.tensor(torch.nan) if what == "loss" else vanishing_gradient(self)
                return {**losses, "total": losses["total"] + extra}
        return losses

    one = changed(changed(recipe, "detector", epochs=1), "representation", epochs=1)
    if stage == "representation":
        train(one, scattered, tmp_path / "run", stage="detector")
    monkeypatch.setattr(Objective, "forward", broken)
    train(one, scattered, tmp_path / "run", stage=stage, resume=True)
    assert summary(tmp_path / "run", stage)["skipped_steps"] == 1
    assert rows_of(tmp_path / "run" / stage / "metrics.csv")[0]["train/skipped_steps"] == "1.0"
    assert len(weights) == 4
    for step, moved in ((0, True), (1, False), (2, True)):
        same = all(torch.equal(a, b) for a, b in zip(weights[step], weights[step + 1], strict=True))
        assert same != moved, step
    assert all_finite(weights[-1])
    model = tmp_path / "run" / (stage if stage == "detector" else "") / "model"
    assert all_finite(load_model(model).state_dict().values())


def test_a_last_batch_too_small_for_batch_norm_is_one_sentence(
    recipe: Recipe, scattered: Path, tmp_path: Path
) -> None:
    coarse = ConvConfig(channels=(8, 8, 8, 8, 8, 8), num_levels=2, top_down=16)  # the last map is 1×1
    uneven = changed(with_detector(recipe, backbone=coarse), "detector", batch_size=21)
    with pytest.raises(
        InputError, match=r"batch of 1 whose .*: choose a detector\.batch_size that leaves no single"
    ):
        train(uneven, scattered, tmp_path / "run")


def test_batches_without_objects_train_on_and_are_counted(
    recipe: Recipe, deserted: Path, scattered: Path, tmp_path: Path
) -> None:
    one = changed(changed(recipe, "detector", epochs=1), "representation", epochs=2)
    blind = with_detector(one, score_threshold=0.999)
    train(blind, deserted, tmp_path / "run")
    assert summary(tmp_path / "run", "detector")["empty_batches"] == 3
    assert summary(tmp_path / "run", "representation")["empty_batches"] == 8
    assert summary(tmp_path / "run", "representation")["skipped_steps"] == 0
    assert all_finite(load_model(tmp_path / "run").state_dict().values())
    train(changed(one, "representation", epochs=1), scattered, tmp_path / "full")
    assert summary(tmp_path / "full", "detector")["empty_batches"] == 0


def test_cloned_backbone_trains_whole(recipe: Recipe, scattered: Path, tmp_path: Path) -> None:
    one = changed(changed(recipe, "detector", epochs=1), "representation", epochs=1)
    one = with_detector(one, score_threshold=0.0)  # so that there are objects to learn from
    cloned = one.model_copy(update={"model": one.model.model_copy(update={"clone_backbone": True})})
    train(cloned, scattered, tmp_path / "run")
    model = load_model(tmp_path / "run")
    assert model.backbone is not None
    frozen, copied = model.detector.backbone.state_dict(), model.backbone.state_dict()
    changed_names = {name for name, tensor in copied.items() if not torch.equal(tensor, frozen[name])}
    assert any(name.endswith("0.weight") for name in changed_names)
    assert any(name.endswith("running_mean") for name in changed_names)
    detector = load_model(tmp_path / "run" / "detector" / "model").state_dict()
    assert all(torch.equal(tensor, detector[name]) for name, tensor in model.detector.state_dict().items())
