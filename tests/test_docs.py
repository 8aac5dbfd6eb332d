"""The generated tables of README and docs are those of the committed results."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ssdir.config import presets

ROOT = Path(__file__).parent.parent


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import docs_tables

    return docs_tables


def test_tables_are_those_of_the_results(tables: Any) -> None:
    stale = [path.name for path in tables.PAGES if tables.rewritten(text := path.read_text("utf-8")) != text]
    assert stale == [], "run make docs-tables"


def test_every_table_has_one_place(tables: Any) -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in tables.PAGES)
    names = [match["name"] for match in tables.BLOCK.finditer(text)]
    assert sorted(names) == sorted(tables.TABLES)
    assert text.count("<!-- table: ") == text.count("<!-- end -->") == len(names)


def test_a_missed_goal_is_said_with_its_distance(tables: Any) -> None:
    assert tables.goal_row("AP50", ("≥", 0.9, 0.95)) == ["AP50", "≥ 0.9", "0.950", "met"]
    row = ["size, shape", "≥ 0.9, 0.8", "0.890, 0.850", "**missed** by 0.010"]
    assert tables.goal_row("size, shape", ("≥", 0.9, 0.89), ("≥", 0.8, 0.85)) == row
    assert tables.verdict([("≤", 0.5, 0.75)]) == "**missed** by 0.250"


def test_readme_lists_every_preset() -> None:
    listed = re.findall(r"^\| `([a-z0-9-]+)` \|", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == presets()
