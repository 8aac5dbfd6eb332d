"""`ssdir.evaluate` on generated clips measures what `ssdir track` returns for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import ssdir
from ssdir.cli import app
from ssdir.data.readers.registry import open_dataset
from ssdir.data.scatter.clip_writer import write_moving
from ssdir.data.scatter.moving import MovingConfig
from ssdir.data.video import open_frames
from ssdir.errors import InputError
from ssdir.evaluation.tracking import tracking_metrics
from ssdir.objects import Objects
from ssdir.tracking.track import stream_tracks


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "clips"
    write_moving(folder, "digits", MovingConfig(canvas=72, frames=12, objects=(3, 4), train=1, val=1, test=2))
    return folder


def test_the_tracks_are_those_of_track(clips: Path) -> None:
    """Evaluation reads data sets in batches, and tracking reads streams of frames; their tracks are equal."""
    options = ssdir.EvaluationOptions(train_split=None, num_glyphs=0)
    metrics = ssdir.evaluate("tiny-digits", clips, options=options, device="cpu").metrics
    model = ssdir.load("tiny-digits", "cpu")
    data = open_dataset(clips, "test", "object")
    true, tracked = [], []
    for images in data.clip_ranges:
        frames = stream_tracks(model, open_frames(data.image_paths[images.start].parent), batch_size=5)
        tracked.append(Objects.cat([frame.objects for frame in frames]))
        true.append(Objects.cat([data.objects(image) for image in images]))
    expected = tracking_metrics(true, tracked)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    assert 0 < expected["tracking/hota"] < 1


def test_true_boxes_are_tracked_where_asked_for(clips: Path) -> None:
    options = ssdir.EvaluationOptions(train_split=None, num_glyphs=0, true_boxes=True, max_images=12)
    report = ssdir.evaluate("tiny-digits", clips, options=options, device="cpu")
    assert report.metrics["tracking/loc_a"] == pytest.approx(1, abs=1e-5)
    assert report.metrics["tracking/det_a"] == pytest.approx(1, abs=1e-5)
    assert report.provenance["config"]["true_boxes"] is True
    assert report.provenance["config"]["track"]["appearance"] is True


@pytest.mark.slow
def test_the_benchmark_measures_again_what_is_of_other_weights_or_data(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    tracking = pytest.importorskip("tracking")
    out = tmp_path / "tracking.json"
    line = f"tracking --model tiny-digits --data standard={clips} --arms motion --true-boxes --out {out}"
    monkeypatch.setattr("sys.argv", line.split())

    def made() -> dict[str, Any]:
        tracking.main()
        (record,) = json.loads(out.read_text())
        return dict(record["provenance"])

    first = made()
    assert made() == first
    monkeypatch.setattr(tracking, "weights_fingerprint", lambda model: "other weights")
    assert made()["config"]["model"]["fingerprint"] == "other weights"
    monkeypatch.setattr(tracking, "fingerprint", lambda data: "other data")
    assert made()["data_hash"] == "other data"


def test_the_command_passes_on_what_is_asked(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[ssdir.EvaluationOptions] = []

    def noted(model: str, data: Path, split: str, options: ssdir.EvaluationOptions, **_: object) -> None:
        asked.append(options)
        raise InputError("noted")

    monkeypatch.setattr("ssdir.evaluation.evaluate.evaluate", noted)
    for flags in ([], ["--true-boxes"]):
        CliRunner().invoke(app, ["evaluate", "tiny-digits", str(clips), *flags])
    assert [options.true_boxes for options in asked] == [False, True]


def test_identity_is_that_of_the_embeddings_of_the_true_boxes(clips: Path) -> None:
    model = ssdir.load("tiny-digits", "cpu")
    data = open_dataset(clips, "test", "object", model.image_size)
    images = torch.stack([data.image(index) for index in range(len(data))]).float() / 255
    boxes = Objects.cat([data.objects(index) for index in range(len(data))])
    embedded = model.encoder.embed(images, boxes).replace(track_id=boxes.track_id)
    right = []
    for row, track in enumerate(boxes.track_id.tolist()):
        later = (boxes.image_index == boxes.image_index[row] + 5).nonzero().squeeze(1)
        if int(boxes.image_index[row]) % 12 + 5 >= 12 or track not in boxes.track_id[later] or len(later) < 2:
            continue
        cosines = torch.cosine_similarity(embedded.z_what[row][None], embedded.z_what[later])
        right.append(float(boxes.track_id[later[cosines.argmax()]] == track))
    metrics = ssdir.evaluate(model, clips, options=ssdir.EvaluationOptions(train_split=None, num_glyphs=0)).metrics
    assert metrics["identity/retrieval_at_1_gap_5"] == pytest.approx(sum(right) / len(right))
