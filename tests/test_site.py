"""The documentation builds without a warning, fetches nothing, and its commands exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from ssdir.cli import app
from ssdir.data.scatter.generator import ScatterConfig
from ssdir.data.scatter.writer import write_scatter

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds the documentation strictly, so that a broken link is an error."""
    folder = tmp_path_factory.mktemp("site")
    quiet = {"NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
    # Not --quiet: it hides the warnings that --strict counts.
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(build, cwd=ROOT, env={**os.environ, **quiet}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_every_page_is_reached_by_the_menu(site: Path) -> None:
    menu = (site / "index.html").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert f'href="{page.stem}/"' in menu, page.name


@pytest.mark.slow
def test_pages_fetch_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r'<(?:script|img|iframe)[^>]*\bsrc="([^"]+)"', text)
        fetched += re.findall(r'<link[^>]*rel="(?:stylesheet|icon|preconnect)"[^>]*href="([^"]+)"', text)
        assert not [url for url in fetched if url.startswith(("http:", "https:", "//"))], page


@pytest.mark.slow
def test_formulas_are_rendered(site: Path) -> None:
    page = (site / "how-it-works" / "index.html").read_text(encoding="utf-8")
    assert page.count("<math") > 10
    assert "arithmatex" not in page


@pytest.mark.slow
def test_pages_are_generated_from_the_package(site: Path) -> None:
    assert "detection/ap50" in (site / "metrics" / "index.html").read_text(encoding="utf-8")
    assert "tiny-mnist" in (site / "models" / "index.html").read_text(encoding="utf-8")
    assert "Ceiling: embeddings of the true boxes" in (site / "report" / "index.html").read_text(encoding="utf-8")
    assert "z_what_scale" in (site / "api" / "objects" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere_in_the_repository_too(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)", text)
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def commands_of(page: Path) -> list[list[str]]:
    """Returns the arguments of each `ssdir` in the page's blocks of shell."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ")
    return [shlex.split(command, comments=True) for command in re.findall(r"\bssdir ([^\n;&|]+)", lines)]


@pytest.mark.parametrize(
    ("page", "arguments"),
    [
        pytest.param(page, each, id=f"{page.stem}: {' '.join(each)}")
        for page in PAGES
        for each in commands_of(page)
    ],
)
def test_commands_of_the_documents_exist(page: Path, arguments: list[str]) -> None:
    command: Any = get_command(app)
    context = command.make_context("ssdir", list(arguments))
    while hasattr(command, "commands"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)


@pytest.mark.slow
def test_the_commands_of_the_page_on_own_data_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_scatter(Path("coco"), "digits", ScatterConfig(canvas=128, train=32, val=8, test=0))
    steps = [["data", "convert", "coco", "--to", "yolo", "--out", "photos"]]
    steps += commands_of(ROOT / "docs" / "your-data.md")
    assert len(steps) >= 6
    for arguments in steps:
        quick = ["detector.epochs=1", "representation.epochs=1"] if arguments[0] == "train" else []
        result = CliRunner().invoke(app, [*arguments, *quick])
        assert result.exit_code == 0, (arguments, result.output)
    assert Path("check").is_dir()
    assert Path("reconstructions.png").stat().st_size > 1000
    assert Path("metrics.json").exists()
    assert Path("objects.parquet").exists()
    assert Path("nearest.png").exists()


@pytest.mark.slow
def test_the_tutorial_prints_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers are left out, because they differ between machines."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import docs_outputs

    monkeypatch.chdir(tmp_path)
    shown = (ROOT / "docs" / "first-objects.md").read_text(encoding="utf-8")
    assert shown.count("```text") > 5
    printed = docs_outputs.run_page(shown, lambda output: output)
    assert docs_outputs.masked(printed) == docs_outputs.masked(shown), "run tools/docs_outputs.py"


def test_every_yes_in_the_comparison_has_a_page_or_a_command() -> None:
    table = (ROOT / "docs" / "compare.md").read_text(encoding="utf-8").partition("## Crops")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:2] == "| "
    ]
    features = rows[1:]
    assert len(features) > 15
    assert {len(row) for row in rows} == {len(rows[0])}
    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    for feature, ours, *_ in features:
        assert ours in ("–", "", "images with boxes") or re.search(r"\]\([\w./#-]+\)", ours), feature
        for command in re.findall(r"`ssdir (\w+)", ours):
            assert command in known, feature
