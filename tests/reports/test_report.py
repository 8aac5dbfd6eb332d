"""The page: whole, self-contained, escaped, and honest about what is missing."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from ssdir.plots import to_png
from ssdir.reports.glossary import GROUPS, Metric
from ssdir.reports.report import Details, Figure, Report, Section, facts_table, metrics_table

VOID = {"meta", "img", "br", "link"}
PNG = to_png(np.zeros((30, 60, 3), dtype=np.uint8))


class Page(HTMLParser):
    """Checks nesting; keeps the elements and their text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[list[str]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.cells.append([])
        if tag in ("th", "td"):
            self.cells[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "pre"} & set(self.open):
            self.text += data
        if self.open and self.open[-1] in ("th", "td"):
            self.cells[-1][-1] += data

    def row(self, label: str) -> list[str]:
        return next(cells[1:] for cells in self.cells if cells[0] == label)


def report(*sections: Section, title: str = "Title", hero: Figure | None = None) -> Page:
    return Page(html(*sections, title=title, hero=hero))


def html(*sections: Section, title: str = "Title", hero: Figure | None = None) -> str:
    return Report(title, "Lead.", [("0.9", "accuracy")], hero, sections).html()


FULL = Section(
    "Section",
    ["A paragraph."],
    metrics_table({"probe/accuracy": 0.93119, "probe/accuracy_std": 0.00206}, caption="Caption."),
    [Figure(PNG, "black", "A caption.", scale=2), Figure(PNG, "black", wide=True)],
    [Details("The configuration", "seed: 0")],
)


def test_the_page_is_well_formed_and_has_everything() -> None:
    page = report(FULL, hero=Figure(PNG, "hero"))
    for text in ("Title", "Lead.", "Section", "A paragraph.", "Caption.", "A caption.", "The configuration"):
        assert text in page.text
    assert sum(tag == "h2" for tag, _ in page.elements) == 1


def test_nothing_is_fetched() -> None:
    text = html(FULL, hero=Figure(PNG, "hero"))
    page = Page(text)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.elements}
    assert not re.search(r"https?:|@import|url\(", text)
    links = [value for _, attrs in page.elements for name, value in attrs.items() if name in ("src", "href")]
    assert len(links) == 3
    for link in links:
        assert link is not None
        scheme, data = link.split(",")
        assert scheme == "data:image/png;base64"
        assert base64.b64decode(data, validate=True) == PNG


def test_pictures_have_sizes_and_are_described() -> None:
    page = report(FULL)
    images = [attrs for tag, attrs in page.elements if tag == "img"]
    assert [(image["width"], image["height"]) for image in images] == [("30", "15"), ("60", "30")]
    assert all(image["alt"] for image in images)


def test_text_is_escaped() -> None:
    bad = '<script>alert("&")</script>'
    page = report(
        Section(bad, [bad], facts_table({bad: bad}), [Figure(PNG, bad, bad)], [Details(bad, bad)]), title=bad
    )
    assert "script" not in {tag for tag, _ in page.elements}
    assert page.text.count(bad) == 8  # title twice, heading, paragraph, two cells, caption, summary
    assert [attrs["alt"] for tag, attrs in page.elements if tag == "img"] == [bad]


def test_metrics_stand_beside_the_papers() -> None:
    page = report(FULL)
    assert page.row("Accuracy") == ["0.9312 ±\u00a00.0021", "0.9789 ±\u00a00.0016"]
    assert page.row("F1") == ["–", "0.9786 ±\u00a00.0016"]
    assert page.row("Accuracy of nearest neighbours") == ["–", ""]


def test_the_papers_column_may_be_left_out() -> None:
    page = report(Section("Numbers", table=metrics_table({"reconstruction/psnr": 19.34}, paper=False)))
    assert page.row("PSNR") == ["19.3\u00a0dB"]


def test_groups_that_were_not_measured_are_left_out() -> None:
    page = report(Section("Numbers", table=metrics_table({"masks/miou": 0.5})))
    assert page.row("mIoU")[0] == "0.500"
    assert page.row("FG-ARI")[0] == "–"
    assert "Segmentation by opacity" in page.text
    assert "Accuracy of shapes" not in page.text


def test_missing_facts_are_dashes() -> None:
    assert report(Section("Facts", table=facts_table({"seed": 0, "device": None}))).row("device") == ["–"]


@pytest.mark.parametrize(
    ("metric", "metrics", "text"),
    [
        (Metric("a", "A"), {}, "–"),
        (Metric("a", "A"), {"a": 0.0}, "0.000"),
        (Metric("a", "A", spec=".1f", unit="dB"), {"a": 20.06}, "20.1\u00a0dB"),
        (Metric("a", "A"), {"a": 0.5, "a_std": 0.01}, "0.500 ±\u00a00.010"),
    ],
)
def test_values_are_written_for_reading(metric: Metric, metrics: dict[str, float], text: str) -> None:
    assert metric.value(metrics) == text


def test_no_metric_is_explained_twice() -> None:
    names = [metric.name for group in GROUPS for metric in group.metrics]
    assert len(names) == len(set(names))


def test_only_pngs_are_pictures() -> None:
    with pytest.raises(ValueError, match="PNG"):
        html(Section("Section", figures=[Figure(b"GIF89a", "no")]))
