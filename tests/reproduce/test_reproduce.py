"""The whole pipeline on a plan of seconds: trains each run once, and reports what is missing."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from ssdir.benchmark.costs import Cost
from ssdir.benchmark.timing import Spread
from ssdir.cli import app
from ssdir.errors import InputError
from ssdir.evaluation.evaluate import evaluate
from ssdir.reproduce import runner
from ssdir.reproduce.reproduce import forecast, reproduce
from ssdir.training.fit import train
from ssdir.training.session import OutOfTime

pytestmark = pytest.mark.slow

SMALL = [
    "model.ssd={image_size: 64, anchors: {min_sizes: [10, 20, 36], max_sizes: [20, 36, 56]}}",
    "model.ssd.backbone={channels: [8, 8, 8, 8, 8], top_down: 8}",
    "model.ssd={score_threshold: 0, nms_threshold: 0.8, max_objects: 60}",  # untrained, it detects by chance
    "model.encoder={latent_dim: 8, mlp_channels: 16}",
    "model.decoder={stem: 16, channels: [8, 8, 8]}",
    "model.consistency.weight=0",
    "detector={epochs: 2, batch_size: 12}",
    "representation={epochs: 1, batch_size: 12}",
]
PLAN: dict[str, Any] = {
    "about": "A test.",
    "measure": {"train_images": 16, "glyphs": 4, "shown": [0, 99]},
    "cost": {"detector": {"tiny": 0.01}, "representation": {"tiny": 0.01, "tiny-glimpses": 0.01}},
    "data": {
        "digits": {"source": "digits", "scatter": {"canvas": 64, "train": 24, "val": 4, "test": 12}},
        "sizes": {
            "source": "digits",
            "scatter": {"canvas": 64, "grids": [2], "train": 12, "val": 4, "test": 4},
            "vary": {"max_size": [0.5, 0.75]},
        },
        "clevr": {"folder": "clevr-mini", "test": "val"},
    },
    "runs": {
        "ssdir": {"preset": "tiny", "data": "digits", "overrides": SMALL},
        "glimpses": {"like": "ssdir", "preset": "tiny-glimpses", "overrides": ["model.encoder.glimpse_size=16"]},
        "sizes": {"like": "ssdir", "data": "sizes", "probes": False},
        "clevr": {"like": "ssdir", "data": "clevr"},
    },
    "experiments": {
        "table2": ["ssdir", "glimpses"],
        "figure2": ["ssdir", "clevr"],
        "figure3": ["ssdir"],
        "figure4": ["sizes"],
        "scale": ["ssdir", "glimpses"],
        "properties": ["clevr"],
    },
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder in which the plan has been run."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("reproduce")
    (folder / "trial.yaml").write_text(yaml.safe_dump(PLAN))
    run_in(folder)
    return folder


def run_in(folder: Path, *names: str, minutes: float | None = None, runs: str = "runs") -> Path:
    plan = str(folder / "trial.yaml")
    return reproduce(names or ["all"], plan, folder / "results", folder / runs, minutes=minutes)


def records_of(folder: Path, name: str) -> list[dict[str, Any]]:
    content = json.loads((folder / "results" / "trial" / f"{name}.json").read_text())
    records: list[dict[str, Any]] = content["records"]
    return records


def run_folder(folder: Path, name: str, runs: str = "runs") -> Path:
    return next((folder / runs / "trial").glob(f"{name}-????????"))


def interrupted_at(call: int, error: type[BaseException]) -> Callable[..., Any]:
    """Returns `train`, one call of which raises an error."""
    calls = 0

    def training(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise error
        return train(*arguments, **options)

    return training


def test_a_picture_needs_one_seed_and_a_table_all(tmp_path: Path) -> None:
    def trainings(*names: str) -> dict[str, int]:
        runs, _ = forecast(names, "smoke", tmp_path, None)
        return {run.group: run.trainings for run in runs}

    # The chosen candidate is the training of the first seed.
    candidates = {"space-candidate-0": 1, "space-candidate-1": 1, "space": 0}
    assert trainings("figure2") == {"ssdir": 1, "spair": 1, **candidates}
    assert trainings("figure2", "scale")["ssdir"] == 2


def test_each_number_has_its_provenance(place: Path) -> None:
    for record in records_of(place, "table2"):
        assert record["detector"] == "class_agnostic"
        assert record["metrics"]["probe/accuracy"] >= 0
        source = record["provenance"]
        assert source["seed"] == record["seed"] == 0
        assert len(source["data_hash"]) == 16
        assert source["training"]["recipe"]["model"]["kind"] == record["model"]
        assert source["training"]["wall_seconds"]["representation"] > 0
        assert {"versions", "device", "wall_seconds"} <= set(source)
    assert [record["model"] for record in records_of(place, "table2")] == ["SSDIR", "GlimpseVAE"]
    assert {name.split("/")[0] for name in records_of(place, "scale")[0]["metrics"]} == {"scale"}


def test_one_detector_is_shared(place: Path) -> None:
    own, shared = (
        load_file(run_folder(place, name) / "model" / "model.safetensors") for name in ("ssdir-0", "glimpses-0")
    )
    detector = [name for name in own if name.startswith("detector.")]
    assert detector
    assert all(torch.equal(own[name], shared[name]) for name in detector)
    assert not (run_folder(place, "glimpses-0") / "detector" / "metrics.csv").exists()


def test_the_report_has_our_numbers_beside_the_papers(place: Path) -> None:
    results = place / "results" / "trial"
    page, text = (results / "report.html").read_text(), (results / "report.md").read_text()
    assert "Probes learn from the objects of at most 16 training images." in text
    ours = records_of(place, "table2")[0]["metrics"]["probe/f1"]
    for document in (page, text):
        assert f"{ours:.4f}" in document
        assert "0.9786 ±\u00a00.0016" in document  # SSDIR's F1 in the paper
        assert "Clevr is left out: pass --data" in document
        assert str(place) not in document
    assert page.count("<img") == 3
    pictures = re.findall(r"\]\((figures/[a-z0-9-]+\.png)\)", text)
    assert pictures == ["figures/figure2-ssdir.png", "figures/figure3-ssdir.png", "figures/figure4.png"]
    assert all((results / picture).stat().st_size > 1000 for picture in pictures)
    errors = {
        record["scatter"]["max_size"]: record["metrics"]["reconstruction/mse"]
        for record in records_of(place, "figure4")
    }
    assert errors.keys() == {0.5, 0.75}


def test_nothing_is_made_twice(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError("made again")

    modules = {"train": "runner", "evaluate": "trained", "write_scatter": "runner", "collect": "figures"}
    for name, module in modules.items():
        monkeypatch.setattr(f"ssdir.reproduce.{module}.{name}", fail)
    results = place / "results" / "trial"
    before = {path.name: path.read_bytes() for path in results.glob("*.*")}
    run_in(place, minutes=0)  # there is nothing to begin
    assert {path.name: path.read_bytes() for path in results.glob("*.*")} == before
    # One experiment alone leaves the report of the others.
    assert "Fig. 4" in run_in(place, "scale").read_text()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OutOfTime])
def test_what_is_interrupted_goes_on(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    (tmp_path / "trial.yaml").write_text((place / "trial.yaml").read_text())
    monkeypatch.setattr(runner, "train", interrupted_at(2, error))
    with pytest.raises(error):
        run_in(tmp_path, "scale")
    assert not (tmp_path / "results").exists()
    finished = (run_folder(tmp_path, "ssdir-0") / "model" / "model.safetensors").stat().st_mtime_ns
    run_in(tmp_path, "scale")
    assert (run_folder(tmp_path, "ssdir-0") / "model" / "model.safetensors").stat().st_mtime_ns == finished
    ours, theirs = records_of(tmp_path, "scale"), records_of(place, "scale")
    assert [record["metrics"] for record in ours] == [record["metrics"] for record in theirs]


def test_a_folder_that_cannot_be_written_is_named_before_anything_is_made(place: Path, tmp_path: Path) -> None:
    (tmp_path / "results").touch()
    with pytest.raises(InputError, match=r"results.*is not a folder"):
        reproduce(["all"], str(place / "trial.yaml"), tmp_path / "results", tmp_path / "runs")
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_what_cannot_be_measured_is_reported_and_stops_nothing(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: Path, *arguments: Any, **options: Any) -> Any:
        if model.name.startswith("glimpses"):
            raise ValueError("z_what must be finite, got NaN")
        return evaluate(model, *arguments, **options)

    (tmp_path / "trial.yaml").write_text((place / "trial.yaml").read_text())
    monkeypatch.setattr("ssdir.reproduce.trained.evaluate", broken)
    page = run_in(tmp_path, "scale").read_text()
    assert "Glimpses-0: z_what must be finite, got NaN." in page
    ours, broken_one = records_of(tmp_path, "scale")
    assert ours["metrics"] == records_of(place, "scale")[0]["metrics"]
    assert broken_one["metrics"] == {}


def test_so_far_reports_what_is_done_and_what_is_missing(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place, tmp_path / "part")
    part = tmp_path / "part"
    shutil.rmtree(part / "results")
    shutil.rmtree(run_folder(part, "glimpses-0"))
    reproduce(["table2"], str(part / "trial.yaml"), part / "results", part / "runs", so_far=True)
    assert [record["run"] for record in records_of(part, "table2")] == ["ssdir-0"]
    assert "Not made yet: glimpses-0." in (part / "results" / "trial" / "report.md").read_text()
    assert not list((part / "runs" / "trial").glob("glimpses-*"))


def test_so_far_keeps_earlier_records_of_the_same_recipe_data_and_measurement_only(
    place: Path, tmp_path: Path
) -> None:
    shutil.copytree(place / "results", tmp_path / "results")
    shutil.copytree(place / "runs" / "trial" / "data", tmp_path / "runs" / "trial" / "data")

    def runs_kept(**changes: Any) -> list[str]:
        (tmp_path / "trial.yaml").write_text(yaml.safe_dump(PLAN | changes))
        shutil.copy(place / "results" / "trial" / "table2.json", tmp_path / "results" / "trial" / "table2.json")
        reproduce(["table2"], str(tmp_path / "trial.yaml"), tmp_path / "results", tmp_path / "runs", so_far=True)
        return [record["run"] for record in records_of(tmp_path, "table2")]

    assert runs_kept() == ["ssdir-0", "glimpses-0"]
    assert records_of(tmp_path, "table2") == records_of(place, "table2")
    longer = {"like": "ssdir", "preset": "tiny-glimpses", "overrides": ["representation.epochs=2"]}
    assert runs_kept(runs=PLAN["runs"] | {"glimpses": longer}) == ["ssdir-0"]
    assert runs_kept(measure={**PLAN["measure"], "train_images": 8}) == []
    without = {**PLAN["runs"]["ssdir"], "floors": False}
    same = {**PLAN["runs"]["glimpses"], "floors": True}
    assert runs_kept(runs=PLAN["runs"] | {"ssdir": without, "glimpses": same}) == ["glimpses-0"]
    other = {"source": "digits", "scatter": {**PLAN["data"]["digits"]["scatter"], "seed": 1}}
    assert runs_kept(data=PLAN["data"] | {"digits": other}) == []


def test_costs_need_no_training(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(configs: dict[str, Any], counts: tuple[int, ...]) -> list[Cost]:
        seconds = {"encode": 0.001, "train": 0.0025}
        return [
            Cost(
                model=name,
                image_size=64,
                objects=count,
                stage=stage,
                parameters=1234567,
                seconds=Spread.of([seconds[stage] * count]),
                memory_mb=10,
            )
            for name in configs
            for count in counts
            for stage in seconds
        ]

    monkeypatch.setattr(runner, "train", interrupted_at(1, AssertionError))
    monkeypatch.setattr(runner, "measure_costs", measured)
    plan = {**PLAN, "experiments": {"cost": ["ssdir", "glimpses"]}}
    (tmp_path / "trial.yaml").write_text(yaml.safe_dump(plan))
    page = run_in(tmp_path, "cost").read_text()
    assert "1,234,567" in page
    assert "ms per image, training, 50 objects" in page
    assert "125.0" in page
    for record in records_of(tmp_path, "cost"):
        assert [cost["objects"] for cost in record["cost"]["costs"]] == [5, 5, 50, 50]


def test_without_time_nothing_is_begun(place: Path, tmp_path: Path) -> None:
    (tmp_path / "trial.yaml").write_text((place / "trial.yaml").read_text())
    with pytest.raises(OutOfTime):
        run_in(tmp_path, minutes=0)
    assert not (tmp_path / "runs").exists()


def test_other_data_in_the_place_of_a_runs_are_noticed(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_file = run_folder(place, "ssdir-0") / "data.json"
    kept = data_file.read_text()
    data_file.write_text(json.dumps({"fingerprint": "another"}))
    try:
        with pytest.raises(InputError, match="trained on other data"):
            run_in(place, "scale")
    finally:
        data_file.write_text(kept)


def ssdir(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["reproduce", *map(str, arguments)])


def test_the_command_lists_what_it_would_do(place: Path, tmp_path: Path) -> None:
    listed = ssdir("all", "--scale", place / "trial.yaml", "--runs", tmp_path / "none", "--dry-run")
    assert listed.exit_code == 0
    assert "4 trainings" in listed.output
    assert "clevr is left out" in listed.output
    assert not (tmp_path / "none").exists()
    done = ssdir("scale", "--scale", place / "trial.yaml", "--runs", place / "runs", "--dry-run")
    assert "2 trainings, 0.0 s to go" in done.output
    as_json = ssdir("all", "--scale", place / "trial.yaml", "--runs", tmp_path / "none", "--dry-run", "--json")
    content = json.loads(as_json.stdout)
    assert sum(run["trainings"] for run in content["runs"]) == 4
    assert any("clevr" in sentence for sentence in content["left_out"])
    alone = ssdir("all", "--scale", place / "trial.yaml", "--json")
    assert alone.exit_code == 2
    assert "--dry-run" in alone.output


def test_the_exit_code_and_message_state_how_the_command_ends(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = ["--scale", place / "trial.yaml", "--runs", tmp_path / "runs", "--out", tmp_path / "out"]
    late = ssdir("scale", *places, "--minutes", 0)
    assert late.exit_code == 3
    assert "continue with the same command" in late.stderr
    monkeypatch.setattr(runner, "write_scatter", interrupted_at(1, KeyboardInterrupt))
    assert ssdir("scale", *places).exit_code == 130
    for name, sentence in (("scales", "did you mean 'scale'"), ("cost", "has no experiment 'cost'")):
        refused = ssdir(name, *places)
        assert refused.exit_code == 2
        assert sentence in refused.stderr
