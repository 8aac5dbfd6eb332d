"""Means over trainings, and records that survive being written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ssdir.experiments.reproduce.records import Trainings, by_run, read_records, write_records


def record(group: str, seed: int, **metrics: float) -> dict[str, Any]:
    values = {name.replace("__", "/"): value for name, value in metrics.items()}
    return {"group": group, "label": "SSDIR", "detector": "class_aware", "seed": seed, "metrics": values}


def test_trainings_of_a_run_are_averaged() -> None:
    records = [record("a", 0, probe__f1=0.5), record("b", 0), record("a", 1, probe__f1=0.7), record("a", 2)]
    first, second = by_run(records)
    assert [each["seed"] for each in first.records] == [0, 1, 2]
    assert first.name == "SSDIR, class-aware"
    assert first.mean("probe/f1") == pytest.approx(0.6)
    assert first.text("probe/f1", ".2f") == "0.60 ±\u00a00.10"  # of those that have it; population deviation
    assert second.mean("probe/f1") is None
    assert second.text("probe/f1") == "–"
    assert Trainings(records[:1]).text("probe/f1") == "0.5000"  # one training deviates from nothing


def test_records_are_read_as_written(tmp_path: Path) -> None:
    records = [record("a", 0, mse=0.1), record("b", 1)]
    write_records(tmp_path / "x.json", records, ["clevr is left out: “why”"])
    assert read_records(tmp_path / "x.json") == (records, ["clevr is left out: “why”"])
    write_records(tmp_path / "x.json", [], [])
    assert read_records(tmp_path / "x.json") == ([], [])
