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


@pytest.mark.parametrize("row", QUOTED)
def test_readme_quotes_what_the_demo_measured(readme: str, row: str) -> None:
    metrics = json.loads((ROOT / "results/demo/metrics.json").read_text(encoding="utf-8"))["metrics"]
    cell = re.search(rf"^\| {re.escape(row)} \| ([0-9.]+)", readme, re.MULTILINE)
    assert cell is not None
    name, digits = QUOTED[row]
    assert cell[1] == f"{metrics[name]:.{digits}f}"


def test_readme_lists_every_preset(readme: str) -> None:
    listed = re.findall(r"^\| `([a-z0-9-]+)` \|", readme, re.MULTILINE)
    assert sorted(listed) == presets()
