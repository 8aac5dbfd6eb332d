"""The demo from end to end, but for the training: an untrained model takes its place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ssdir import demo
from ssdir.errors import InputError
from ssdir.models.io import load_model
from ssdir.training.fit import RunSummary
from ssdir.training.recipe import Recipe
from ssdir.training.session import Session

CSV = "epoch,step,train/total,val/total\n0,9,,2.5\n0,9,3.0,\n"


@pytest.fixture
def small_demo(monkeypatch: pytest.MonkeyPatch, agnostic_model_dir: Path) -> None:
    def train(recipe: Recipe, data: Path, out: Path, *, force: bool, session: Session) -> RunSummary:
        for stage in ("detector", "representation"):
            (out / stage / "checkpoints").mkdir(parents=True)
            (out / stage / "metrics.csv").write_text(CSV)
        shutil.copytree(agnostic_model_dir, out / "model")
        return RunSummary(out / "model", {"detector": 1.5, "representation": 0.5})

    monkeypatch.setattr(demo, "train", train)
    sizes = {"CANVAS": 64, "TRAIN_IMAGES": 12, "VAL_IMAGES": 1, "TEST_IMAGES": 9, "SCALE_GLYPHS": 3}
    for name, value in sizes.items():
        monkeypatch.setattr(demo, name, value)


@pytest.mark.slow
@pytest.mark.usefixtures("small_demo")
def test_the_demo_leaves_a_report_metrics_a_model_and_logs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    demo.run_demo(out)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("<img") == 8
    written = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert 0 <= written["metrics"]["detection/ap50"] <= 1
    assert written["provenance"]["seed"] == 0
    assert load_model(out / "model").class_names == ["object"]
    assert sorted(path.name for path in (out / "run" / "detector").iterdir()) == ["metrics.csv"]
    printed = capsys.readouterr().out
    for text in (
        "1/4 generating images",
        "4/4 rendering pictures",
        "AP50",
        str(out / "report.html"),
        "next: ssdir encode",
    ):
        assert text in printed
    with pytest.raises(InputError, match="exists"):
        demo.run_demo(out)
    assert str(tmp_path) not in page + json.dumps(written)


@pytest.mark.usefixtures("small_demo")
def test_a_demo_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> RunSummary:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "train", fail)
    with pytest.raises(KeyboardInterrupt):
        demo.run_demo(tmp_path / "demo")
    assert list(tmp_path.iterdir()) == []
