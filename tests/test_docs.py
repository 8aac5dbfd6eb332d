"""Documents quote committed results, and commands that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ssdir.config import presets

ROOT = Path(__file__).parent.parent
QUOTED = {
    "AP50": ("detection/ap50", 3),
    "latents per true object": ("detection/latents_per_object", 3),
    "reconstruction MSE": ("reconstruction/mse", 4),
    "digit probe, conditional": ("probe/accuracy", 3),
    "digit probe, end to end": ("probe/accuracy_end_to_end", 3),
    "the same probe on the detector's pooled features": ("probe/pooled_features/accuracy", 3),
    "the same probe on pixels": ("probe/raw_pixels/accuracy", 3),
    "same digit found again at 4 times the size": ("scale/retrieval_at_1", 3),
}


@pytest.fixture(scope="module")
def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


COLUMNS = {
    1: "results/demo/metrics.json",
    3: "results/reference/class-agnostic.json",
    5: "results/reference/class-aware.json",
}
"""Of the table of results; its other columns are goals."""


@pytest.mark.parametrize("row", QUOTED)
@pytest.mark.parametrize("column", COLUMNS)
def test_readme_quotes_what_was_measured(readme: str, row: str, column: int) -> None:
    metrics = json.loads((ROOT / COLUMNS[column]).read_text(encoding="utf-8"))["metrics"]
    line = re.search(rf"^\| {re.escape(row)} \|.*", readme, re.MULTILINE)
    assert line is not None
    cell = re.match(r"[0-9.]+", line[0].strip("|").split("|")[column].strip())
    assert cell is not None
    name, digits = QUOTED[row]
    assert cell[0] == f"{metrics[name]:.{digits}f}"


def test_readme_lists_every_preset(readme: str) -> None:
    listed = re.findall(r"^\| `([a-z0-9-]+)` \|", readme, re.MULTILINE)
    assert sorted(listed) == presets()
