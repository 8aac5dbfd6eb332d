"""A report as Markdown, with its pictures beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ssdir.reports.report import Report, Row, Section, Table

FIGURES = "figures"
"""Name of the folder of pictures beside the document."""

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#])")


def markdown(report: Report) -> str:
    """Formats a report as Markdown, which refers to pictures by their names in `figures/`.

    Raises:
        ValueError: if a figure has no name.
    """
    parts = [f"# {_escaped(report.title)}", _escaped(report.lead)]
    if report.headline:
        parts.append("\n".join(f"- {_escaped(name)}: **{_escaped(value)}**" for value, name in report.headline))
    for section in report.sections:
        parts += _section(section, "##")
    if report.appendix:
        parts.append("## Appendix")
    for section in report.appendix:
        parts += _section(section, "###")
    return "\n\n".join(parts) + "\n"


def _section(section: Section, level: str) -> list[str]:
    parts = [f"{level} {_escaped(section.title)}", *map(_escaped, section.text)]
    if section.table is not None:
        parts += _table(section.table)
    for figure in section.figures:
        if not figure.name:
            raise ValueError(f"a figure of '{section.title}' has no name to refer to it by")
        parts.append(f"![{_escaped(figure.alt)}]({FIGURES}/{figure.name}.png)")
        if figure.caption:
            parts.append(f"*{_escaped(figure.caption)}*")
    for details in section.details:
        parts.append(f"{_escaped(details.summary)}:\n\n```\n{details.text}\n```")
    for command in section.commands:
        parts.append(f"{_escaped(command.about)}\n\n```\n{command.command}\n```")
    return parts


def _table(table: Table) -> list[str]:
    width = max([len(table.header), *(1 + len(row.values) for group in table.measured for row in group.rows)])
    header = [*table.header, *[""] * (width - len(table.header))]
    lines = [_line(header), "|" + "---|" + "---:|" * (width - 1)]
    for group in table.measured:
        if group.title:
            lines.append(_line([f"**{_escaped(group.title)}**", *[""] * (width - 1)], escape=False))
        lines += [_line([_label(row), *map(_escaped, row.values)], escape=False) for row in group.rows]
    return ["\n".join(lines), *([_escaped(table.caption)] if table.caption else [])]


def _label(row: Row) -> str:
    """Returns the label of a row, with its note in the line below, as on the page."""
    return f"{_escaped(row.label)}<br>*{_escaped(row.note)}*" if row.note else _escaped(row.label)


def _line(cells: Sequence[str], *, escape: bool = True) -> str:
    return "| " + " | ".join(_escaped(cell) if escape else cell for cell in cells) + " |"


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text.replace("\n", " "))
