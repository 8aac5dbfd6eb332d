"""`ssdir.evaluate` measures as the command does, with the same precautions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import ssdir
from ssdir.cli import app
from ssdir.data.scatter.generator import ScatterConfig
from ssdir.data.scatter.writer import write_scatter
from ssdir.errors import InputError, InputWarning

OPTIONS = ssdir.EvaluationOptions(max_images=4, max_train_images=8, num_glyphs=0)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "digits"
    write_scatter(folder, "digits", ScatterConfig(canvas=64, grids=(2, 4), train=8, val=1, test=4))
    return folder


def test_python_and_the_command_report_the_same(agnostic_model_dir: Path, digits: Path) -> None:
    options = ssdir.EvaluationOptions(max_images=4, train_split=None)
    report = ssdir.evaluate(agnostic_model_dir, digits, options=options, device="cpu")
    command = ["evaluate", str(agnostic_model_dir), str(digits), "--max-images", "4", "--train-split", "none"]
    printed = CliRunner().invoke(app, [*command, "--json", "--device", "cpu"])
    ours, theirs = json.loads(report.to_json()), json.loads(printed.stdout)
    for each in (ours, theirs):
        each["provenance"].pop("wall_seconds")
    assert ours == theirs


def test_a_loaded_model_measures_as_its_folder(agnostic_model_dir: Path, digits: Path) -> None:
    loaded, named = (
        ssdir.evaluate(model, digits, options=OPTIONS, device="cpu")
        for model in (ssdir.load(agnostic_model_dir, "cpu"), agnostic_model_dir)
    )
    assert loaded.metrics == named.metrics
    assert named.train is not None
    assert loaded.provenance["config"]["model"] is None
    assert "scale/drift" not in named.metrics, "no glyphs were asked for"


def test_probes_never_learn_from_what_is_measured(agnostic_model_dir: Path, digits: Path) -> None:
    with pytest.warns(InputWarning, match="no probes: they would learn from images of 'train'"):
        report = ssdir.evaluate(agnostic_model_dir, digits, "train", OPTIONS)
    assert report.train is None
    assert report.provenance["config"]["train_split"] == "none"


def test_splits_that_are_missing_are_named(agnostic_model_dir: Path, digits: Path) -> None:
    with pytest.raises(InputError, match=r"tset.*choose another split to measure"):
        ssdir.evaluate(agnostic_model_dir, digits, "tset", OPTIONS)
