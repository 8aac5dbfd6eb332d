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


@pytest.mark.parametrize(
    ("file", "quote", "name", "digits"),
    [
        ("clevr/clevr-128", r"AP50 ([0-9.]+) \(goal 0\.85\)", "detection/ap50", 3),
        ("clevr/clevr-128", r"foreground ARI of the\s+masks from alpha ([0-9.]+)", "masks/fg_ari", 3),
        ("clevr/clevr-128", r"mIoU ([0-9.]+);", "masks/miou", 3),
        ("clevr/clevr-128", r"overlapping objects ([0-9]\.[0-9]+)", "depth/order_accuracy", 3),
        ("clevr/clevr-128", r"material ([0-9]\.[0-9]+),", "properties/material/accuracy", 3),
        ("clevr/clevr-128", r"size ([0-9]\.[0-9]+),", "properties/size/accuracy", 3),
        ("clevr/clevr-128", r"colour ([0-9]\.[0-9]+),", "properties/colour/accuracy", 3),
        ("clevr/clevr-128", r"\*\*shape ([0-9]\.[0-9]+)\*\*", "properties/shape/accuracy", 3),
        ("widerface/widerface-128", r"\*\*AP50 ([0-9.]+)\*\*", "detection/ap50", 3),
        ("widerface/widerface-128", r"([0-9.]+) AP for small faces", "detection/ap_small", 3),
        ("widerface/widerface-128", r"([0-9.]+) for large\)", "detection/ap_large", 3),
        ("widerface/widerface-128", r"([0-9.]+) of the\s+faces found", "detection/recall", 3),
        ("widerface/widerface-128", r"at a precision of ([0-9]\.[0-9]+)", "detection/precision", 3),
        ("widerface/widerface-128", r"whole image's MSE \(([0-9.]+)\)", "reconstruction/mse", 4),
        ("widerface/widerface-128", r"that of the objects is ([0-9]\.[0-9]+)", "reconstruction/object_mse", 4),
        ("widerface/widerface-128", r"blur ([0-9.]+),", "properties/blur/accuracy", 3),
        ("widerface/widerface-128", r"most frequent\s+([0-9.]+);", "properties/blur/majority", 3),
        ("widerface/widerface-128", r"pose ([0-9.]+),", "properties/pose/accuracy", 3),
        ("widerface/widerface-128", r"pose 0\.961, ([0-9.]+)\)", "properties/pose/majority", 3),
        ("single/space", r"11 minutes, AP50 ([0-9.]+)", "detection/ap50", 3),
        ("single/space", r"count error ([0-9.]+) per image \(0\.5\)", "detection/count_error", 3),
        ("single/space", r"digit probe ([0-9.]+) \(0\.85\)", "probe/accuracy", 3),
        ("single/space", r"pixels know more than its codes \(([0-9]\.[0-9]+)\)", "probe/raw_pixels/accuracy", 3),
        ("single/spair", r"on one core, AP50 ([0-9.]+)", "detection/ap50", 3),
        ("single/spair", r"0\.990, count error ([0-9.]+), digit", "detection/count_error", 3),
        ("single/spair", r"digit probe ([0-9]\.[0-9]+)\.\n", "probe/accuracy", 3),
    ],
)
def test_experiments_quote_what_was_measured(file: str, quote: str, name: str, digits: int) -> None:
    metrics = json.loads((ROOT / "results" / f"{file}.json").read_text(encoding="utf-8"))["metrics"]
    found = re.search(quote, (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8"))
    assert found is not None
    assert found[1] == f"{metrics[name]:.{digits}f}"


@pytest.mark.parametrize(
    ("quote", "name"), [(r"\(([0-9.]+) × its rate", "preloaded"), (r"([0-9.]+) × where", "files")]
)
def test_data_quotes_what_was_measured(quote: str, name: str) -> None:
    metrics = json.loads((ROOT / "results/bench/loading.json").read_text(encoding="utf-8"))["metrics"]
    found = re.search(quote, (ROOT / "docs" / "data.md").read_text(encoding="utf-8"))
    assert found is not None
    assert found[1] == f"{metrics['times_training'][name]:.2f}"
    assert metrics["epoch_growth_mb"] == 0


def rows_after(heading: str) -> list[list[str]]:
    """Cells of the first table behind a heading of the experiments, without its head."""
    text = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8").split(heading)[1]
    table = re.search(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()[2:]]


METHODS = {
    "SSDIR, `tiny`": "reference/class-agnostic",
    "GlimpseVAE, `tiny-glimpses`": "multi/glimpse-vae",
    "PooledFeatures, `tiny-pooled`": "multi/pooled-features",
    "SPACE, at 64×64": "multi/space",
    "SPAIR, at 64×64": "multi/spair",
}
METHOD_COLUMNS = (
    ("detection/ap50", 3),
    ("detection/count_error", 2),
    ("probe/accuracy", 3),
    ("probe/accuracy_end_to_end", 3),
    ("reconstruction/mse", 4),
    ("scale/retrieval_at_1", 3),
    ("scale/small_to_large/accuracy", 3),
)


def test_methods_are_compared_by_what_was_measured() -> None:
    rows = rows_after("## The same digits, every method")
    assert [row[0] for row in rows] == list(METHODS)
    for name, *cells in rows:
        metrics = json.loads((ROOT / "results" / f"{METHODS[name]}.json").read_text(encoding="utf-8"))["metrics"]
        expected = [f"{metrics[key]:.{digits}f}" if key in metrics else "–" for key, digits in METHOD_COLUMNS]
        assert cells == expected


def test_costs_are_what_was_measured() -> None:
    records = json.loads((ROOT / "results/bench/models.json").read_text(encoding="utf-8"))["records"]
    rows = rows_after("## What each model costs")
    assert len(rows) == len(records)
    for row, record in zip(rows, records, strict=True):
        assert row == [
            record["model"],
            "any" if record["objects"] is None else str(record["objects"]),
            f"{record['parameters'] / 1e6:.2f} M",
            f"{1000 * record['encode_seconds']:.1f}",
            f"{1000 * record['train_seconds']:.1f}",
            f"{record['training_memory_mb']:.0f}",
        ]


@pytest.mark.parametrize(
    ("quote", "record", "digits"),
    [
        (r"`encode` at ([0-9.]+) ×", "encode / backbone and heads alone", 2),
        (r"compositor for 8 images ([0-9.]+) ×", "compositor on canvases / as a product, 8 images", 2),
        (r"take ([0-9.]+) × less time", "encode as trained / with batch norm folded and channels last", 2),
        (r"one image: ([0-9.]+) ×", "compositor on canvases / as a product, 1 images", 2),
        (r"cached features: ([0-9.]+) ×", "training step with the backbone / on cached features", 1),
    ],
)
def test_speed_is_what_was_measured(quote: str, record: str, digits: int) -> None:
    content = json.loads((ROOT / "results/bench/speed.json").read_text(encoding="utf-8"))
    median = next(entry["median"] for entry in content["records"] if entry["name"] == record)
    text = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8").split("## Speed")[1]
    found = re.search(quote, text)
    assert found is not None
    assert found[1] == f"{median:.{digits}f}"
