"""Tests of the surface of Fig. 4, and of the authors' points on it."""

from __future__ import annotations

from typing import Any

import pytest

from ssdir.reports.paper import RECONSTRUCTION, SURFACE, Generation, quoted
from ssdir.reproduce.figures import order_table
from ssdir.reproduce.published import reconstruction_section
from ssdir.reproduce.surface import Order, common, measured_errors, order, rank_correlation

EASY, HARD = Generation((2, 4), 0.25, 0.75), Generation((2, 5), 0.25, 0.75)


def record(grids: list[int], smallest: float, error: float | None, seed: int = 0) -> dict[str, Any]:
    scatter = {"grids": grids, "min_size": smallest, "max_size": 0.75}
    return {"scatter": scatter, "seed": seed, "metrics": {"reconstruction/mse": error}}


def test_the_authors_have_a_point_for_each_data_set_in_shares_of_the_side() -> None:
    assert len(SURFACE) == 54
    assert SURFACE[Generation((4, 6), 160 / 512, 320 / 512)] == 0.12
    assert SURFACE[Generation((2, 4), 96 / 512, 384 / 512)] == 0.0085


def test_the_authors_errors_grow_with_every_larger_smallest_digit() -> None:
    assert order(SURFACE, "smallest") == Order(36, 36)


def test_only_neighbours_are_pairs() -> None:
    steps = {Generation((2, 5), smallest, 0.75): error for smallest, error in ((0.2, 1.0), (0.3, 3.0), (0.4, 2.0))}
    assert order(steps, "smallest") == Order(1, 2)  # 0.2 and 0.4 are no neighbours
    assert order(steps, "grids") == Order(0, 0)


def test_grids_are_compared_where_neither_end_has_fewer_cells() -> None:
    errors = {Generation(grids, 0.2, 0.75): 1.0 + sum(grids) for grids in ((2, 4), (2, 5), (2, 6), (3, 5), (4, 6))}
    # 2–4 < 2–5 < {2–6, 3–5} < 4–6; between 2–6 and 3–5 there is no order.
    assert order(errors, "grids") == Order(5, 5)


def test_measured_errors_are_means_over_trainings_without_undefined_ones() -> None:
    records = [record([4, 2, 3], 0.25, 0.1), record([4, 2, 3], 0.25, 0.3, 1), record([2, 5], 0.25, None)]
    assert measured_errors(records) == pytest.approx({EASY: 0.2})


def test_surfaces_that_rank_alike_correlate_whatever_their_scale() -> None:
    some = {point: error for point, error in SURFACE.items() if point.largest == 0.75}
    assert rank_correlation({point: error**3 for point, error in some.items()}, SURFACE) == pytest.approx(1)
    assert rank_correlation({point: -error for point, error in some.items()}, SURFACE) == pytest.approx(-1)
    assert len(common(some, SURFACE)) == 18
    assert rank_correlation({EASY: 1, HARD: 2}, {EASY: 1, HARD: 2}) is None


def test_the_table_has_both_surfaces_orders_on_the_same_data_sets() -> None:
    ours = {point: error / 2 for point, error in SURFACE.items() if point.largest == 0.75}
    easiest = min(ours, key=lambda point: ours[point])
    (group,) = order_table(ours | {easiest: 1.0}).groups
    rows = {row.label: list(row.values) for row in group.rows}
    assert rows["larger smallest digits"] == ["11 of 12", "12 of 12", "36 of 36"]
    assert rows["more cells"] == ["17 of 18", "18 of 18", "53 of 54"]
    assert float(rows["rank correlation with the authors' errors"][0]) < 1
    assert "larger largest digits" not in rows


def test_errors_of_one_training_in_several_experiments_count_once() -> None:
    def of(run: str, model: str, data: str, error: float) -> dict[str, Any]:
        record = {"run": run, "group": run[:-2], "label": model, "model": model, "data": data, "detector": None}
        return {**record, "metrics": {"reconstruction/mse": error}}

    records = [of("spair-0", "SPAIR", "digits", 0.02), of("spair-1", "SPAIR", "digits", 0.04)]
    records += [
        dict(records[0]),
        of("glimpses-0", "GlimpseVAE", "digits", 0.01),
        of("other-0", "SPAIR", "others", 0.3),
    ]
    section = reconstruction_section(records)
    assert section is not None
    assert section.table is not None
    (group,) = section.table.groups
    rows = {row.label: list(row.values) for row in group.rows}
    assert rows["SPAIR"] == ["0.03000 ±\u00a00.01000", quoted(RECONSTRUCTION["digits"]["SPAIR"], 5)]
    assert rows["SPAIR"][1] == "0.00356 ±\u00a00.00104"
    assert rows["GlimpseVAE"] == ["0.01000", "–"]
    assert reconstruction_section(records[-1:]) is None
