"""Engines give the same objects for the same images, and half precision nearly the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.ops import box_iou
from typer.testing import CliRunner

import ssdir
from ssdir.benchmark import engines as module
from ssdir.benchmark.costs import untrained
from ssdir.benchmark.engines import ENGINES, PLAIN, detect_about, measure_engines, scattered_pictures
from ssdir.cli import app
from ssdir.errors import InputError
from ssdir.inference.predictor import Predictor
from ssdir.models.detected.model import DetectedModel
from ssdir.training.recipe import read_recipe


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces compiling, which takes a minute on two cores and is torch's to test."""
    monkeypatch.setattr(module, "_compiled", lambda predictor: predictor)


@pytest.mark.slow
def test_engines_detect_the_same_objects(uncompiled: None) -> None:
    model = ssdir.load("tiny-digits", "cpu").model
    costs = {cost.engine: cost for cost in measure_engines(model, scattered_pictures(128, 4), repeats=1)}
    assert list(costs) == list(ENGINES)
    assert costs[PLAIN].objects > 3
    assert costs[PLAIN].speedup.median == 1
    for name, cost in costs.items():
        exact = name in (PLAIN, "torch", "torch.compile", "ONNX Runtime")
        assert cost.objects == pytest.approx(costs[PLAIN].objects, abs=0 if exact else 0.5), name
        assert cost.seconds.median > 0


def test_bfloat16_detects_the_same_objects_with_similar_embeddings() -> None:
    model = ssdir.load("tiny-digits", "cpu").model
    pixels = scattered_pictures(128, 8, seed=3)
    single, half = (Predictor(model, precision=kind).encode_pixels(pixels) for kind in ("single", "bf16"))
    assert half.z_what is not None
    assert single.z_what is not None
    assert half.z_what.dtype == half.z_where.dtype == torch.float32
    assert not torch.equal(half.z_what[:3], single.z_what[:3]), "half precision was not used"
    overlap = box_iou(half.boxes, single.boxes) * (half.image_index[:, None] == single.image_index)
    best, row = overlap.max(dim=1)
    assert (best > 0.8).float().mean() > 0.95
    embeddings, expected = half.z_what[best > 0.8], single.z_what[row[best > 0.8]]
    assert ((embeddings - expected).norm(dim=1) / expected.norm(dim=1)).median() < 0.05


def test_bfloat16_is_refused_where_it_would_misplace_objects() -> None:
    with pytest.raises(InputError, match="SPACE model encodes in single precision only"):
        Predictor(untrained(read_recipe("space-64").model), precision="bf16")


@pytest.mark.parametrize("wanted", [2, 20])
def test_an_untrained_detector_is_made_to_detect_something(wanted: int) -> None:
    model = untrained(read_recipe("tiny").model)
    assert isinstance(model, DetectedModel)
    pixels = scattered_pictures(128, 4)
    detect_about(model, pixels, wanted)
    objects_per_image = len(Predictor(model).encode_pixels(pixels)) / 4
    assert 0.5 * wanted <= objects_per_image <= 1.5 * wanted


def bench(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


@pytest.mark.slow
def test_bench_writes_what_it_measured(tmp_path: Path, uncompiled: None) -> None:
    out, chart = tmp_path / "bench.json", tmp_path / "cost.png"
    quick = ("--objects", "1,3", "--batch-size", "1", "--repeats", "1", "--no-memory", "--no-engines")
    result = bench("space-64", "tiny-digits", *quick, "--out", out, "--chart", chart)
    assert result.exit_code == 0, result.output
    assert "every cell" in result.stdout
    assert chart.read_bytes().startswith(b"\x89PNG")
    report = json.loads(out.read_text())
    assert {(row["model"], row["objects"]) for row in report["costs"]} == {
        ("space-64", None),
        ("tiny-digits", 1),
        ("tiny-digits", 3),
    }
    for row in report["costs"]:
        row["seconds"] = dict.fromkeys(row["seconds"], 1e-9)
    out.write_text(json.dumps(report))
    again = bench("space-64", *quick, "--out", out, "--force")
    assert again.stdout.count("slower") == sum(row["model"] == "space-64" for row in report["costs"])
    out.write_text('{"costs": [{"model": 3}], "provenance": {}}')
    damaged = bench("space-64", *quick, "--out", out, "--force")
    assert damaged.exit_code == 0
    assert "nothing is compared with what is replaced" in damaged.stderr
    assert "'costs.0.model'" in damaged.stderr
    report["provenance"]["cpu"] = "abacus"
    out.write_text(json.dumps(report))
    elsewhere = bench("space-64", *quick, "--out", out, "--force")
    assert "slower" not in elsewhere.stdout
    assert "of another CPU (abacus; this one: " in elsewhere.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("nothing-such",), "no model folder 'nothing-such'"),
        (("tiny", "--objects", "1,many"), "--objects must be whole numbers of at least 1"),
        (("space-64", "--image-size", "100"), "SPACE of 100 pixels"),
    ],
)
def test_bench_refusals(arguments: tuple[str, ...], sentence: str) -> None:
    result = bench(*arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr
