"""Tests of the training of PooledFeatures, whose representation has no gradient steps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from ssdir.cli import app
from ssdir.data.dataset import ObjectDataset
from ssdir.data.scatter.glyphs import load_glyphs
from ssdir.device import seeded
from ssdir.errors import InputError
from ssdir.models.detector.ssd import SSD
from ssdir.models.io import load_model
from ssdir.models.pooled_features import PooledFeatures, PooledFeaturesConfig
from ssdir.store.objects_file import read_objects
from ssdir.training.fit import train
from ssdir.training.pooling import gather_features
from ssdir.training.recipe import Recipe

from .common import all_finite, summary, with_detector


@pytest.fixture(scope="session")
def pooled(recipe: Recipe) -> Recipe:
    model = PooledFeaturesConfig(ssd=recipe.model.ssd, latent_dim=8, fit_objects=100)
    return recipe.model_copy(update={"model": model})


@pytest.fixture(scope="session")
def run(pooled: Recipe, scattered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "pooled"
    train(pooled, scattered, out)
    return out


def model_of(pooled: Recipe, **changes: int) -> PooledFeatures:
    with seeded(0):
        return PooledFeatures(pooled.model.model_copy(update=changes), ["object"]).eval()


def test_a_run_is_a_detector_and_then_components(run: Path, pooled: Recipe) -> None:
    model = load_model(run)
    assert isinstance(model, PooledFeatures)
    detector = load_model(run / "detector" / "model")
    assert isinstance(detector, SSD)
    for name, tensor in detector.state_dict().items():
        assert torch.equal(tensor, model.detector.state_dict()[name]), name
    noted = summary(run, "representation")
    assert noted["ended"]
    assert noted["wall_seconds"] > 0
    assert int(model.num_fitted) == noted["objects"] <= pooled.model.fit_objects
    assert 0 < noted["explained_variance"] <= 1


def test_going_on_from_a_finished_detector_gives_the_same(
    run: Path, pooled: Recipe, scattered: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    train(pooled, scattered, out, stage="detector")
    train(pooled, scattered, out, resume=True)
    again, whole = load_model(out).state_dict(), load_model(run).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in whole.items())


def test_images_are_sampled_by_the_seed_until_there_are_enough_objects(pooled: Recipe, val: ObjectDataset) -> None:
    everything = model_of(with_detector(pooled, score_threshold=0.0), fit_objects=1000)
    progress: list[tuple[int, int]] = []
    all_rows = gather_features(everything, val, 0, 4, lambda *counts: progress.append(counts))
    assert len(all_rows) == 16 * 6  # max_objects of each image
    assert progress == [(24, 1000), (48, 1000), (72, 1000), (96, 1000)]
    few = model_of(with_detector(pooled, score_threshold=0.0), fit_objects=30)
    progress.clear()
    first = gather_features(few, val, 0, 4, lambda *counts: progress.append(counts))
    assert progress == [(24, 30), (30, 30)]  # no further image is read
    assert torch.equal(first, all_rows[:30])
    assert torch.equal(first, gather_features(few, val, 0, 4))
    other = gather_features(few, val, 1, 4)
    assert not torch.equal(first, other)
    assert torch.cdist(other, all_rows).amin(dim=1).max() < 1e-2


def test_a_detector_that_detects_nothing_is_refused_in_one_sentence(
    pooled: Recipe, scattered: Path, tmp_path: Path
) -> None:
    blind = with_detector(pooled, score_threshold=0.999)
    with pytest.raises(InputError, match="detects 0 objects in the training split"):
        train(blind, scattered, tmp_path / "run")


@pytest.fixture
def ssdir(scattered: Path, run: Path) -> Callable[..., Any]:
    def invoke(command: str, *args: object) -> Any:
        return CliRunner().invoke(app, [command, str(run), *map(str, args)])

    return invoke


def test_it_has_all_metrics_that_need_no_decoder(
    ssdir: Callable[..., Any], scattered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = load_glyphs("digits", "test").images[:20]
    monkeypatch.setattr("ssdir.evaluation.evaluate.load_glyphs", lambda *_: SimpleNamespace(images=images))
    path = tmp_path / "metrics.json"
    result = ssdir("evaluate", scattered, "--split", "val", "--score-threshold", "0.05", "--out", path)
    assert result.exit_code == 0, result.output
    metrics = json.loads(path.read_text())["metrics"]
    groups = {name.split("/")[0] for name in metrics}
    assert groups == {"detection", "probe", "scale", "clusters", "uncertainty"}
    assert {"scale/retrieval_at_1", "scale/drift", "probe/true_boxes/accuracy"} <= metrics.keys()
    # The floor is the same model, with components that are fitted on other objects.
    assert metrics["probe/accuracy"] == pytest.approx(metrics["probe/pooled_features/accuracy"], abs=0.15)
    assert "next: ssdir encode" in result.stdout


def test_it_encodes_to_files_and_reconstructs_nothing(
    ssdir: Callable[..., Any], scattered: Path, tmp_path: Path
) -> None:
    path = tmp_path / "objects.parquet"
    assert ssdir("encode", scattered / "val", "--out", path, "--score-threshold", "0.05").exit_code == 0
    objects, _ = read_objects(path)
    assert len(objects)
    assert objects.z_depth is None
    assert objects.z_what is not None
    assert all_finite([objects.z_what])
    result = ssdir("reconstruct", scattered / "val", "--out", tmp_path / "reconstructions.png")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: PooledFeatures has no decoder")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "reconstructions.png").exists()
