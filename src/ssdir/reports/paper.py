"""Figures of the paper and of its authors' notebooks, from `paper.yaml`, which names the source of each."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import NamedTuple, TypeAlias

from pydantic import BaseModel

from ssdir.config import parse, parse_values

Figure: TypeAlias = tuple[float, ...]
"""Mean and standard deviation over trainings; the mean alone where no deviation is known."""


class PublishedFigures(BaseModel, frozen=True, extra="forbid"):
    """Published figures by the name of a row, then by that of a column, and where they are from."""

    source: str
    figures: dict[str, dict[str, Figure]]


class PublishedSurface(BaseModel, frozen=True, extra="forbid"):
    """The points of Fig. 4, and where they are from.

    Attributes:
        source: where they are from.
        canvas: side of the images, to which the sides of digits refer.
        largest: the largest sides of digits; one for each value of a list in `errors`.
        errors: by the first and the last grid, `2-4`, then by the smallest side of digits.
    """

    source: str
    canvas: int
    largest: tuple[int, ...]
    errors: dict[str, dict[int, tuple[float, ...]]]


class Published(BaseModel, frozen=True, extra="forbid"):
    """The content of `paper.yaml`."""

    probe: PublishedFigures
    reconstruction: PublishedFigures
    surface: PublishedSurface


class Generation(NamedTuple):
    """How a data set of Fig. 4 was generated.

    Attributes:
        grids: the coarsest and the finest grid that digits are scattered on, in cells per side.
        smallest: side of the smallest digits, in shares of the image's.
        largest: side of the largest digits, likewise.
    """

    grids: tuple[int, int]
    smallest: float
    largest: float


def _read() -> Published:
    name = "reports/paper.yaml"
    text = resources.files("ssdir").joinpath(name).read_text(encoding="utf-8")
    return parse(Published, parse_values(text, name), source=name)


def _points(surface: PublishedSurface) -> dict[Generation, float]:
    points = {}
    for grids, by_size in surface.errors.items():
        first, _, last = grids.partition("-")
        for smallest, errors in by_size.items():
            for largest, error in zip(surface.largest, errors, strict=True):
                sides = smallest / surface.canvas, largest / surface.canvas
                points[Generation((int(first), int(last)), *sides)] = error
    return points


_PUBLISHED = _read()

PROBE: Mapping[str, Mapping[str, Figure]] = _PUBLISHED.probe.figures
"""Table 2: logistic regression on the latents of scattered MNIST's objects, by method and score."""

RECONSTRUCTION: Mapping[str, Mapping[str, Figure]] = _PUBLISHED.reconstruction.figures
"""Mean squared errors of reconstructions, by data set and method, of unstated scale and mask."""

SURFACE: Mapping[Generation, float] = _points(_PUBLISHED.surface)
"""The 54 mean squared errors of Fig. 4."""

NOTEBOOK = _PUBLISHED.reconstruction.source
"""Where `RECONSTRUCTION` and `SURFACE` are from."""

CRITERIA = (
    "unsupervised",
    "embeddings are read from",
    "varying sizes",
    "chosen kinds of objects",
    "parallel encoding",
)

DIFFERENCES: Mapping[str, tuple[str, ...]] = {
    "GlimpseVAE": ("half", "glimpses", "✓", "✓", "✗"),
    "SPAIR": ("✓", "glimpses", "✗", "✗", "✗"),
    "SPACE": ("✓", "glimpses", "✗", "✗", "✗"),
    "SSDIR": ("half", "feature maps", "✓", "✓", "✓"),
}
"""Table 1, by `CRITERIA`; GlimpseVAE is its "basic VAE", "half" its "semi-": the detector learns from labels."""


def quoted(figure: Figure, digits: int = 4) -> str:
    """Formats a mean and, where it is known, its deviation as the paper prints them."""
    return " ±\N{NO-BREAK SPACE}".join(f"{value:.{digits}f}" for value in figure)
