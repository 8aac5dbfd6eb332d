"""Charts on matplotlib's `Figure`, without pyplot's global state; each returns a PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray
from torch import Tensor

from ssdir.formatting import format_seconds

Curve: TypeAlias = tuple[Sequence[float], Sequence[float]]
"""x and y, equally many."""

CLASS_COLOURS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
"""Ten colours that any colour vision tells apart (Petroff 2021, arXiv:2107.02270)."""

MAX_TSNE_POINTS = 2000
MIN_TSNE_POINTS = 5

_MARKERS = "os^D"
_DPI = 160
_MAX_NUMBERS = 12
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


class Embedding(NamedTuple):
    """Some of the points given, in the plane.

    Attributes:
        points: float (n, 2).
        rows: int64 (n,), which of the points given they are.
    """

    points: NDArray[np.float32]
    rows: NDArray[np.int64]


def tsne(latents: Tensor, seed: int = 0, max_points: int = MAX_TSNE_POINTS) -> Embedding:
    """t-SNE of latents (N, D), D > 1, started from their principal components.

    Args:
        latents: the codes.
        seed: of what is drawn at random.
        max_points: of more points, so many are drawn.

    Raises:
        ValueError: if there are fewer than five points.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if len(latents) < MIN_TSNE_POINTS:
        raise ValueError(f"t-SNE needs at least {MIN_TSNE_POINTS} points, got {len(latents)}")
    rows = np.sort(np.random.default_rng(seed).permutation(len(latents))[:max_points])
    projection = TSNE(init="pca", perplexity=min(30.0, (len(rows) - 1) / 3), random_state=seed)
    # So few points keep one thread busy; several mostly wait for each other, on a busy machine long.
    with threadpool_limits(1):
        return Embedding(projection.fit_transform(latents.float().numpy()[rows]), rows)


@rc_context(_STYLE)
def embedding_map(points: NDArray[Any], labels: NDArray[Any], names: Sequence[str]) -> bytes:
    """Scatters points (n, 2), coloured by class, with each class's name at its median and in a legend."""
    figure = Figure(figsize=(6.4, 5.4))
    axes = figure.add_subplot(xticks=[], yticks=[], aspect="equal")
    halo = withStroke(linewidth=3, foreground="white")
    classes = np.unique(labels).tolist()
    for label in classes:
        own = points[labels == label]
        colour = CLASS_COLOURS[label % len(CLASS_COLOURS)]
        marker = _MARKERS[label // len(CLASS_COLOURS) % len(_MARKERS)]
        axes.scatter(
            own[:, 0],
            own[:, 1],
            s=8,
            color=colour,
            marker=marker,
            linewidths=0,
            label=names[label],
        )
        x, y = np.median(own, axis=0)
        axes.text(x, y, names[label], ha="center", va="center", weight="bold", size=11, path_effects=[halo])
    axes.spines[:].set(color="#cccccc", visible=True)
    if classes:
        columns = ceil(len(classes) / 20)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, markerscale=2.5, ncols=columns)
    return _png(figure)


@rc_context(_STYLE)
def loss_curves(curves: Mapping[str, Curve], xlabel: str = "step") -> bytes:
    """A panel for each term, `total` first, with a line for each split.

    Args:
        curves: by name, such as `train/total` and `val/total`, or just `total`.
        xlabel: what x counts.
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


@rc_context(_STYLE)
def line_panels(panels: Mapping[str, Mapping[str, Curve]], ylabel: str) -> bytes:
    """Panels side by side, from zero up on one scale, each with a line for each name.

    Args:
        panels: by what x is, lines by name; a name has the same colour in all panels.
        ylabel: what y is.
    """
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    figure = Figure(figsize=(3.4 * len(panels), 2.6), layout="constrained")
    first = None
    for number, (xlabel, lines) in enumerate(panels.items()):
        first = axes = figure.add_subplot(1, len(panels), number + 1, xlabel=xlabel, sharey=first)
        places = sorted({value for x, _ in lines.values() for value in x})
        for name, (x, y) in lines.items():
            index = names.index(name)
            colour, marker = CLASS_COLOURS[index % len(CLASS_COLOURS)], _MARKERS[index % len(_MARKERS)]
            axes.plot(x, y, label=name, markersize=4, color=colour, marker=marker)
        axes.xaxis.set_major_locator(FixedLocator(places) if len(places) <= 6 else MaxNLocator(6, integer=True))
        if number == 0:
            axes.set_ylabel(ylabel)
    if first is not None:
        # Only now: a limit that is set keeps the panels after it from making room for their own lines.
        first.set_ylim(bottom=0)
        first.figure.legend(*first.get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False)
    return _png(figure)


@rc_context(_STYLE)
def confusion_matrix(true: NDArray[Any], predicted: NDArray[Any], names: Sequence[str]) -> bytes:
    """Of each true class (a row), the percentage that was taken for each class.

    Args:
        true: integer (n,), index into `names`.
        predicted: likewise.
        names: the K classes.
    """
    K = len(names)
    counts = np.zeros((K, K))
    np.add.at(counts, (true, predicted), 1)
    percentages = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 1.6 + 0.34 * min(K, 24)
    figure = Figure(figsize=(side + 0.7, side), layout="constrained")
    rotation = 0 if all(len(name) <= 2 for name in names) else 90
    axes = figure.add_subplot(xlabel="taken for", ylabel="true class")
    axes.set_xticks(range(K), names, rotation=rotation)
    axes.set_yticks(range(K), names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    image = axes.imshow(percentages, cmap="Blues", vmin=0, vmax=100)
    for row, column in np.argwhere(percentages >= 0.5) if K <= _MAX_NUMBERS else ():
        value = percentages[row, column]
        colour = "white" if value > 55 else "black"
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour, size=8)
    figure.colorbar(image, shrink=0.7, ticks=[0, 50, 100], format="{x:.0f} %")
    return _png(figure)


@rc_context(_STYLE)
def heatmaps(
    panels: Mapping[str, NDArray[Any]], rows: Sequence[str], columns: Sequence[str], labels: tuple[str, str, str]
) -> bytes:
    """Tables of numbers as colours, side by side on one scale, each cell with its number.

    Args:
        panels: by title, float (R, C); NaN where there is nothing.
        rows: R names, from the top.
        columns: C names.
        labels: what rows, columns and values are.
    """
    values = np.stack([np.asarray(panel, dtype=float) for panel in panels.values()])
    low, high = (float(np.nanmin(values)), float(np.nanmax(values))) if np.isfinite(values).any() else (0.0, 1.0)
    width = 1.1 + 0.62 * len(columns)
    figure = Figure(figsize=(width * len(panels) + 1.0, 1.2 + 0.5 * len(rows)), layout="constrained")
    image = None
    for number, (title, panel) in enumerate(zip(panels, values, strict=True)):
        axes = figure.add_subplot(1, len(panels), number + 1, xlabel=labels[1])
        axes.set_title(title, loc="left")
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        if number == 0:
            axes.set_ylabel(labels[0])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        image = axes.imshow(panel, cmap="Blues", vmin=low, vmax=high if high > low else low + 1)
        for row, column in np.argwhere(np.isfinite(panel)):
            value = panel[row, column]
            colour = "white" if high > low and value > low + 0.6 * (high - low) else "black"
            axes.text(column, row, f"{value:.4f}", ha="center", va="center", color=colour, size=7)
    if image is not None:
        figure.colorbar(image, ax=figure.axes, shrink=0.8, label=labels[2])
    return _png(figure)


@rc_context(_STYLE)
def timing_bar(seconds: Mapping[str, float]) -> bytes:
    """A bar for each stage, with its time."""
    figure = Figure(figsize=(6.4, 0.3 + 0.3 * max(1, len(seconds))), layout="constrained")
    axes = figure.add_subplot(xlim=(0, 1.2 * max([*seconds.values(), 1e-9])))
    bars = axes.barh(list(seconds), list(seconds.values()), color=CLASS_COLOURS[0], height=0.62)
    axes.bar_label(bars, [format_seconds(value) for value in seconds.values()], padding=4)
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelbottom=False)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # Without the writer's name the bytes depend on the picture alone.
    figure.savefig(buffer, format="png", dpi=_DPI, bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()
