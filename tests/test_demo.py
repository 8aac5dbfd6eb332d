"""The demo from end to end, with an untrained model in place of the training."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import pytest

from ssdir import demo
from ssdir.errors import InputError
from ssdir.models.io import load_model
from ssdir.reports.report import dated
from ssdir.training.fit import RunSummary
from ssdir.training.recipe import Recipe
from ssdir.training.session import Session

CSV = "epoch,step,train/total,val/total\n0,9,,2.5\n0,9,3.0,\n"


@pytest.fixture
def small_demo(monkeypatch: pytest.MonkeyPatch, agnostic_model_dir: Path) -> None:
    def train(recipe: Recipe, data: Path, out: Path, *, force: bool, session: Session) -> RunSummary:
        assert session.preview is not None
        session.preview.write_bytes(b"a picture")
        for stage in ("detector", "representation"):
            (out / stage / "checkpoints").mkdir(parents=True)
            (out / stage / "metrics.csv").write_text(CSV)
        shutil.copytree(agnostic_model_dir, out / "model")
        return RunSummary(out / "model", {"detector": 1.5, "representation": 0.5})

    monkeypatch.setattr(demo, "train", train)
    sizes = {"CANVAS": 64, "VAL_IMAGES": 1, "TEST_IMAGES": 9, "SCALE_GLYPHS": 3, "SMALL": demo.DemoSize(12)}
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
    assert f"<h1>{dated('scattered handwritten digits')}</h1>" in page
    assert "from 12 generated images" in page
    titles = re.findall(r"<h2>(.*)</h2>", page)
    assert titles == [
        "Reconstructions",
        "t-SNE map of embeddings",
        "Confusion matrix",
        "Latent traversals",
        "Next steps",
        "Appendix",
    ]
    assert "<pre>ssdir studio demo/model</pre>" in page
    assert list(tmp_path.iterdir()) == [out]  # The preview is gone.
    written = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert 0 <= written["metrics"]["detection/ap50"] <= 1
    assert written["provenance"]["seed"] == 0
    cpu = written["provenance"]["cpu_seconds"]
    assert list(cpu) == ["generating images", "training", "measuring", "rendering pictures"]
    assert 0 < cpu["measuring"] <= time.process_time()
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
    def fail(*arguments: object, session: Session, **options: object) -> RunSummary:
        assert session.preview == tmp_path / "demo-preview.png"
        session.preview.write_bytes(b"a picture")
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "train", fail)
    with pytest.raises(KeyboardInterrupt):
        demo.run_demo(tmp_path / "demo")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small_demo")
def test_the_full_demo_trains_on_more_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []

    def train(recipe: Recipe, data: Path, out: Path, **options: object) -> RunSummary:
        trained.append((recipe.detector.epochs, len(list((data / "train").iterdir()))))
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "train", train)
    monkeypatch.setattr(demo, "FULL", demo.DemoSize(15, ("detector.epochs=9",)))
    for full in (False, True):
        with pytest.raises(KeyboardInterrupt):
            demo.run_demo(tmp_path / "demo", full=full)
    assert trained[0][1] == 12
    assert trained[1] == (9, 15)


@pytest.mark.usefixtures("small_demo")
def test_a_file_of_anyone_stays_where_the_preview_would_be(tmp_path: Path) -> None:
    (tmp_path / "demo-preview.png").write_bytes(b"theirs")
    with pytest.raises(InputError, match=r"demo-preview\.png' exists already"):
        demo.run_demo(tmp_path / "demo")
    assert (tmp_path / "demo-preview.png").read_bytes() == b"theirs"
