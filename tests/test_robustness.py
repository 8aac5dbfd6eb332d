"""Runs a short robustness campaign, and tests that the campaign detects each kind of failure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def campaign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.slow
def test_damaged_inputs_are_accepted_or_refused_in_one_sentence(tmp_path: Path) -> None:
    out = tmp_path / "robustness.json"
    line = [sys.executable, str(BENCHMARKS / "robustness.py"), "--out", str(out), "--parts", "inputs"]
    subprocess.run([*line, "--inputs", "60", "--quick"], check=True, capture_output=True, timeout=600)
    inputs = json.loads(out.read_text())["inputs"]
    assert inputs["failures"] == []
    assert inputs["refused_undamaged"] == {}
    assert inputs["total"]["tried"] == 60
    assert inputs["total"]["one_sentence_error"] > 20


def test_the_recipe_that_is_trained_and_killed_is_one(tmp_path: Path) -> None:
    from campaign.base import RECIPE

    from ssdir.training.recipe import read_recipe

    (tmp_path / "small.yaml").write_text(RECIPE)
    assert read_recipe(tmp_path / "small.yaml").model.image_size == 64


def test_cases_are_sampled_by_seed_from_all_formats() -> None:
    from campaign.formats import FORMATS
    from campaign.inputs import cases_of

    cases = cases_of(700, seed=0)
    assert len(set(cases)) == 700
    assert {(case.format, case.kind) for case in cases} == {
        (name, kind) for name, form in FORMATS.items() for kind in form.kinds
    }
    assert cases == cases_of(700, seed=0)
    assert cases[:60] == cases_of(60, seed=0)
    assert cases != cases_of(700, seed=1)
    assert {case.format for case in cases_of(len(FORMATS), seed=3)} == set(FORMATS)


def test_damage_is_the_same_by_seed_and_changes_the_file(tmp_path: Path) -> None:
    from campaign.formats import FAMILIES
    from campaign.inputs import Case
    from campaign.samples import coco_content, write_json

    path = tmp_path / "a.json"
    for kind, damage in FAMILIES["json"].items():
        made = []
        for _ in range(2):
            if path.exists() or path.is_symlink():
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
            write_json(path, coco_content())
            whole = path.read_bytes()
            damage(path, np.random.default_rng(Case("COCO", kind, 0).entropy(0)))
            made.append(path.read_bytes() if path.is_file() else str(os.lstat(path).st_mode))
        assert made[0] == made[1], kind
        assert made[0] != whole, kind


class Tried:
    """A made-up command and the campaign's verdict on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("out", "tmp"):
            (folder / name).mkdir()

    def outcome(self, code: int = 0, stderr: str = "", stdout: str = "", **changes: object) -> str:
        from campaign.runner import Observed
        from campaign.verdict import Whole, judge

        observed = Observed(code, stdout, stderr, 1.0, 0, False)
        for name, value in changes.items():
            setattr(observed, name, value)
        whole = Whole({"train": (4, 6), "names": ["cat"]}, frozenset())
        says = {"train": (4, 5), "names": ["cat"]}
        return judge(observed, self.folder, {"a.json"}, whole, says, False, None).outcome


def write_coco(folder: Path, objects: int, x: object = 1) -> None:
    boxes = [{"bbox": [x, 1, 2, 2]}] * objects
    content = {"images": [{}] * 4, "annotations": boxes, "categories": [{"name": "cat"}]}
    (folder / "instances_train.json").write_text(json.dumps(content))


def test_what_is_written_must_be_as_the_whole_input_or_as_the_input_says_or_warned_of(tmp_path: Path) -> None:
    tried = Tried(tmp_path)
    for objects, stderr, outcome in (
        (6, "", "accepted"),
        (5, "", "accepted"),
        (4, "", "silent_difference"),
        (4, "left out: 2 boxes\n", "accepted"),
    ):
        write_coco(tmp_path / "out", objects)
        assert tried.outcome(stderr=stderr) == outcome
    write_coco(tmp_path / "out", 6, float("nan"))
    assert tried.outcome(stderr="a warning\n") == "silent_difference"


def test_errors_are_one_sentence_that_names_the_file_and_leave_nothing(tmp_path: Path) -> None:
    tried = Tried(tmp_path)
    for stderr, outcome in (
        ("error: 'a.json' is empty\n", "one_sentence_error"),
        ("error: something is wrong\n", "unclear_error"),
        ("", "unclear_error"),
        ("error: a.json\nerror: a.json\n", "unclear_error"),
        (f"error: a.json {'x' * 500}\n", "unclear_error"),
        ("error: out of memory: use smaller images or a smaller batch size\n", "memory"),
        ("Traceback (most recent call last):\n  File ...\nKeyError: 'a.json'\n", "traceback"),
    ):
        assert tried.outcome(code=2, stderr=stderr) == outcome, stderr
    sentence = "error: 'a.json' is empty\n"
    assert tried.outcome(code=-11) == "traceback"
    assert tried.outcome(code=-9, timed_out=True) == "hang"
    assert tried.outcome(code=0, peak_bytes=3 << 30) == "memory"
    (tmp_path / "out" / "o.json").touch()
    assert tried.outcome(code=2, stderr=sentence) == "partial_output"
    (tmp_path / "out" / "o.json").unlink()
    (tmp_path / "tmp" / "rest").touch()
    assert tried.outcome(code=2, stderr=sentence) == "partial_output"


def test_children_are_watched(tmp_path: Path) -> None:
    from campaign.runner import Task, run_all

    def work(code: int) -> None:
        os.write(1, b"said\n")  # Whatever pytest has made of sys.stdout.
        Path("made").touch()
        raise SystemExit(code)

    tasks = (Task(code, tmp_path / str(code), lambda code=code: work(code)) for code in (0, 3))
    ends = {task.key: observed for task, observed in run_all(tasks, 2)}
    assert {key: observed.code for key, observed in ends.items()} == {0: 0, 3: 3}
    assert ends[0].stdout == "said\n"
    assert (tmp_path / "3" / "made").exists()


def test_the_committed_campaign_is_a_whole_one() -> None:
    measured = json.loads((BENCHMARKS.parent / "results" / "robustness.json").read_text(encoding="utf-8"))
    assert measured["inputs"]["total"]["tried"] >= 500
    assert measured["kills"]["total"]["tried"] >= 50
    assert measured["inputs"]["refused_undamaged"] == {}
