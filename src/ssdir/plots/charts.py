"""Charts on matplotlib's `Figure`, without pyplot's global state; each function returns a PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, TypeAlias

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from ssdir.formatting import format_seconds

Curve: TypeAlias = tuple[Sequence[float], Sequence[float]]
"""The x and y values of a line; both have the same length."""

CLASS_COLOURS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
"""Ten colours that can be told apart with any colour vision (Petroff 2021, arXiv:2107.02270)."""

_MARKERS = "os^D"
_DPI = 160
_MAX_NUMBERED_CLASSES = 12
_LOG_RATIO = 30
# Any: the keys that matplotlib's stubs allow differ from version to version.
_STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.edgecolor": "#999999",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "xtick.labelcolor": "#222222",
    "ytick.labelcolor": "#222222",
}
# Names of classes and models may hold dollars. Logarithmic axes need mathematics in their labels.
_NAMES_STYLE: Any = {**_STYLE, "text.parse_math": False}


@rc_context(_NAMES_STYLE)
def embedding_map(points: NDArray[Any], labels: NDArray[Any], names: Sequence[str]) -> bytes:
    """Plots points (n, 2) in the colour of their class, with each class's name at its median and in a legend."""
    figure = Figure(figsize=(6.4, 5.4))
    axes = figure.add_subplot(xticks=[], yticks=[], aspect="equal")
    halo = withStroke(linewidth=3, foreground="white")
    classes = np.unique(labels).tolist()
    shown = []
    for label in classes:
        own = points[labels == label]
        colour = CLASS_COLOURS[label % len(CLASS_COLOURS)]
        marker = _MARKERS[label // len(CLASS_COLOURS) % len(_MARKERS)]
        shown.append(axes.scatter(own[:, 0], own[:, 1], s=8, color=colour, marker=marker, linewidths=0))
        x, y = np.median(own, axis=0)
        axes.text(x, y, names[label], ha="center", va="center", weight="bold", size=11, path_effects=[halo])
    axes.spines[:].set(color="#cccccc", visible=True)
    if classes:
        axes.legend(
            shown,
            [names[label] for label in classes],  # matplotlib leaves out labels of points that begin with "_".
            loc="center left",
            bbox_to_anchor=(1, 0.5),
            frameon=False,
            markerscale=2.5,
            ncols=ceil(len(classes) / 20),
        )
    return _png(figure)


@rc_context(_STYLE)
def loss_curves(curves: Mapping[str, Curve], xlabel: str = "step") -> bytes:
    """Plots one panel per loss term, `total` first, with a line per split.

    Args:
        curves: by name, such as `train/total` and `val/total`, or just `total`.
        xlabel: the unit of x.
    """
    terms: dict[str, dict[str, Curve]] = {}
    for name, curve in sorted(curves.items(), key=lambda item: (not item[0].endswith("total"), item[0])):
        split, _, term = name.rpartition("/")
        terms.setdefault(term, {})[split] = curve
    columns = min(3, max(1, len(terms)))
    rows = max(1, ceil(len(terms) / columns))
    figure = Figure(figsize=(2.8 * columns, 2.0 * rows), layout="constrained")
    styles = {"train": (CLASS_COLOURS[0], "-"), "val": (CLASS_COLOURS[6], "--")}
    for number, (term, lines) in enumerate(terms.items()):
        axes = figure.add_subplot(rows, columns, number + 1, xlabel=xlabel)
        axes.set_title(term.replace("_", " "), loc="left")
        for split, (x, y) in lines.items():
            colour, line = styles.get(split, (CLASS_COLOURS[4], "-"))
            axes.plot(x, y, line, color=colour, label=split, marker="." if len(x) < 40 else "", markersize=4)
        values = [value for _, y in lines.values() for value in y]
        if min(values, default=0) > 0 and max(values) > _LOG_RATIO * min(values):
            axes.set_yscale("log")
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if number == 0 and any(lines):
            axes.legend(frameon=False)
    return _png(figure)


@rc_context(_NAMES_STYLE)
def line_panels(panels: Mapping[str, Mapping[str, Curve]], ylabel: str) -> bytes:
    """Plots panels side by side, with a common y axis from zero up and one line per name.

    Args:
        panels: the lines of each panel by name, by the label of its x axis; a name has the same colour everywhere.
        ylabel: the label of the y axis.
    """
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    figure = Figure(figsize=(3.4 * len(panels), 2.6), layout="constrained")
    first, shown = None, dict[str, Line2D]()
    for number, (xlabel, lines) in enumerate(panels.items()):
        first = axes = figure.add_subplot(1, len(panels), number + 1, xlabel=xlabel, sharey=first)
        ticks = sorted({value for x, _ in lines.values() for value in x})
        for name, (x, y) in lines.items():
            index = names.index(name)
            colour, marker = CLASS_COLOURS[index % len(CLASS_COLOURS)], _MARKERS[index % len(_MARKERS)]
            (shown[name],) = axes.plot(x, y, markersize=4, color=colour, marker=marker)
        axes.xaxis.set_major_locator(FixedLocator(ticks) if len(ticks) <= 6 else MaxNLocator(6, integer=True))
        if number == 0:
            axes.set_ylabel(ylabel)
    if first is not None:
        # Set last: with a fixed limit, the later panels would not extend the common axis to their own lines.
        first.set_ylim(bottom=0)
        # Names are given, since matplotlib leaves out labels of lines that begin with "_".
        figure.legend([*shown.values()], [*shown], loc="outside upper center", ncols=5, frameon=False)
    return _png(figure)


@rc_context(_NAMES_STYLE)
def confusion_matrix(true: NDArray[Any], predicted: NDArray[Any], names: Sequence[str]) -> bytes:
    """Plots how many per cent of each true class (a row) were predicted as each class (a column).

    Args:
        true: integer (n,), index into `names`.
        predicted: integer (n,), likewise.
        names: the K classes.
    """
    K = len(names)
    counts = np.zeros((K, K))
    np.add.at(counts, (true, predicted), 1)
    percentages = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 1.6 + 0.34 * min(K, 24)
    figure = Figure(figsize=(side + 0.7, side), layout="constrained")
    axes = figure.add_subplot(xlabel="predicted class", ylabel="true class")
    image = _colour_table(axes, percentages, names, names, (0, 100))
    if any(len(name) > 2 for name in names):
        axes.tick_params(axis="x", labelrotation=90)
    if K <= _MAX_NUMBERED_CLASSES:
        _write_numbers(axes, percentages, percentages >= 0.5, percentages > 55, ".0f", 8)
    figure.colorbar(image, shrink=0.7, ticks=[0, 50, 100], format="{x:.0f} %")
    return _png(figure)


@rc_context(_NAMES_STYLE)
def heatmaps(
    panels: Mapping[str, NDArray[Any]], rows: Sequence[str], columns: Sequence[str], labels: tuple[str, str, str]
) -> bytes:
    """Plots tables of numbers as colours, side by side, each cell with its number and each table on its own scale.

    Args:
        panels: by title, float (R, C); NaN leaves a cell empty.
        rows: names of the R rows, from the top.
        columns: names of the C columns.
        labels: of the rows, the columns and the values.
    """
    width = 1.9 + 0.62 * len(columns)
    figure = Figure(figsize=(width * len(panels), 1.2 + 0.5 * len(rows)), layout="constrained")
    for number, (title, panel) in enumerate(panels.items()):
        low, high = (float(np.nanmin(panel)), float(np.nanmax(panel))) if np.isfinite(panel).any() else (0.0, 1.0)
        axes = figure.add_subplot(1, len(panels), number + 1, xlabel=labels[1])
        axes.set_title(title, loc="left")
        image = _colour_table(axes, panel, rows, columns, (low, high if high > low else low + 1))
        dark = (panel > low + 0.6 * (high - low)) & (high > low)
        _write_numbers(axes, panel, np.isfinite(panel), dark, ".4f", 7)
        figure.colorbar(image, shrink=0.8, label=labels[2])
        if number == 0:
            axes.set_ylabel(labels[0])
    return _png(figure)


@rc_context(_STYLE)
def timing_bar(seconds: Mapping[str, float]) -> bytes:
    """Plots a bar for each stage, with its time."""
    figure = Figure(figsize=(6.4, 0.3 + 0.3 * max(1, len(seconds))), layout="constrained")
    axes = figure.add_subplot(xlim=(0, 1.2 * max([*seconds.values(), 1e-9])))
    bars = axes.barh(list(seconds), list(seconds.values()), color=CLASS_COLOURS[0], height=0.62)
    axes.bar_label(bars, [format_seconds(value) for value in seconds.values()], padding=4)
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelbottom=False)
    return _png(figure)


def _colour_table(
    axes: Axes, values: NDArray[Any], rows: Sequence[str], columns: Sequence[str], limits: tuple[float, float]
) -> AxesImage:
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return axes.imshow(values, cmap="Blues", vmin=limits[0], vmax=limits[1])


def _write_numbers(
    axes: Axes, values: NDArray[Any], shown: NDArray[np.bool_], dark: NDArray[np.bool_], spec: str, size: int
) -> None:
    """Writes the numbers of a table's shown cells, in white where the cell is dark."""
    for row, column in np.argwhere(shown):
        colour = "white" if dark[row, column] else "black"
        axes.text(column, row, f"{values[row, column]:{spec}}", ha="center", va="center", color=colour, size=size)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # Without the program's name, the bytes depend on the chart alone.
    figure.savefig(buffer, format="png", dpi=_DPI, bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()
