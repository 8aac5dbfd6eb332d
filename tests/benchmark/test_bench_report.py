"""Earlier timings are compared with those of the same settings only."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from ssdir.benchmark.costs import Cost
from ssdir.benchmark.engines import EngineCost
from ssdir.benchmark.report import BenchOptions, BenchReport, read_comparable, tables
from ssdir.benchmark.timing import Spread
from ssdir.errors import InputWarning
from ssdir.evaluation.provenance import provenance

OPTIONS = BenchOptions(batch_size=4)


def report(seconds: float, **changes: Any) -> BenchReport:
    cost = Cost(
        model="tiny",
        image_size=64,
        objects=5,
        stage="encode",
        parameters=1,
        seconds=Spread.of([seconds]),
        memory_mb=None,
    )
    engine = EngineCost(engine="onnx", seconds=cost.seconds, speedup=Spread.of([1.0]), objects=5)
    config = {**asdict(OPTIONS), "threads": torch.get_num_threads(), **changes}
    return BenchReport(
        costs=[cost], engines={"tiny": [engine]}, provenance=provenance(config, 0, None, "cpu", 1.0)
    )


def marks(seconds: float, earlier: BenchReport | None) -> list[str]:
    """Returns the last cell of each row of a report."""
    return [row[-1] for table in tables(report(seconds), earlier) for row in table.rows]


def test_what_is_slower_is_marked(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    file.write_text(json.dumps(report(0.1, repeats=3, objects=(5, 9)).model_dump()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        earlier = read_comparable(file, OPTIONS)
        assert earlier is not None
        assert marks(0.05, earlier) == ["", ""]
        assert marks(0.2, earlier) == ["slower than before"] * 2


@pytest.mark.parametrize("changes", [{"batch_size": 8}, {"threads": 1000}, {"threads": None}])
def test_other_settings_are_not_compared(changes: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    file.write_text(json.dumps(report(0.1, **changes).model_dump()))
    with pytest.warns(
        InputWarning, match=r"nothing is compared: .* \(batch size .*; this one: batch size 4, threads"
    ):
        earlier = read_comparable(file, OPTIONS)
    assert earlier is None
    assert marks(0.2, earlier) == ["", ""]
