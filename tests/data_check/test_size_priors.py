"""Tests of priors of window sizes in the units of the presets, and of grids that are fine enough."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssdir.config import merge, presets
from ssdir.data_check.size_priors import (
    GridModelConfig,
    fit_prior,
    measure_prior,
    raw_size,
    shared_cells,
    window_side,
)
from ssdir.models.space.foreground import windows_from_where
from ssdir.models.space.model import BOUNDARY_WIDTH, SPACE, SPACEConfig
from ssdir.models.spair.model import SPAIR, WINDOW_MARGIN
from ssdir.training.recipe import read_recipe

PRESETS = [name for name in presets() if isinstance(read_recipe(name).model, GridModelConfig)]


def config_of(preset: str) -> GridModelConfig:
    config = read_recipe(preset).model
    assert isinstance(config, GridModelConfig)
    return config


def alone(sides: list[float], aspect: float = 1.0) -> tuple[Tensor, NDArray[np.int64]]:
    """Returns a box in the middle of each image, given its longer side; `aspect` is its shorter side over that."""
    boxes = torch.tensor([[0.5, 0.5, side, aspect * side] for side in sides], dtype=torch.float64)
    return boxes, np.arange(len(sides))


def together(*centres: tuple[float, float]) -> tuple[Tensor, NDArray[np.int64]]:
    """Returns boxes of one image around the given centres."""
    return torch.tensor([[x, y, 0.1, 0.1] for x, y in centres]), np.zeros(len(centres), dtype=np.int64)


def test_space_against_hand_computed_values() -> None:
    # 13 px and a margin of 3/16 of the window are 16 px of 64: a quarter, whose logit is -log 3.
    fit = fit_prior(*alone([13 / 64] * 5, aspect=0.3), config_of("space-64"))
    assert fit.changes == {"size_prior": {"start": -1.1, "end": -1.1}, "size_prior_scale": 0.1}
    assert fit.recommended.size_loc == pytest.approx(-log(3), abs=0.005)
    assert fit.recommended.window == pytest.approx(16, rel=0.01)
    # The preset's own prior is the documented one: -1, for windows of 17 px.
    assert (fit.current.size_loc, round(fit.current.window)) == (-1, 17)


def test_spair_against_hand_computed_values() -> None:
    # 10.2 px and a margin of 0.15 of the window are 12 px: half the anchor of 24 px, whose logit is 0.
    fit = fit_prior(*alone([10.2 / 64] * 5, aspect=0.5), config_of("spair-64"))
    assert fit.changes == {
        "cells": {"anchor": 24, "size_init": 0.5},
        "prior": {"size_loc": 0, "size_scale": 0.2},
    }
    assert fit.recommended.window == pytest.approx(12)


def test_an_anchor_grows_with_its_objects() -> None:
    # Windows of 27 px are to be 0.9 of the largest, 30 px; the logit of 0.9 is log 9.
    fit = fit_prior(*alone([27 * 0.85 / 64] * 5), config_of("spair-64"))
    assert (fit.current.too_large, fit.recommended.too_large) == (1, 0)
    assert fit.recommended.anchor == 30
    assert fit.recommended.size_loc == pytest.approx(log(9), abs=0.005)


def test_where_windows_are_the_boxes_width_and_height_have_one_prior() -> None:
    boxes, image_index = alone([0.5] * 5, aspect=0.5)
    fit = fit_prior(boxes, image_index, config_of("paper-space"))
    # Half of the sides are 0.5, whose logit is 0, and half 0.25, whose logit is -log 3.
    assert fit.recommended.size_loc == pytest.approx(-log(3) / 2, abs=0.005)
    assert fit.recommended.size_scale == pytest.approx(log(3) / 2, abs=0.005)
    # Annealed from -1 to -2 in the preset: it still falls by 1.
    assert fit.changes["size_prior"]["start"] == pytest.approx(fit.recommended.size_loc + 1)


def test_the_spread_is_that_of_raw_sizes() -> None:
    raw = torch.from_numpy(np.random.default_rng(0).normal(-1.2, 0.5, 20_000))
    fit = fit_prior(*alone((raw.sigmoid() * 13 / 16).tolist()), config_of("space-64"))
    assert (fit.recommended.size_loc, fit.recommended.size_scale) == pytest.approx((-1.2, 0.5), abs=0.02)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("side", [0.06, 0.15, 0.33])
def test_the_models_own_transform_of_the_priors_mean_gives_the_median_box(preset: str, side: float) -> None:
    config = config_of(preset)
    changes = fit_prior(*alone([side / 2, side, 1.2 * side]), config).changes
    config = type(config).model_validate(merge(config.model_dump(mode="json"), changes))
    model = SPACE(config) if isinstance(config, SPACEConfig) else SPAIR(config)
    if isinstance(model, SPACE):
        loc, margin = model.config.size_prior.end, BOUNDARY_WIDTH
        where = torch.zeros(1, model.config.grid**2, 4)
        where[..., :2] = loc
        window = windows_from_where(where, model.config.grid, min_side=0)[0, 0, 2:]
    else:
        loc, margin = model.config.prior.size_loc, WINDOW_MARGIN
        window = model.cells.to_boxes(torch.tensor([0, 0, loc, loc]), model.cells.corners[0])[2:]
        assert model.config.cells.size_init * model.config.cells.anchor == pytest.approx(
            float(window[0]) * model.image_size, rel=0.05
        )
    box = window * (1 - margin) if config.output_boxes == "tight" else window
    torch.testing.assert_close(box, torch.full((2,), side), rtol=0.02, atol=0)
    # To embed such a box, the model takes that window.
    around = model._windows_around(torch.tensor([[0.5, 0.5, side, side]]))[0]
    sides = around[2:] - around[:2] if isinstance(model, SPACE) else around[2:]
    torch.testing.assert_close(sides, window, rtol=0.02, atol=0)


@pytest.mark.parametrize("preset", PRESETS)
def test_raw_sizes_and_windows_are_inverse(preset: str) -> None:
    config = config_of(preset)
    for raw in (-3.0, -0.4, 0.0, 2.5):
        window = torch.tensor([window_side(raw, config)], dtype=torch.float64)
        assert float(raw_size(window, config)) == pytest.approx(raw)


def test_cells_that_are_taken() -> None:
    boxes, image_index = together((0.1, 0.1), (0.2, 0.2), (0.1, 0.4), (0.1, 0.1), (1.0, 1.0))
    image_index[3:] = 1
    # Of the first image's, two are in one cell; the second image has one there too, and one at its very end.
    assert shared_cells(boxes, image_index, 1 / 4) == pytest.approx(1 / 5)
    assert shared_cells(boxes, image_index, 1 / 8) == 0
    assert shared_cells(boxes, 0 * image_index, 1 / 2) == pytest.approx(3 / 5)


@pytest.mark.parametrize(("preset", "finer"), [("space-64", 8), ("spair-64", {"strides": [4, 2, 1, 1]})])
def test_a_grid_becomes_finer_until_cells_are_free(preset: str, finer: object) -> None:
    config = config_of(preset)
    near = fit_prior(*together((0.05, 0.05), (0.2, 0.2)), config)
    assert (near.current.cells, near.current.shared) == (4, 0.5)
    assert (near.recommended.cells, near.recommended.shared) == (8, 0)
    assert near.changes["grid"] == finer
    # Where no grid helps, none is recommended; nor where all is well.
    within = fit_prior(*together((0.1, 0.1), (0.1, 0.1)), config)
    assert (within.recommended.cells, within.recommended.shared) == (4, 0.5)
    assert "grid" not in fit_prior(*together((0.1, 0.1), (0.9, 0.1)), config).changes


def test_a_finer_grid_of_spair_sees_as_much_of_the_image() -> None:
    config = read_recipe("spair-64").model
    strides = fit_prior(*together((0.05, 0.05), (0.2, 0.2)), config).changes["grid"]["strides"]
    finer = config.grid.model_copy(update={"strides": tuple(strides)})
    assert finer.receptive_field == config.grid.receptive_field
    assert 2 * finer.pixels_per_cell == config.grid.pixels_per_cell


@pytest.mark.parametrize("preset", PRESETS)
def test_without_boxes_nothing_is_recommended(preset: str) -> None:
    none = (torch.zeros(0, 4), np.zeros(0, dtype=np.int64))
    fit = fit_prior(*none, config_of(preset))
    assert fit.changes == {}
    assert fit.recommended == fit.current == measure_prior(*none, config_of(preset))
