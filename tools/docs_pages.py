"""Generates pages of the documentation from the package and its results; run by mkdocs-gen-files."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import click
import mkdocs_gen_files
from nbconvert import MarkdownExporter
from typer.cli import get_docs_for_click
from typer.main import get_command

from ssdir.cli import app
from ssdir.reports.glossary import GROUPS

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools"))  # mkdocs-gen-files runs this file without its folder on the path.
import config_reference  # noqa: E402

API = {
    "inference": (
        "Loading and encoding",
        [
            *(
                "ssdir.inference.predictor",
                "ssdir.encoding.encode",
                "ssdir.inference.reconstruct_to_file",
                "ssdir.inference.domain",
                "ssdir.models.catalogue",
            ),
            *("ssdir.store.objects_file", "ssdir.store.writer", "ssdir.store.convert"),
        ],
    ),
    "analysis": (
        "Search and analysis",
        [
            *("ssdir.analysis.search.index", "ssdir.analysis.search.query", "ssdir.analysis.classifier"),
            *(
                "ssdir.analysis.clusters",
                "ssdir.analysis.outliers",
                "ssdir.analysis.output",
                "ssdir.analysis.tracks",
            ),
        ],
    ),
    "objects": ("Objects", ["ssdir.objects", "ssdir.object_table"]),
    "models": (
        "Models",
        [
            *("ssdir.models.base", "ssdir.models.ssdir", "ssdir.models.glimpse_vae", "ssdir.models.detected.vae"),
            *(
                "ssdir.models.detector.ssd",
                "ssdir.models.detected.encoders",
                "ssdir.models.decoder",
                "ssdir.models.detected.consistency",
            ),
            *("ssdir.models.space.model", "ssdir.models.spair.model", "ssdir.models.pooled_features"),
        ],
    ),
    "ops": (
        "Operations",
        [
            f"ssdir.ops.{name}"
            for name in ("boxes", "anchors", "suppression", "glimpses", "pasting", "compositing")
        ],
    ),
    "evaluation": (
        "Evaluation",
        [
            *(f"ssdir.evaluation.{name}" for name in ("evaluate", "measure", "detection", "probing", "scale")),
            *(f"ssdir.evaluation.{name}" for name in ("segmentation", "tracking", "identity")),
        ],
    ),
    "tracking": (
        "Tracking",
        [
            *(f"ssdir.tracking.{name}" for name in ("track", "tracker", "options", "output", "occlusion")),
            *("ssdir.data.video", "ssdir.data.clips"),
        ],
    ),
    "training": ("Training", ["ssdir.training.recipe", "ssdir.training.fit"]),
}


API_LEAD = (
    "Functions and classes by module, from their docstrings. For a first example see "
    "[first objects](../first-objects.md#4-the-same-in-python)."
)


def main() -> None:
    """Writes the pages that are generated from the package and its results."""
    _write("index.md", _index())
    _write("changelog.md", _from_docs((ROOT / "CHANGELOG.md").read_text(encoding="utf-8")))
    _write("CITATION.cff", (ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    _write("metrics.md", _metrics())
    _write("config.md", config_reference.page())
    _write("commands.md", _commands())
    _write("models.md", _models())
    _copy(ROOT / "results" / "cpu", "report")
    _copy(ROOT / "results" / "paper", "report-paper")
    for notebook in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        _write_notebook(notebook)
    for name, (title, modules) in API.items():
        _write(f"api/{name}.md", "\n\n".join([f"# {title}", API_LEAD, *(f"::: {module}" for module in modules)]))


def _index() -> str:
    """Returns the README with links that start from the documents' folder."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = _from_docs(text).replace("](CHANGELOG.md)", "](changelog.md)")
    return f"---\nhide: [navigation]\n---\n\n{text}"


def _from_docs(text: str) -> str:
    """Returns a text of the repository's root with links that start from the documents' folder."""
    return re.sub(r"\]\(docs/", "](", text)


def _commands() -> str:
    """Returns the page of commands with the help of each, under a heading."""
    command = get_command(app)
    text = get_docs_for_click(obj=command, ctx=click.Context(command), name="ssdir", title="Commands")
    lead = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    text = re.sub(r"^# Commands\n", "", text, flags=re.MULTILINE)
    return lead + "\n" + _whole_summaries(command, "ssdir", text)


def _whole_summaries(group: Any, path: str, text: str) -> str:
    """Writes each command's whole first paragraph in the lists of commands, where Typer cuts it, and links it."""
    for name, command in group.commands.items():
        words = f"{path} {name}"
        summary = " ".join((command.help or "").partition("\n\n")[0].split())
        cut = f"* `{name}`: {command.get_short_help_str()}"
        text = text.replace(cut, f"* [`{words}`](#{words.replace(' ', '-')}): {summary}")
        if hasattr(command, "commands"):
            text = _whole_summaries(command, words, text)
    return text


def _write_notebook(path: Path) -> None:
    """Writes a notebook as a page with its stored outputs; nothing is run."""
    text, resources = MarkdownExporter().from_filename(str(path))
    _write(f"notebooks/{path.stem}.md", text.replace(".ipynb)", ".md)"))
    for name, picture in resources["outputs"].items():
        with mkdocs_gen_files.open(f"notebooks/{name}", "wb") as page:
            page.write(picture)


def _metrics() -> str:
    lines = [
        "# Metrics",
        "",
        "After this page you know what each number of `ssdir evaluate` and `ssdir reproduce` means. Names are",
        "those of their JSON.",
    ]
    for group in GROUPS:
        lines += ["", f"## {group.title}", "", "| name | | what it means |", "|---|---|---|"]
        lines += [f"| `{metric.name}` | {metric.label} | {metric.meaning} |" for metric in group.metrics]
    return "\n".join(lines)


def _models() -> str:
    cards = sorted((ROOT / "src" / "ssdir" / "weights").glob("*/README.md"))
    lead = (
        "# Shipped models\n\nAfter this page you know what each model that ships was trained on, what it is for, "
        "and how good it is. `ssdir.load(NAME)` loads it."
    )
    return "\n\n".join([lead, *(re.sub(r"^#", "##", card.read_text(encoding="utf-8")) for card in cards)])


def _copy(report: Path, folder: str) -> None:
    """Copies the report that `ssdir reproduce` wrote, with its figures."""
    _write(f"{folder}/index.md", (report / "report.md").read_text(encoding="utf-8"))
    for figure in sorted((report / "figures").glob("*.png")):
        with mkdocs_gen_files.open(f"{folder}/figures/{figure.name}", "wb") as page:
            page.write(figure.read_bytes())


def _write(name: str, text: str) -> None:
    with mkdocs_gen_files.open(name, "w") as page:
        page.write(text + "\n")


main()
