"""`tools/ship_model.py` writes a model folder in half precision with a card of its metrics."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from tests.models.tiny import noise

import ssdir
from ssdir.config import parse
from ssdir.data.scatter.generator import ScatterConfig
from ssdir.data.scatter.writer import write_scatter
from ssdir.documents import read_yaml
from ssdir.models.io import save_model
from ssdir.models.registry import build_model, without_pretrained
from ssdir.models.shipped import CONFIG_FILE, WEIGHTS_FILE, read_header, shipped_models
from ssdir.training.recipe import read_recipe

ROOT = Path(__file__).parent.parent
TEXT = """
description: made for a test
data: It was trained on nothing.
use: "For: this test. Not for: photographs."
supervision: No supervision was given.
measured_on: no images at all
compared_on: crops of no images
"""


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import ship_model

    return ship_model


def write_report(path: Path, metrics: dict[str, float | None], **config: float) -> Path:
    path.write_text(json.dumps({"metrics": metrics, "provenance": {"config": config}}), encoding="utf-8")
    return path


@pytest.fixture
def trained_run(tmp_path: Path) -> Path:
    """Makes the run of an untrained small model of photographs."""
    changes = [
        "model.ssd.image_size=96",
        "model.ssd.anchors.min_sizes=[12, 24, 48]",
        "model.ssd.anchors.max_sizes=[24, 48, 90]",
        "model.encoder.latent_dim=16",
    ]
    model = build_model(without_pretrained(read_recipe("photos", changes).model), ["object"])
    save_model(model, tmp_path / "run")
    return tmp_path / "run"


def test_a_model_ships_in_half_precision_with_its_card(tool: Any, trained_run: Path, tmp_path: Path) -> None:
    metrics = write_report(
        tmp_path / "voc.json", {"detection/ap50": 0.6125, "probe/accuracy": None}, score_threshold=0.4
    )
    compared = write_report(tmp_path / "row.json", {"true_boxes/knn_10/accuracy": 0.8506, "time/20/ms": 70.0})
    (tmp_path / "text.yaml").write_text(TEXT, encoding="utf-8")
    tool.ship(trained_run, "small", metrics, compared, tmp_path / "text.yaml", out=tmp_path / "weights")

    folder = tmp_path / "weights" / "small"
    with (
        safe_open(folder / WEIGHTS_FILE, framework="numpy") as weights,
        safe_open(trained_run / WEIGHTS_FILE, framework="numpy") as before,
    ):
        assert set(weights.keys()) == set(before.keys())
        assert {weights.get_slice(name).get_dtype() for name in set(weights.keys())} <= {"F16", "I64", "BOOL"}
    config = read_header(folder).config
    assert config["ssd"]["backbone"]["weights"] is None
    assert config["ssd"]["score_threshold"] == 0.4
    shipped, trained = ssdir.load(folder, "cpu"), ssdir.load(trained_run, "cpu")
    boxes = [[[0.1, 0.1, 0.6, 0.7]]]
    one, other = (each.encode(noise(1), boxes=boxes, box_unit="relative").z_what for each in (shipped, trained))
    assert one is not None
    assert other is not None
    assert one.shape == (1, 16)
    assert float((one - other).abs().max()) < 0.01 * float(other.abs().max()) + 1e-3

    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# small\n\nSSDIR, made for a test. It was trained on nothing.\n")
    assert "Not for: photographs." in card
    assert "On no images at all (`voc.json` of the repository)" in card
    assert "| AP50 | 0.613 |" in card or "| AP50 | 0.612 |" in card
    assert "conditional" not in card, "what was not measured has no row"
    assert "On crops of no images (`row.json` of the repository)" in card
    assert "| 10 nearest neighbours at true boxes | 0.851 |" in card
    assert "digits" not in card


def test_models_that_are_too_large_or_lack_metrics_are_refused(
    tool: Any, trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.yaml").write_text(TEXT, encoding="utf-8")
    arguments = {"text": tmp_path / "text.yaml", "out": tmp_path / "weights"}
    with pytest.raises(SystemExit, match=r"none\.json' has none of the card's figures"):
        tool.ship(trained_run, "small", write_report(tmp_path / "none.json", {"other": 1.0}), **arguments)
    monkeypatch.setattr(tool, "LIMIT", 1000)
    with pytest.raises(SystemExit, match="a shipped model may take 1,000: shrink the model"):
        tool.ship(trained_run, "small", write_report(tmp_path / "a.json", {"detection/ap50": 0.5}), **arguments)
    assert not (tmp_path / "weights" / "small" / CONFIG_FILE).exists(), "what is refused leaves nothing behind"


@pytest.mark.parametrize(
    "name", sorted({*shipped_models(), *(p.stem for p in (ROOT / "tools/model_cards").glob("*"))})
)
def test_each_shipped_model_has_a_text_and_keeps_to_the_rules(tool: Any, name: str) -> None:
    path = tool.TEXTS / f"{name}.yaml"
    words = parse(tool.CardText, read_yaml(path), source=str(path))
    if name not in shipped_models():
        return
    folder = shipped_models()[name]
    assert (folder / WEIGHTS_FILE).stat().st_size <= tool.LIMIT
    header = read_header(folder)
    assert header.description == words.description
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"# {name}\n\nSSDIR, {words.description}. {words.data}\n\n{words.use} {words.supervision}" in card
    assert not header.config.get("distillation", {}).get("weight"), "the student is of training alone"
    assert header.config["ssd"]["backbone"].get("weights") is None


def test_a_card_states_the_error_from_which_images_are_unlike_the_training_data(tool: Any, tmp_path: Path) -> None:
    data, made = tmp_path / "digits", tmp_path / "made"
    write_scatter(data, "digits", ScatterConfig(train=1, val=8, test=1))
    text, report = tmp_path / "text.yaml", write_report(tmp_path / "report.json", {"detection/ap50": 0.9})
    text.write_text(TEXT, encoding="utf-8")
    tool.ship(shipped_models()["tiny-digits"], "again", report, text=text, out=made, validation=data)
    error = read_header(made / "again").familiar_error
    assert error is not None
    assert error != read_header(shipped_models()["tiny-digits"]).familiar_error
    assert f"at most {error:.4f}" in (made / "again" / "README.md").read_text(encoding="utf-8")
