"""Links of the documents to what the site has pages of: as files they lead somewhere in the repository too."""

from __future__ import annotations

from typing import Any

PAGES = {
    "../results/cpu/report.md": "report/index.md",
    "../results/paper/report.md": "report-paper/index.md",
    "../src/ssdir/reports/glossary.py": "metrics.md",
    "../src/ssdir/weights": "models.md",
}
"""What a document links to, and the page that `docs_pages.py` makes of it."""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs calls this with each page's text."""
    for file, page in PAGES.items():
        markdown = markdown.replace(f"]({file}", f"]({page}")
    return markdown
