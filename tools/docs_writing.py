"""Writes tables of README and docs as Markdown: of metrics of models, of goals, and of photographs."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from docs_records import is_measured, measured, photographs_of

TABLES: dict[str, Callable[[], str]] = {}
"""Functions that return a table, by the name in its comment."""
WITHOUT_A_MODEL = (
    *("crops-224", "crops-128", "roi-align-384-3x3", "roi-align-256-3x3"),
    *("roi-align-384", "roi-align-320", "roi-align-256", "pixels", "untrained"),
)
"""Rows of the comparison of photographs that need no trained model, in their order."""


def generated(build: Callable[[], str]) -> Callable[[], str]:
    """Registers a table under the name of its function."""
    TABLES[build.__name__.replace("_", "-")] = build
    return build


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table; columns of numbers are aligned to the right."""
    columns = list(zip(*rows, strict=True))
    numeric = [all(re.match(r"[-±0-9]|$|–", cell) for cell in column) for column in columns]
    rule = ["---:" if right and index else "---" for index, right in enumerate(numeric)]
    return "\n".join(f"| {' | '.join(cells)} |".replace("  ", " ") for cells in (head, rule, *rows))


def figure(metrics: Mapping[str, float], quoted: str) -> str:
    """Returns a metric as text; a dash where the model does not have it.

    Where some of its trainings have no value, it ends with how many have one: `0.564 (2 of 3)`.

    Args:
        metrics: of the model.
        quoted: `NAME`, `NAME .DIGITS`, or either with ` ±`, for the deviation beside it where there is one.
    """
    asked = quoted.removesuffix(" ±")
    name, _, digits = asked.partition(" .")
    if name not in metrics:
        return "–"
    text = f"{metrics[name]:.{digits or 3}f}"
    if asked != quoted and f"± {name}" in metrics:
        # The space after the sign does not break, so that a narrow column has the deviation on a line of its own.
        text += f" ±\N{NO-BREAK SPACE}{metrics[f'± {name}']:.{digits or 3}f}"
    if f"with {name}" in metrics:
        text += f" ({metrics[f'with {name}']:.0f} of {metrics[f'all {name}']:.0f})"
    return text


def models_by_metrics(rows: str, models: Mapping[str, Any], metrics: Mapping[str, str]) -> str:
    """Returns a table of metrics of models, and below it which of them are not measured yet."""
    shown = [(label.strip(), measured(source)) for label, source in models.items() if is_measured(source)]
    missing = not_measured(label.strip() for label, source in models.items() if not is_measured(source))
    if not shown:
        return missing
    if rows == "metrics":
        cells = [[label, *(figure(source, quoted) for _, source in shown)] for label, quoted in metrics.items()]
        text = table(["", *(label for label, _ in shown)], cells)
    else:
        cells = [[label, *(figure(source, quoted) for quoted in metrics.values())] for label, source in shown]
        text = table(["", *metrics], cells)
    return f"{text}\n\n{missing}" if missing else text


def not_measured(labels: Iterable[str]) -> str:
    """Returns a sentence that names what is not measured yet; nothing where all is."""
    names = "; ".join(labels)
    return textwrap.fill(f"Not measured yet: {names}.", 120, break_long_words=False) if names else ""


def goals(goals: Mapping[str, str]) -> str:
    """Returns a table of goals, `MODEL METRIC >= GOAL`, each with what was measured and whether it is met."""
    return table(["", "goal", "measured", ""], [[label, *goal_cells(text)] for label, text in goals.items()])


def goal_cells(text: str) -> list[str]:
    """Returns goal, measurement and verdict; for a missed goal, the verdict says by how much.

    The goal is a number, or another record, whose figure of the same metric is to be reached; with ` - ±`, that
    less its standard deviation over trainings.
    """
    source, quoted, sign, limit, less = re.fullmatch(r"(\S+) (.+) ([<>])= (\S+)( - ±)?", text).groups()  # type: ignore[union-attr]
    name, _, digits = quoted.partition(" .")
    ours, digits, symbol = measured(source), digits or "3", "≥" if sign == ">" else "≤"
    if "/" in limit:
        other = measured(limit)
        goal = other[name] - (other.get(f"± {name}", 0.0) if less else 0.0) if name in other else None
        limit = "–" if goal is None else f"{goal:.{digits}f}"
    else:
        goal = float(limit)
    if name not in ours or goal is None:
        return [f"{symbol} {limit}", figure(ours, quoted), "not measured yet"]
    miss = max(0.0, goal - ours[name] if sign == ">" else ours[name] - goal)
    verdict = f"**missed** by {miss:.{digits}f}" if miss else "met"
    return [f"{symbol} {limit}", figure(ours, f"{quoted} ±"), verdict]


def photographs(photographs: str, metrics: Mapping[str, str]) -> str:
    """Returns a table of the rows of `results/photos/` for a data set: trained models, then the others in order.

    Values are means over the seeds of a row.
    """
    names = dict.fromkeys(row["group"] for row in photographs_of(photographs))
    order = sorted(names, key=lambda name: WITHOUT_A_MODEL.index(name) if name in WITHOUT_A_MODEL else -1)
    rows = {name: measured(f"photos/{photographs}:{name}") for name in order}
    cells = [[name, *(figure(row, quoted) for quoted in metrics.values())] for name, row in rows.items()]
    return table(["", *metrics], cells)
