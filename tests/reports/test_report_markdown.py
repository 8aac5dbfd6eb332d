"""A report as Markdown has the content of its page."""

from __future__ import annotations

import pytest

from ssdir.reports.markdown import markdown
from ssdir.reports.report import Command, Details, Figure, Report, Row, RowGroup, Section, Table

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01"


def of(section: Section) -> str:
    return markdown(Report("Title", "Lead.", [("0.9", "a | b")], None, [section]))


def test_everything_is_there() -> None:
    table = Table(["", "x", "y"], [RowGroup("Group", [Row("a|b", "", ["1", "2"])])], "Below.")
    figure = Figure(PNG, "what is seen", "what to look for", name="picture")
    assert of(Section("One", ["First.", "Second*."], table, [figure], [Details("More", "a: 1")])) == (
        "# Title\n\nLead.\n\n- a \\| b: **0.9**\n\n## One\n\nFirst.\n\nSecond\\*.\n\n"
        "|  | x | y |\n|---|---:|---:|\n| **Group** |  |  |\n| a\\|b | 1 | 2 |\n\nBelow.\n\n"
        "![what is seen](figures/picture.png)\n\n*what to look for*\n\nMore:\n\n```\na: 1\n```\n"
    )


def test_notes_are_below_labels() -> None:
    table = Table(
        ["", "x"], [RowGroup("", [Row("SSDIR", "2 of 3 trainings*", ["1|2"]), Row("pooled", "", ["3"])])]
    )
    text = of(Section("One", table=table))
    assert "| SSDIR<br>*2 of 3 trainings\\** | 1\\|2 |\n| pooled | 3 |\n" in text


def test_commands_and_the_appendix_follow() -> None:
    steps = Section("Next", commands=[Command("Look at it.", "ssdir studio a_b")])
    text = markdown(Report("Title", "Lead.", [], None, [steps], [Section("Numbers", ["Many."])]))
    assert text == (
        "# Title\n\nLead.\n\n## Next\n\nLook at it.\n\n```\nssdir studio a_b\n```\n\n"
        "## Appendix\n\n### Numbers\n\nMany.\n"
    )


def test_pictures_need_names() -> None:
    with pytest.raises(ValueError, match="'One' has no name"):
        of(Section("One", figures=[Figure(PNG, "seen")]))
