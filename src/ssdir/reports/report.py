"""A report that is one HTML file: pictures inside, no script, nothing fetched."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib import resources
from typing import Any

from ssdir.reports.glossary import GROUPS, MISSING, MetricGroup

_PNG_SIGNATURE, _PNG_HEADER_BYTES = b"\x89PNG\r\n\x1a\n", 24
# `calendar` has the names in the language of the process.
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """A picture with a caption.

    Attributes:
        png: the picture.
        alt: description for readers who can't see it.
        caption: text below it.
        scale: pixels of the picture for each pixel of the page; 2 is sharp on dense screens.
        wide: whether it scrolls in narrow windows instead of shrinking beyond recognition.
        name: name of its file, without `.png`, in documents that keep their pictures beside them.
    """

    png: bytes
    alt: str
    caption: str = ""
    scale: float = 1.0
    wide: bool = False
    name: str = ""

    @property
    def width(self) -> int:
        """Width on the page, in CSS pixels."""
        return round(_png_size(self.png)[0] / self.scale)

    @property
    def height(self) -> int:
        """Height on the page, in CSS pixels."""
        return round(_png_size(self.png)[1] / self.scale)

    @property
    def source(self) -> str:
        """The picture as a data URL."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


@dataclass(frozen=True)
class Row:
    """A row of a table: a label, a note on it, and the values."""

    label: str
    note: str
    values: Sequence[str]


@dataclass(frozen=True)
class RowGroup:
    """Rows under a common title, which may be empty."""

    title: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        header: titles of all columns, that of the labels first.
        groups: its rows.
        caption: text below it.
    """

    header: Sequence[str]
    groups: Sequence[RowGroup]
    caption: str = ""

    @property
    def measured(self) -> list[RowGroup]:
        """The groups without rows of nothing but dashes, and without groups of such rows alone."""
        groups = [
            RowGroup(group.title, [row for row in group.rows if {*row.values} != {MISSING}])
            for group in self.groups
        ]
        return [group for group in groups if group.rows]


@dataclass(frozen=True)
class Details:
    """Preformatted text, folded under a summary."""

    summary: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command for a terminal, and a sentence on what it does."""

    about: str
    command: str


@dataclass(frozen=True)
class Section:
    """A section: paragraphs, then a table, then figures, then details, then commands."""

    title: str
    text: Sequence[str] = ()
    table: Table | None = None
    figures: Sequence[Figure] = ()
    details: Sequence[Details] = ()
    commands: Sequence[Command] = ()


@dataclass(frozen=True)
class Report:
    """A whole report.

    Attributes:
        title: title of the page, see `dated`.
        lead: what the report is about, in a sentence or two.
        headline: the few numbers that matter: (value, label).
        hero: the picture below them.
        sections: everything else that most readers want.
        appendix: sections that few readers want, folded at the end.
    """

    title: str
    lead: str
    headline: Sequence[tuple[str, str]]
    hero: Figure | None
    sections: Sequence[Section]
    appendix: Sequence[Section] = ()

    def html(self) -> str:
        """Renders the page: self-contained, all text escaped."""
        from jinja2 import Environment, StrictUndefined

        environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        template = resources.files("ssdir.reports").joinpath("report.html.j2").read_text(encoding="utf-8")
        return environment.from_string(template).render(report=self)


def dated(subject: str, day: date | None = None) -> str:
    """Returns the title of a report: product, subject and date, by default of today."""
    day = day or date.today()
    return f"ssdir: {subject}, {day.day} {_MONTHS[day.month - 1]} {day.year}"


def metrics_table(
    metrics: Mapping[str, float | None],
    groups: Sequence[MetricGroup] = GROUPS,
    *,
    paper: bool = True,
    caption: str = "",
) -> Table:
    """Builds a table of metrics with their meaning, and beside them the paper's.

    Args:
        metrics: values by the names of `evaluate`.
        groups: the metrics to show; those without a value are left out (masks, where the data have none).
        paper: adds the paper's column.
        caption: text below the table.
    """
    row_groups = [
        RowGroup(
            group.title,
            [
                Row(metric.label, metric.meaning, [metric.value(metrics)] + [metric.paper] * paper)
                for metric in group.metrics
                if metric.value(metrics) != MISSING
            ],
        )
        for group in groups
    ]
    row_groups = [group for group in row_groups if group.rows]
    return Table(["metric", "this model"] + ["paper"] * paper, row_groups, caption)


def facts_table(facts: Mapping[str, Any]) -> Table:
    """Builds a table of names and values; those that are None are left out."""
    rows = [Row(name, "", [str(value)]) for name, value in facts.items() if value is not None]
    return Table([], [RowGroup("", rows)])


def is_png(picture: bytes) -> bool:
    """Returns whether bytes begin as a PNG does, up to its width and height."""
    return len(picture) >= _PNG_HEADER_BYTES and picture.startswith(_PNG_SIGNATURE)


def _png_size(png: bytes) -> tuple[int, int]:
    """Reads width and height in pixels from the header."""
    if not is_png(png):
        raise ValueError("expected a PNG, got other bytes")
    width, height = struct.unpack(">II", png[16:24])
    return width, height
