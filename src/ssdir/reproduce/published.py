"""Measured reconstruction errors beside those that the paper's authors published."""

from __future__ import annotations

from collections.abc import Sequence

from ssdir.reports.glossary import METRICS, MISSING
from ssdir.reports.paper import NOTEBOOK, RECONSTRUCTION, quoted
from ssdir.reports.report import Row, RowGroup, Section, Table
from ssdir.reproduce.records import Record, by_group

_ERROR = METRICS["reconstruction/mse"]


def reconstruction_section(records: Sequence[Record]) -> Section | None:
    """Builds the section on reconstruction errors of the authors' data sets; None where none is measured.

    Args:
        records: of all experiments; those of one training may repeat.
    """
    trainings = {record["run"]: record for record in records if record["metrics"].get(_ERROR.name) is not None}
    groups = []
    for data, theirs in RECONSTRUCTION.items():
        methods = by_group(record for record in trainings.values() if record["data"] == data)
        rows = []
        for method in methods:
            figure = theirs.get(method.first["model"])
            published = MISSING if figure is None else quoted(figure, 5)
            rows.append(Row(method.name, "", [method.text(_ERROR.name, ".5f"), published]))
        groups.append(RowGroup(data, rows))
    measured = [group for group in groups if group.rows]
    if not measured:
        return None
    text = (
        f"{_ERROR.label}, beside the authors' own figures, which the paper leaves out ({NOTEBOOK}). They state "
        "neither the scale of the intensities nor which pixels count, so the columns cannot be compared."
    )
    return Section("Reconstruction errors", [text], table=Table(["", "measured here", "the authors"], measured))
