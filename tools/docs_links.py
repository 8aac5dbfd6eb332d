"""Rewrites links to files of the repository that have a page on the site."""

from __future__ import annotations

from typing import Any

PAGES = {
    "../CITATION.cff": "CITATION.cff",
    "../results/cpu/report.md": "report/index.md",
    "../results/cpu/figures/": "report/figures/",
    "../results/paper/report.md": "report-paper/index.md",
    "../src/ssdir/reports/glossary.py": "metrics.md",
    "../src/ssdir/weights": "models.md",
    "../tools/config_reference.py": "config.md",
    "src/ssdir/weights": "models.md",
    "notebooks/a-data-set-of-objects.ipynb": "notebooks/a-data-set-of-objects.md",
    "notebooks/what-an-embedding-means.ipynb": "notebooks/what-an-embedding-means.md",
}
"""Files that documents link to, and the pages that `docs_pages.py` makes of them."""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs calls this with each page's text."""
    for file, page in PAGES.items():
        markdown = markdown.replace(f"]({file}", f"]({page}")
    return markdown
