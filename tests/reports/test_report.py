"""The report's page is well-formed, self-contained and escaped, and states what is missing."""

from __future__ import annotations

import base64
import re
from datetime import date
from html.parser import HTMLParser

import numpy as np
import pytest

from ssdir.plots import to_png
from ssdir.reports.glossary import GROUPS, Metric
from ssdir.reports.markdown import markdown
from ssdir.reports.report import (
    Command,
    Details,
    Figure,
    Report,
    Row,
    RowGroup,
    Section,
    Table,
    dated,
    facts_table,
    metrics_table,
)

VOID = {"meta", "img", "br", "link"}
PNG = to_png(np.zeros((30, 60, 3), dtype=np.uint8))


class Page(HTMLParser):
    """A parser that checks nesting, and keeps the elements and their text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[list[str]] = []
        self.within: dict[str, list[str]] = {}
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
        if data.strip():
            self.within.setdefault(data.strip(), list(self.open))
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


def test_pictures_have_sizes_and_alternative_texts() -> None:
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


def test_metrics_that_were_not_measured_are_left_out() -> None:
    values = {"probe/accuracy": 0.9, "probe/f1": float("nan"), "reconstruction/mse": None, "masks/miou": 0.5}
    page = report(Section("Numbers", table=metrics_table(values)))
    labels = [cells[0] for cells in page.cells if len(cells) > 1]
    assert [label.split("\n")[0] for label in labels][1:] == ["mIoU", "Accuracy"]
    assert "–" not in page.text
    assert "Reconstruction" not in page.text


def test_the_papers_column_may_be_left_out() -> None:
    page = report(Section("Numbers", table=metrics_table({"reconstruction/psnr": 19.34}, paper=False)))
    assert page.row("PSNR") == ["19.3\u00a0dB"]


def test_rows_of_nothing_but_dashes_are_left_out() -> None:
    rows = [Row("some", "", ["–", "1"]), Row("none", "", ["–", "–"])]
    table = Table(["", "a", "b"], [RowGroup("Both", rows), RowGroup("Nothing", rows[1:])])
    section = Section("Numbers", table=table)
    assert report(section).cells == [["", "a", "b"], ["Both"], ["some", "–", "1"]]
    text = markdown(Report("Title", "Lead.", [], None, [section]))
    assert "some" in text
    assert "none" not in text
    assert "Nothing" not in text


def test_missing_facts_are_left_out() -> None:
    assert report(Section("Facts", table=facts_table({"seed": 0, "device": None}))).cells == [["seed", "0"]]


def test_a_title_has_product_subject_and_date() -> None:
    assert dated("digits", date(2026, 11, 9)) == "ssdir: digits, 9 November 2026"
    assert dated("digits").endswith(f" {date.today().year}")


def test_numbers_come_first_and_the_appendix_last_and_folded() -> None:
    sections, appendix = [Section("Pictures", figures=[Figure(PNG, "seen")])], [FULL]
    text = Report("Title", "Lead.", [("0.9", "accuracy")], Figure(PNG, "hero"), sections, appendix).html()
    order = [text.index(part) for part in ("0.9</dd>", 'alt="hero"', "Pictures</h2>", "Appendix</h2>", "0.9312")]
    assert order == sorted(order)
    page = Page(text)
    assert "details" in page.within["0.9312 ±\u00a00.0021"]
    assert "details" not in page.within["Pictures"]


def test_commands_can_be_copied() -> None:
    page = report(Section("Next", commands=[Command("Open it.", "ssdir studio 'a b'")]))
    assert page.within["ssdir studio 'a b'"][-1] == "pre"
    assert "Open it." in page.text


def test_wide_elements_scroll_on_their_own() -> None:
    """On a narrow screen, a table or a chart scrolls; the page itself stays as wide as the screen."""
    text = html(FULL, hero=Figure(PNG, "hero", wide=True))
    scrolling = re.search(r"^(.*) \{ overflow-x: auto; \}", text, re.M)
    assert scrolling is not None
    around = re.findall(r'<div class="(\w+)"[^>]*><(?:img|table)', text.replace(">\n<", "><"))
    assert len(around) == 4
    assert {f".{name}" for name in around} <= set(scrolling[1].split(", "))


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
