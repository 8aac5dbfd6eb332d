"""Fig. 4 as numbers: errors by how data were generated, and the shape of their surface."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from scipy.stats import spearmanr  # type: ignore[import-untyped]

from ssdir.reports.paper import Generation
from ssdir.reproduce.records import Record, by_group

Errors: TypeAlias = Mapping[Generation, float]

METRIC = "reconstruction/mse"
CHANGES = {"smallest": "larger smallest digits", "largest": "larger largest digits", "grids": "more cells"}
"""What is compared, by the field of `Generation` in which two neighbours differ."""


@dataclass(frozen=True)
class Order:
    """How many pairs of neighbouring points are in the paper's order.

    Attributes:
        right: number of pairs of which the harder data set has the larger error.
        pairs: number of all pairs.
    """

    right: int
    pairs: int

    @property
    def text(self) -> str:
        """Both numbers."""
        return f"{self.right} of {self.pairs}"


def measured_errors(records: Iterable[Record]) -> dict[Generation, float]:
    """Returns the mean error over trainings of each generated data set; undefined ones are left out."""
    errors = {}
    for cell in by_group((each for each in records if each.get("scatter")), lambda record: str(record["scatter"])):
        scatter, error = cell.first["scatter"], cell.mean(METRIC)
        if error is not None:
            grids = min(scatter["grids"]), max(scatter["grids"])
            errors[Generation(grids, scatter["min_size"], scatter["max_size"])] = error
    return errors


def order(errors: Errors, field: str) -> Order:
    """Counts the neighbours in one field of `Generation` that are in the paper's order: the harder, the larger.

    Neighbours agree in the other two fields, and no measured value of the field is between theirs. Grids are
    harder where both the coarsest and the finest have no fewer cells; other grids are not compared.
    """
    pairs = [
        (easy, hard)
        for easy in errors
        for hard in errors
        if _harder(hard, easy, field)
        and not any(_harder(hard, other, field) and _harder(other, easy, field) for other in errors)
    ]
    return Order(sum(errors[hard] > errors[easy] for easy, hard in pairs), len(pairs))


def _harder(one: Generation, other: Generation, field: str) -> bool:
    """Returns whether one data set is harder than another in one field, and equal to it in the others."""
    if one == other or any(getattr(one, name) != getattr(other, name) for name in CHANGES if name != field):
        return False
    mine, theirs = getattr(one, field), getattr(other, field)
    if field == "grids":
        return all(a >= b for a, b in zip(mine, theirs, strict=True))
    return bool(mine > theirs)


def common(one: Errors, other: Errors) -> list[Generation]:
    """Lists the points that both surfaces have, by their size, then by their grids."""
    return sorted(one.keys() & other.keys(), key=lambda point: (point.largest, point.smallest, point.grids))


def rank_correlation(one: Errors, other: Errors) -> float | None:
    """Returns Spearman's rank correlation of two surfaces over their common points; None for fewer than three."""
    points = common(one, other)
    if len(points) < 3:
        return None
    return float(spearmanr([one[each] for each in points], [other[each] for each in points]).statistic)
