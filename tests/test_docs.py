"""The generated tables of README and docs are those of the committed results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ssdir.config import presets
from ssdir.reproduce.photos.embedders import embedders
from ssdir.reproduce.plan import read_plan
from ssdir.training.recipe import Recipe

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "ssdir"
OF_USERS = ("annotations/", "check/", "detector/", "objects/", "results/SCALE/", "scenes/")
"""Folders of data sets and runs, which pages name as well."""
PAGES_WITH_KEYS = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.stem != "lab-notebook"),
]
"""The lab notebook names keys in short, and may name some that are gone."""


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import docs_tables

    return docs_tables


@pytest.fixture
def writing(tables: Any) -> Any:
    """Returns the module that writes tables; it needs `tables`, which puts the module's folder on the path."""
    import docs_writing

    return docs_writing


@pytest.fixture
def reader(tables: Any) -> Any:
    """Returns the module that reads results; it needs `tables` likewise."""
    import docs_records

    return docs_records


def test_tables_are_those_of_the_results(tables: Any) -> None:
    stale = [path.name for path in tables.PAGES if tables.rewritten(text := path.read_text("utf-8")) != text]
    assert stale == [], "run make docs-tables"


def test_tables_name_runs_that_the_plan_measures() -> None:
    plan = read_plan("cpu")
    text = (ROOT / "tools" / "docs_tables.yaml").read_text(encoding="utf-8")
    named = set(re.findall(r"cpu/([\w-]+):([\w-]+)", text))
    assert len(named) > 50
    assert sorted(pair for pair in named if pair[1] not in plan.experiments.get(pair[0], ())) == []


def test_times_of_photographs_are_ratios_of_the_same_rounds() -> None:
    """Milliseconds of different rows were measured at different times."""
    assert not re.findall(r"time/\d+/ms", (ROOT / "tools" / "docs_tables.yaml").read_text(encoding="utf-8"))


def test_every_table_has_one_place(tables: Any) -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in tables.PAGES)
    names = [match["name"] for match in tables.BLOCK.finditer(text)]
    assert sorted(names) == sorted(tables.TABLES)
    assert text.count("<!-- table: ") == text.count("<!-- end -->") == len(names)


def test_a_missed_goal_is_written_with_its_distance(writing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "measured", lambda source: {"m": 0.75})
    assert writing.goal_cells("file m >= 0.7") == ["≥ 0.7", "0.750", "met"]
    assert writing.goal_cells("file:run m .1 <= 0.5") == ["≤ 0.5", "0.8", "**missed** by 0.2"]
    assert writing.goal_cells("file m >= 0.80") == ["≥ 0.80", "0.750", "**missed** by 0.050"]


@pytest.fixture
def trial(writing: Any, reader: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Makes tables of other results: trainings by the current plan, and one by an earlier plan."""
    settings = reader.cpu_settings()["ssdir"]
    earlier = settings | {"train_images": settings["train_images"] - 1}
    records = [
        {
            "group": group,
            "metrics": {"m": value, "none": None},
            "provenance": {"wall_seconds": 1.0, "config": {"measure": measure}},
        }
        for group, value, measure in (
            ("ssdir", 0.5, settings),
            ("partly", 0.5, settings),
            ("partly", None, settings),
            ("ssdir", 0.7, settings),
            ("glimpses", 0.9, earlier),
        )
    ]
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "trial.json").write_text(json.dumps({"left_out": [], "records": records}))
    reader.content.cache_clear()
    monkeypatch.setattr(reader, "RESULTS", tmp_path)
    yield writing
    reader.content.cache_clear()


def test_what_is_not_measured_by_todays_plan_is_named_instead(trial: Any) -> None:
    models = {
        "ours": ["cpu/trial:ssdir", "cpu/absent:ssdir"],
        "theirs": ["cpu/trial:glimpses", "published:SSDIR"],
        "absent": "cpu/absent:ssdir",
        "typed": {"m": 1},
        "typed ": {"m": 2},
    }
    text = trial.models_by_metrics("models", models, {"M": "m .2 ±", "other": "none"})
    assert text.splitlines()[2:] == [
        "| ours | 0.60 ±\u00a00.10 | – |",
        "| typed | 1.00 | – |",
        "| typed | 2.00 | – |",
        "",
        "Not measured yet: theirs; absent.",
    ]
    columns = trial.models_by_metrics("metrics", models, {"M": "m"}).splitlines()
    assert columns[0] == "| | ours | typed | typed |"
    assert columns[2] == "| M | 0.600 | 1.000 | 2.000 |"
    assert trial.models_by_metrics("models", {"absent": "cpu/absent:a"}, {"M": "m"}) == "Not measured yet: absent."


def test_a_figure_says_how_many_trainings_have_a_value(
    trial: Any, reader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dict.fromkeys(("ssdir", "partly"), reader.cpu_settings()["ssdir"])
    monkeypatch.setattr(reader, "cpu_settings", lambda: settings)
    assert trial.figure(trial.measured("cpu/trial:partly"), "m ±") == "0.500 (1 of 2)"
    assert trial.figure(trial.measured(["cpu/trial:ssdir", "published:SSDIR"]), "m") == "0.600"


def test_a_goal_may_be_another_models_figure_less_its_deviation(trial: Any) -> None:
    assert trial.goal_cells("cpu/trial:ssdir m >= 0.6") == ["≥ 0.6", "0.600 ±\u00a00.100", "met"]
    assert trial.goal_cells("cpu/trial:ssdir m .2 >= cpu/trial:ssdir - ±") == ["≥ 0.50", "0.60 ±\u00a00.10", "met"]
    assert trial.goal_cells("cpu/trial:ssdir m >= cpu/trial:glimpses - ±") == ["≥ –", "0.600", "not measured yet"]
    assert trial.goal_cells("cpu/trial:glimpses m >= 0.6") == ["≥ 0.6", "–", "not measured yet"]


def test_tables_of_clips_have_the_population_deviation_as_all_others(tables: Any) -> None:
    assert tables.docs_clips.spread([0.4, 0.6], 2) == "0.50 ± 0.10"
    assert tables.docs_clips.spread([0.4]) == "0.400"


def test_published_figures_are_those_of_the_package(trial: Any) -> None:
    metrics = trial.measured(["published:SPACE"])
    assert trial.figure(metrics, "published/accuracy .4 ±") == "0.2121 ±\u00a00.0432"
    assert trial.figure(metrics, "published/mse/clevr .5 ±") == "0.02803"
    named = trial.measured("published:SPAIR/digits")
    assert trial.figure(named, "probe/largest_overlap/accuracy .4") == "0.1919"
    assert trial.figure(named, "reconstruction/mse .5") == "0.00356"
    assert trial.is_measured("published:SPAIR/digits")


def test_rows_of_photographs_are_means_over_seeds_with_models_first(
    writing: Any, reader: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    for group, seed, value in (
        ("untrained", 0, 0.2),
        ("untrained", 1, 0.4),
        ("crops-224", 0, 0.8),
        ("ours", 0, 0.9),
    ):
        record = {"group": group, "metrics": {"m": value}, "provenance": {"wall_seconds": 1}}
        (tmp_path / "photos" / f"data-{group}-{seed}.json").write_text(json.dumps(record))
    monkeypatch.setattr(reader, "RESULTS", tmp_path)
    rows = writing.photographs("data", {"accuracy": "m .1 ±", "other": "n"}).splitlines()[2:]
    assert rows == ["| ours | 0.9 | – |", "| crops-224 | 0.8 | – |", "| untrained | 0.3 ±\u00a00.1 | – |"]


def test_rows_of_photographs_are_those_of_the_package(writing: Any) -> None:
    assert list(dict.fromkeys(each.name for each in embedders())) == list(writing.WITHOUT_A_MODEL)


def test_a_page_lists_every_preset() -> None:
    every = (ROOT / "docs" / "presets.md").read_text("utf-8").partition("## Every preset")[2]
    assert sorted(re.findall(r"^\| `([a-z0-9-]+)` \|", every, re.MULTILINE)) == presets()


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.stem)
def test_files_that_a_page_names_exist(page: Path) -> None:
    """A path such as `ops/boxes.py` in a page is a file of the package, or of the repository."""
    named = re.findall(r"`([\w/-]+/[\w.-]*\.(?:py|json|yaml))`", page.read_text(encoding="utf-8"))
    of_the_repository = [name for name in named if "/" in name and not name.startswith(OF_USERS)]
    assert [name for name in of_the_repository if not any((at / name).exists() for at in (ROOT, PACKAGE))] == []


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.stem
)
def test_lines_of_prose_have_at_most_120_characters(page: Path) -> None:
    """Lines of tables, code and formulas may be longer."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    lines = [line for line in text.splitlines() if not line.startswith(("|", "$$"))]
    assert [line for line in lines if len(line) > 120] == []


@pytest.mark.parametrize("page", PAGES_WITH_KEYS, ids=lambda page: page.stem)
def test_keys_that_a_page_names_are_keys_of_recipes(tables: Any, page: Path) -> None:
    """Keys such as `model.ssd.refiner` and `model.consistency.views=2` are whole, so that a command takes them."""
    import config_reference

    keys = {
        f"{path}.{name}".lstrip(".") for path, part in config_reference.walk(Recipe) for name in part.model_fields
    }
    sections = {part for key in keys for part in key.split(".")[:-1]}
    named = re.findall(r"`([a-z_]+)(\.(?!safetensors|py)[a-z_.]+)[=:`]", page.read_text(encoding="utf-8"))
    assert len(sections) > 10
    assert [section + rest for section, rest in named if section in sections and section + rest not in keys] == []


@pytest.mark.slow
def test_the_quick_start_of_the_readme_prints_the_stated_output(capsys: pytest.CaptureFixture[str]) -> None:
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    stated = re.findall(r"^print.*\n# (.*)$", block[1], re.MULTILINE)
    exec(compile(block[1], "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert stated
    assert [re.sub(r"\d\.\d+", "#", line) for line in printed] == [
        re.sub(r"\d\.\d+", "#", line) for line in stated
    ]
    for shown, line in zip(stated, printed, strict=True):
        numbers = [[float(number) for number in re.findall(r"\d\.\d+", text)] for text in (shown, line)]
        assert numbers[0] == pytest.approx(numbers[1], abs=0.02)
