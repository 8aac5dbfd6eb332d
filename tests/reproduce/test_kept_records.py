"""Earlier records of data sets that are absent are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ssdir.benchmark.costs import Cost
from ssdir.benchmark.timing import Spread
from ssdir.reproduce.jobs import Job, expand
from ssdir.reproduce.plan import read_plan
from ssdir.reproduce.records import Record, make_record, read_records, write_records
from ssdir.reproduce.reproduce import reproduce
from ssdir.reproduce.runner import Runner
from ssdir.reproduce.trained import MEASUREMENT_VERSION, record_config
from ssdir.reproduce.watch import Watch

PLAN: dict[str, Any] = {
    "about": "A test.",
    "data": {"clevr": {"folder": "clevr-mini"}, "faces": {"folder": "widerface"}},
    "runs": {
        "space": {"preset": "space-64", "data": "clevr"},
        "faces": {"like": "space", "data": "faces"},
    },
    "experiments": {"masks": ["space", "faces"]},
}


def job_of(folder: Path, name: str = "space", **changes: Any) -> Job:
    """Writes the plan, with changes, and returns the job of a run."""
    (folder / "mine.yaml").write_text(yaml.safe_dump(PLAN | changes))
    return expand(read_plan(str(folder / "mine.yaml")), name)[0]


def record_of(job: Job) -> Record:
    training = {"recipe": job.recipe.model_dump(mode="json"), "wall_seconds": {}}
    provenance = {
        "config": record_config(job, None),
        "seed": 0,
        "data_hash": "0",
        "versions": {"torch": "2"},
        "device": "cpu",
        "wall_seconds": 1,
        "training": training,
    }
    return make_record(job, {"metrics": {"masks/fg_ari": 0.9}, "provenance": provenance}, ["masks/"])


def reproduced(folder: Path, record: Record, data: Path | None, so_far: bool) -> tuple[list[Record], list[str]]:
    """Returns the results that replace those of one record, without the data set that it is of."""
    file = folder / "out" / "mine" / "masks.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_records(file, [record], [])
    reproduce(["masks"], str(folder / "mine.yaml"), folder / "out", folder / "runs", data, so_far=so_far)
    return read_records(file)


@pytest.mark.parametrize("so_far", [True, False])
@pytest.mark.parametrize("has_data", [True, False])
def test_records_of_absent_data_are_kept(tmp_path: Path, has_data: bool, so_far: bool) -> None:
    record = record_of(job_of(tmp_path))
    records, left_out = reproduced(tmp_path, record, tmp_path if has_data else None, so_far)
    assert records == [record]
    assert [sentence.split(" is left out")[0] for sentence in left_out] == ["clevr", "faces"]
    assert left_out[0].endswith("clevr-mini'; rows kept from before: space-0")
    assert left_out[1].endswith("widerface'")
    assert "rows kept from before: space-0" in (tmp_path / "out" / "mine" / "report.md").read_text()


def test_records_are_in_the_plans_order_whichever_trainings_are_there(tmp_path: Path) -> None:
    job_of(tmp_path, runs={name: {**run, "seeds": 2} for name, run in PLAN["runs"].items()})
    plan, file = read_plan(str(tmp_path / "mine.yaml")), tmp_path / "out" / "mine" / "masks.json"
    file.parent.mkdir(parents=True)
    write_records(file, [record_of(expand(plan, "faces")[0]), record_of(expand(plan, "space")[1])], [])
    reproduce(["masks"], str(tmp_path / "mine.yaml"), tmp_path / "out", tmp_path / "runs", so_far=True)
    assert [record["run"] for record in read_records(file)[0]] == ["space-1", "faces-0"]


@pytest.mark.parametrize(
    "changes",
    [
        {"runs": {**PLAN["runs"], "space": {**PLAN["runs"]["space"], "overrides": ["representation.epochs=99"]}}},
        {"runs": {**PLAN["runs"], "space": {**PLAN["runs"]["space"], "data": "faces"}}},
        {"measure": {"train_images": 8}},
    ],
)
def test_records_of_another_recipe_data_or_measurement_are_not_kept(tmp_path: Path, changes: Any) -> None:
    record = record_of(job_of(tmp_path))
    job_of(tmp_path, **changes)
    records, left_out = reproduced(tmp_path, record, None, so_far=False)
    assert records == []
    assert not any("kept" in sentence for sentence in left_out)


def test_records_of_an_earlier_version_of_the_measurement_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = record_of(job_of(tmp_path))
    monkeypatch.setattr("ssdir.reproduce.trained.MEASUREMENT_VERSION", MEASUREMENT_VERSION + 1)
    assert reproduced(tmp_path, record, None, so_far=True)[0] == []


def test_a_training_without_its_data_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of(tmp_path)
    monkeypatch.setattr(Runner, "is_trained", lambda self, job: True)
    runner = Runner(read_plan(str(tmp_path / "mine.yaml")), tmp_path / "runs", None, Watch(), None)
    assert not runner.is_made(job)


def test_costs_are_measured_without_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of(tmp_path, experiments={"cost": ["space"]})
    cost = {"costs": [], "provenance": record_of(job)["provenance"]}
    monkeypatch.setattr(Runner, "ensure_costs", lambda self, jobs: {job.group: cost for job in jobs})
    monkeypatch.setattr("ssdir.reproduce.reproduce.write_report", lambda plan, folder: None)
    out = tmp_path / "out"
    reproduce(["cost"], str(tmp_path / "mine.yaml"), out, tmp_path / "runs", None)
    written = json.loads((out / "mine" / "cost.json").read_text())
    assert [record["run"] for record in written["records"]] == ["space-0"]
    assert written["left_out"] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ssdir.reproduce.runner.COST_COUNTS", (5, 20)),
        ("ssdir.reproduce.runner.cpu_kind", lambda: "another"),
        ("torch.get_num_threads", lambda: 99),
        ("torch.__version__", "0.1"),
    ],
)
def test_times_are_measured_once_and_again_where_earlier_ones_are_not_comparable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    job, measured = job_of(tmp_path), []

    def measure(configs: dict[str, Any], counts: tuple[int, ...]) -> list[Cost]:
        measured.append(counts)
        seconds = Spread.of([0.001])
        return [
            Cost(
                model="space", image_size=64, objects=5, stage="encode", parameters=1, seconds=seconds, memory_mb=1
            )
        ]

    monkeypatch.setattr("ssdir.reproduce.runner.measure_costs", measure)
    runner = Runner(read_plan(str(tmp_path / "mine.yaml")), tmp_path, None, Watch(), None)
    for _ in range(2):
        runner.ensure_costs([job])
    assert len(measured) == 1
    monkeypatch.setattr(name, value)
    runner.ensure_costs([job])
    assert len(measured) == 2
