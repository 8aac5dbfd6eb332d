"""Several processes share the runs of a plan, and none trains what another one is training."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from ssdir.reproduce.jobs import Job, jobs_of
from ssdir.reproduce.plan import read_plan
from ssdir.reproduce.runner import Runner
from ssdir.reproduce.watch import Watch
from ssdir.training.run_folder import write_summary
from ssdir.training.session import OutOfTime

PLAN = {
    "about": "A test.",
    "measure": {"train_images": 16, "glyphs": 4, "shown": [0]},
    "data": {"digits": {"source": "digits", "scatter": {"canvas": 64, "train": 24, "val": 4, "test": 12}}},
    "runs": {
        "ssdir": {"preset": "tiny", "data": "digits", "seeds": 2},
        "glimpses": {"like": "ssdir", "preset": "tiny-glimpses"},
        "space": {"preset": "space-64", "data": "digits", "seeds": 2},
    },
    "experiments": {"table2": ["ssdir", "glimpses", "space"]},
}


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    (tmp_path / "trial.yaml").write_text(yaml.safe_dump(PLAN))
    return jobs_of(read_plan(str(tmp_path / "trial.yaml")), ["table2"])


def process(folder: Path, deadline: float | None = None) -> Runner:
    """Returns a runner that acts as another process, because file locks are exclusive between any two runners."""
    return Runner(read_plan(str(folder / "trial.yaml")), folder / "runs", None, Watch(), deadline)


def test_one_seed_of_each_run_comes_before_a_second_of_any(jobs: list[Job]) -> None:
    assert [job.name for job in jobs] == [
        *("ssdir-0", "glimpses-0", "space-0"),
        *("ssdir-1", "glimpses-1", "space-1"),
    ]


def test_a_second_process_takes_what_shares_nothing_with_the_first(jobs: list[Job], tmp_path: Path) -> None:
    with process(tmp_path).claim(jobs) as first, process(tmp_path).claim(jobs) as second:
        assert first.name == "ssdir-0"
        assert second.name == "space-0", "glimpses-0 waits for the detector that ssdir-0 is training"
        with process(tmp_path).claim(jobs) as third:
            assert third.name == "ssdir-1"
    with process(tmp_path).claim(jobs) as freed:
        assert freed.name == "ssdir-0"


def test_a_shared_detector_that_is_trained_keeps_nobody_waiting(jobs: list[Job], tmp_path: Path) -> None:
    with process(tmp_path).claim(jobs) as first:
        stage = process(tmp_path).run_folder(first) / "detector"
        (stage / "model").mkdir(parents=True)
        (stage / "model" / "config.json").write_text("{}")
        write_summary(stage, 1.0, ended=True)
        with process(tmp_path).claim(jobs) as second:
            assert second.name == "glimpses-0"


def test_a_process_without_free_runs_waits_until_the_deadline(
    jobs: list[Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    now = iter(range(100))
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    with (
        process(tmp_path).claim(jobs[:1]),
        pytest.raises(OutOfTime),
        process(tmp_path, deadline=3).claim(jobs[:1]),
    ):
        pass
    assert len(waits) >= 2
