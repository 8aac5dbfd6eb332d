"""Tests of means over trainings, and of records that are written and read again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ssdir.errors import InputError
from ssdir.reports.report import Row
from ssdir.reproduce.catalogue import EXPERIMENTS
from ssdir.reproduce.experiments import Results
from ssdir.reproduce.figures import read_picture
from ssdir.reproduce.plan import read_plan
from ssdir.reproduce.records import Trainings, by_group, read_records, write_records
from ssdir.reproduce.report import build_report


def record(group: str, seed: int, **metrics: float) -> dict[str, Any]:
    values = {name.replace("__", "/"): value for name, value in metrics.items()}
    return {
        "run": f"{group}-{seed}",
        "group": group,
        "label": "SSDIR",
        "model": "SSDIR",
        "data": "digits",
        "detector": "class_aware",
        "seed": seed,
        "metrics": values,
        "provenance": {
            "config": {"preset": "tiny"},
            "seed": seed,
            "data_hash": None,
            "versions": {"torch": "2"},
            "device": "cpu",
            "wall_seconds": 1.5,
        },
    }


def test_trainings_of_a_run_are_averaged() -> None:
    records = [record("a", 0, probe__f1=0.5), record("b", 0), record("a", 1, probe__f1=0.7), record("a", 2)]
    first, second = by_group(records)
    assert [each["seed"] for each in first.records] == [0, 1, 2]
    assert first.name == "SSDIR, class-aware"
    assert first.mean("probe/f1") == pytest.approx(0.6)
    assert first.text("probe/f1", ".2f") == "0.60 ±\u00a00.10 (2 of 3)"  # population deviation
    assert second.mean("probe/f1") is None
    assert second.text("probe/f1") == "–"
    assert Trainings(records[:1]).text("probe/f1") == "0.5000"  # one training deviates from nothing


def test_records_are_read_as_written(tmp_path: Path) -> None:
    records = [record("a", 0, mse=0.1), record("b", 1)]
    write_records(tmp_path / "x.json", records, ["clevr is left out: “why”"])
    assert read_records(tmp_path / "x.json") == (records, ["clevr is left out: “why”"])
    write_records(tmp_path / "x.json", [], [])
    assert read_records(tmp_path / "x.json") == ([], [])


def test_a_metric_that_is_undefined_counts_for_no_mean() -> None:
    undefined = record("a", 1)
    undefined["metrics"]["probe/f1"] = None
    (trainings,) = by_group([record("a", 0, probe__f1=0.5), undefined])
    assert trainings.mean("probe/f1") == 0.5
    assert trainings.text("probe/f1", ".1f") == "0.5 (1 of 2)"
    assert Trainings([undefined]).text("probe/f1") == "–"


def rows_of(*records: dict[str, Any]) -> list[Row]:
    table = EXPERIMENTS["table2"].section(Results(records, [], Path())).table
    assert table is not None
    return [row for row in table.groups[0].rows if row.label != "the paper"]


def test_table_2_says_how_many_trainings_have_values() -> None:
    scores = {f"probe__{name}": 0.5 for name in ("accuracy", "precision", "recall", "f1", "accuracy_end_to_end")}
    failed = record("b", 1)
    undefined = record("c", 2, **scores)
    undefined["metrics"]["probe/accuracy"] = None
    rows = rows_of(
        record("a", 0, **scores),
        *(record("b", seed, **scores) for seed in (0, 2)),
        failed,
        *(record("c", seed, **scores) for seed in (0, 1)),
        undefined,
        *(record("d", seed, **scores) for seed in (0, 1, 2)),
        record("e", 0),
    )
    assert [(row.note, row.values[0]) for row in rows] == [
        ("1 training", "0.5000"),
        ("3 trainings", "0.5000 ±\u00a00.0000 (2 of 3)"),
        ("3 trainings", "0.5000 ±\u00a00.0000 (2 of 3)"),
        ("3 trainings", "0.5000 ±\u00a00.0000"),
        ("1 training", "–"),
    ]
    assert rows[2].values[1] == "0.5000 ±\u00a00.0000", "only accuracy is undefined"


def test_the_report_names_all_versions(tmp_path: Path) -> None:
    later = record("a", 1)
    later["provenance"]["versions"] = {"torch": "3", "numpy": "4"}
    write_records(tmp_path / "table2.json", [record("a", 0), later, record("a", 2)], [])
    plan = read_plan("smoke")
    assert build_report(plan, tmp_path).appendix[-1].text == ["With torch 2 or 3, numpy 4."]


def test_what_is_no_number_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_records(tmp_path / "x.json", [record("a", 0, mse=float("nan"))], [])
    assert not list(tmp_path.iterdir())


def _change(*path: str | int, value: Any) -> Callable[[Any], str]:
    """Returns a function that replaces a value of a document."""

    def change(content: Any) -> str:
        *parents, last = path
        inner = content
        for part in parents:
            inner = inner[part]
        inner[last] = value
        return json.dumps(content)

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda content: "", "not valid JSON at line 1"),
        (lambda content: "[" * 100_000, "too deep"),
        (lambda content: "[1]", "expected keys and values, got .1."),
        (lambda content: '{"left_out": []}', "'records' is missing"),
        (lambda content: json.dumps(content)[:-30], "not valid JSON"),
        (_change("records", value={"0": 1}), "'records' must be a list"),
        (_change("records", 0, value=None), "'records.0'.*got None"),
        (_change("records", 0, "metrics", "mse", value="0.1"), "'records.0.metrics.mse'.*got '0.1'"),
        (_change("records", 0, "metrics", "mse", value=float("inf")), "'records.0.metrics.mse'.*finite.*got inf"),
        (_change("records", 0, "provenance", "device", value=None), "'records.0.provenance.device'.*got None"),
        (_change("records", 0, "picture", value="../../secret"), "'records.0.picture'.*got '../../secret'"),
        (_change("records", 0, "label", value="\ud83d"), "half of a surrogate pair"),
        (_change("records", 0, "detector", value="x" * 5000), "'records.0.detector'.*xx . xx.{1,99}$"),
    ],
)
def test_results_that_are_damaged_are_one_sentence(
    tmp_path: Path, change: Callable[[Any], str], sentence: str
) -> None:
    file = tmp_path / "x.json"
    write_records(file, [record("a", 0, mse=0.1)], [])
    file.write_text(change(json.loads(file.read_text())))
    with pytest.raises(InputError, match=sentence) as caught:
        read_records(file)
    assert str(file) in str(caught.value)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_a_picture_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "figure2-ssdir.png"
    with pytest.raises(InputError, match="does not exist"):
        read_picture(file)
    file.write_bytes(b"GIF89a")
    with pytest.raises(InputError, match=r"figure2-ssdir\.png' is not a PNG picture: restore it"):
        read_picture(file)


def test_the_committed_results_are_read() -> None:
    folder = Path(__file__).parents[2] / "results"
    files = [file for file in folder.glob("*/*.json") if '"left_out"' in file.read_text()[:20]]
    assert {file.parent.name for file in files} == {"adamw", "cpu", "muon", "paper"}
    for file in files:
        runs = [record["run"] for record in json.loads(file.read_text())["records"]]
        assert [record["run"] for record in read_records(file)[0]] == runs, file
    assert any(read_records(file)[0] for file in files if file.parent.name == "cpu")
