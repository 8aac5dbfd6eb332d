"""`ssdir.evaluate` measures as the command does, with the same precautions."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

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


def test_the_provenance_has_every_option_that_changes_the_numbers(agnostic_model_dir: Path, digits: Path) -> None:
    changes = {"sizes_in_px": 640, "floors": False, "num_glyphs": 2, "random_seed": 7, "batch_size": 3}
    plain, changed = (
        ssdir.evaluate(agnostic_model_dir, digits, options=replace(OPTIONS, **options), device="cpu")
        for options in ({}, changes)
    )
    assert {name: changed.provenance["config"][name] for name in changes} == changes
    assert plain.provenance["config"]["sizes_in_px"] is None
    # The folder of glyphs is no setting, and frames of clips alone have tracks.
    apart = {"seed", "glyph_root", "read_options", "track", "true_boxes"}
    names = {each.name for each in fields(ssdir.EvaluationOptions)}
    assert names - apart <= plain.provenance["config"].keys()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_images": -1}, "max_images must be at least 1, got -1"),
        ({"max_images": 0}, "max_images must be at least 1, got 0"),
        ({"max_train_images": 0}, "max_train_images must be at least 1, got 0"),
        ({"sizes_in_px": 0}, "sizes_in_px must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"random_seed": -1}, "random_seed must be at least 0, got -1"),
        ({"score_threshold": 1.5}, r"score threshold must be within 0 \.\.\. 1, got 1\.5"),
        ({"min_side": float("nan")}, r"min_side must be in \[0, 1\], got nan"),
        ({"num_glyphs": 1}, "num_glyphs must be 0, or at least 2 to compare, got 1"),
        ({"num_glyphs": -5}, "num_glyphs must be 0, or at least 2 to compare, got -5"),
    ],
)
def test_options_out_of_range_are_refused_when_they_are_made(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        ssdir.EvaluationOptions(**options)
