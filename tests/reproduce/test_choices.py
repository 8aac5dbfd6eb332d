"""A plan chooses settings on the validation split, and records its choice."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ssdir.errors import InputError
from ssdir.reports.markdown import markdown
from ssdir.reproduce.choices import settle
from ssdir.reproduce.jobs import Job, candidates, expand
from ssdir.reproduce.plan import ChoicePlan, Plan, read_plan
from ssdir.reproduce.records import Record, make_record, write_records
from ssdir.reproduce.report import build_report
from ssdir.reproduce.runner import Runner
from ssdir.reproduce.trained import TrainedJob
from ssdir.reproduce.watch import Watch

AMONG = [[f"model.size_prior={{start: {mean}, end: {mean}}}"] for mean in (-1.5, -1.3, -1)]
PLAN: dict[str, Any] = {
    "about": "A test.",
    "data": {"digits": {"source": "digits", "val": "train[:2]", "train": "train[2:]"}},
    "runs": {
        "space": {"preset": "space-64", "data": "digits", "seeds": 2, "choose": {"among": AMONG}},
        "other": {"like": "space", "choose": None},
    },
    "experiments": {"table2": ["space", "other"]},
}


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(PLAN))
    return read_plan(str(tmp_path / "mine.yaml"))


def runner_of(plan: Plan, folder: Path, monkeypatch: pytest.MonkeyPatch, *values: float | None) -> Runner:
    """Returns a runner whose first candidates have been measured, with the given values of AP50."""
    ap50 = {
        job.slug: value
        for job, value in zip(candidates(plan, "space"), values, strict=False)
        if job.split != "test"
    }

    def measured(self: Runner, job: Job) -> dict[str, Any] | None:
        known = job.split == "train[:2]" and job.slug in ap50
        return {"metrics": {"detection/ap50": ap50[job.slug], "detection/recall": 1.0}} if known else None

    monkeypatch.setattr(Runner, "measured", measured)
    monkeypatch.setattr(Runner, "is_trained", lambda self, job: job.slug in ap50)
    return Runner(plan, folder, None, Watch(), None)


def record_of(runner: Runner, job: Job) -> Record:
    training = {"recipe": job.recipe.model_dump(mode="json"), "wall_seconds": {}}
    provenance = {
        "config": runner.trained_job(job).config,
        "seed": job.recipe.seed,
        "data_hash": "0",
        "versions": {},
        "device": "cpu",
        "wall_seconds": 1,
        "training": training,
    }
    return make_record(job, {"metrics": {"probe/accuracy": 0.5}, "provenance": provenance}, ["probe/"])


def size_prior(job: Job) -> float:
    return float(job.recipe.model.size_prior.start)  # type: ignore[union-attr]


def test_candidates_are_measured_where_nothing_is_reported(plan: Plan) -> None:
    jobs = candidates(plan, "space")
    assert [size_prior(job) for job in jobs] == [-1.5, -1.3, -1]
    assert {(job.split, job.probes, job.recipe.seed) for job in jobs} == {("train[:2]", False, 0)}
    assert {(job.split, job.probes) for job in expand(plan, "space")} == {("test", True)}
    assert len({job.name for job in (*jobs, *expand(plan, "space"))}) == 5


def test_the_best_is_trained_with_all_seeds_and_once_with_the_first(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = runner_of(plan, tmp_path, monkeypatch, 0.4, 0.6, None)
    assert settle(runner, ["table2"], None) == []
    jobs = expand(runner.plan, "space")
    assert [(size_prior(job), job.recipe.seed) for job in jobs] == [(-1.3, 0), (-1.3, 1)]
    assert jobs[0].slug == candidates(plan, "space")[1].slug
    assert expand(runner.plan, "other") == expand(plan, "other")
    assert settle(runner, ["table2"], None) == [], "what is chosen is not chosen again"


def test_a_choice_waits_for_every_candidate(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = runner_of(plan, tmp_path, monkeypatch, 0.4, 0.6)
    assert settle(runner, ["table2"], None) == ["space"]
    assert runner.plan is plan
    nothing = runner_of(plan, tmp_path, monkeypatch, None, None, None)
    with pytest.raises(InputError, match="run 'space': detection/ap50 is undefined for all candidates"):
        settle(nothing, ["table2"], None)


def test_a_choice_is_in_records_and_report_and_is_read_from_them(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = runner_of(plan, tmp_path, monkeypatch, 0.4, 0.61, 0.2)
    settle(runner, ["table2"], None)
    job = expand(runner.plan, "space")[0]
    config = runner.trained_job(job).config
    assert config["choice"]["chosen"] == 1
    assert [each["value"] for each in config["choice"]["among"]] == [0.4, 0.61, 0.2]
    assert config["choice"]["split"] == "train[:2]"
    assert "choice" not in runner.trained_job(expand(runner.plan, "other")[0]).config
    record = record_of(runner, job)
    results = tmp_path / "results"
    results.mkdir()
    write_records(results / "table2.json", [record], [])
    page = build_report(runner.plan, results).html()
    assert "size_prior={start: -1.3, end: -1.3}" in page
    assert "0.610" in page
    # On a machine without the trainings, the choice of the results counts; not that of other candidates.
    monkeypatch.setattr(Runner, "data_hash", lambda self, job: None)
    later = runner_of(plan, tmp_path, monkeypatch)
    assert settle(later, ["table2"], results) == []
    assert size_prior(expand(later.plan, "space")[0]) == -1.3
    space = plan.runs["space"].model_copy(update={"choose": ChoicePlan(among=tuple(map(tuple, AMONG[:2])))})
    changed = plan.model_copy(update={"runs": {**plan.runs, "space": space}})
    assert settle(runner_of(changed, tmp_path, monkeypatch), ["table2"], results) == ["space"]


def test_the_report_has_candidates_whose_value_is_undefined(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = runner_of(plan, tmp_path, monkeypatch, 0.4, None, 0.2)
    settle(runner, ["table2"], None)
    write_records(tmp_path / "table2.json", [record_of(runner, expand(runner.plan, "space")[0])], [])
    text = markdown(build_report(runner.plan, tmp_path))
    assert re.search(r"size\\_prior=.*start: -1\.3.* \| undefined \|", text)


def test_a_measurement_states_the_choice_as_it_was_made_last(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainedJob, "file", lambda self, name: tmp_path / name)
    runner = Runner(plan, tmp_path, None, Watch(), None)
    among = [{"overrides": list(each), "value": 0.5} for each in AMONG]
    runner.settle("space", {"by": "detection/ap50", "split": "train[:2]", "among": among, "chosen": 1})
    job = expand(runner.plan, "space")[0]
    stored = record_of(runner, job)
    stored["provenance"]["config"] = {**runner.trained_job(job).config, "choice": {"chosen": 0}}
    (tmp_path / "metrics.json").write_text(json.dumps(stored))
    assert runner.ensure_measured(job)["provenance"]["config"] == record_of(runner, job)["provenance"]["config"]


@pytest.mark.parametrize(
    ("changes", "waiting"),
    [
        ({}, []),
        ({"run": {"seeds": 5, "label": "another name"}}, []),
        ({"run": {"overrides": ["representation.epochs=9"]}}, ["space"]),
        ({"run": {"data": "others"}}, ["space"]),
        ({"data": {"val": "train[:4]"}}, ["space"]),
        ({"data": {"train": "train[3:]"}}, ["space"]),
        ({"hash": "1"}, ["space"]),
    ],
)
def test_an_earlier_choice_of_another_recipe_or_of_other_data_is_made_anew(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], waiting: list[str]
) -> None:
    runner = runner_of(plan, tmp_path, monkeypatch, 0.4, 0.61, 0.2)
    settle(runner, ["table2"], None)
    results = tmp_path / "results"
    results.mkdir()
    write_records(results / "table2.json", [record_of(runner, expand(runner.plan, "space")[1])], [])
    data = {"digits": {**PLAN["data"]["digits"], **changes.get("data", {})}, "others": PLAN["data"]["digits"]}
    runs = {"space": {**PLAN["runs"]["space"], **changes.get("run", {})}}
    changed = {**PLAN, "data": data, "runs": runs, "experiments": {"table2": ["space"]}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(changed))
    hashes = {"digits": changes.get("hash", "0"), "others": "2"}
    monkeypatch.setattr(Runner, "data_hash", lambda self, job: hashes[job.data.name])
    later = runner_of(read_plan(str(tmp_path / "mine.yaml")), tmp_path, monkeypatch)
    assert settle(later, ["table2"], results) == waiting


def test_the_committed_choices_are_of_the_committed_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = Path(__file__).parents[2] / "results" / "cpu"
    plan = read_plan("cpu")
    choosing = [name for name, run in plan.runs.items() if run.choose is not None]
    assert choosing == ["spair", "space", "clevr-spair", "clevr-space"]
    monkeypatch.setattr(Runner, "data_hash", lambda self, job: None)
    runner = Runner(plan, tmp_path, None, Watch(), None)
    assert settle(runner, list(plan.experiments), results) == []
    assert [runner.plan.runs[name].choose for name in choosing] == [None] * 4
