"""Fits priors of window sizes, and grids of cells, to boxes, for models that learn without boxes.

SPACE and SPAIR look at each object through a window whose size has a prior, and a cell of their grid holds one
object at most. Both must suit the data, and neither is learned. All values are in the units of the configs.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, exp
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssdir.config import C, merge
from ssdir.models.space.model import BOUNDARY_WIDTH, SPACEConfig
from ssdir.models.spair.cells import SIZE_RANGE
from ssdir.models.spair.model import WINDOW_MARGIN, SPAIRConfig

GridModelConfig: TypeAlias = SPACEConfig | SPAIRConfig

MAX_SHARED = 0.05
"""The share of objects that may be in an occupied cell; some may, as windows reach neighbouring cells."""
MAX_CELLS = 16
"""The most cells along each side, unless the config has more, because time grows with the square."""

_LESS_SHARED = 0.01
"""The least reduction of that share by a finer grid, where `MAX_SHARED` can't be reached."""
_FITTING = 0.95
"""The share of objects whose windows must fit into `_FILLED` of SPAIR's largest one, because beyond that the
sigmoid hardly moves."""
_FILLED = 0.9
_SHARES = 0.02, 0.98
"""The range that the argument of a logit is clamped to."""


@dataclass(frozen=True)
class GridPrior:
    """The size prior and grid of a config, and how boxes suit them.

    Attributes:
        image_size: side of the model's square input, in pixels.
        window: side in pixels of the window at the prior's mean.
        size_loc: the prior's mean: the logit of a window's side over the image's (SPACE), or of its place in the
            range of sizes, in anchors (SPAIR). If it is annealed, the last value.
        size_scale: the prior's standard deviation.
        anchor: SPAIR's anchor, in pixels; None for SPACE.
        cells: number of cells along each side.
        too_large: share of objects that need a window larger than the largest there is.
        shared: share of objects whose centre is in the cell of another object counted before.
    """

    image_size: int
    window: float
    size_loc: float
    size_scale: float
    anchor: float | None
    cells: int
    too_large: float
    shared: float


@dataclass(frozen=True)
class PriorFit:
    """The prior and grid of a config, and those that suit the boxes.

    Attributes:
        current: the config's prior and grid.
        recommended: the prior and grid with `changes`.
        changes: changes to make to a recipe's `model`; none without boxes.
    """

    current: GridPrior
    recommended: GridPrior
    changes: dict[str, Any]


def fit_prior(boxes_cxcywh: Tensor, image_index: NDArray[np.int64], config: GridModelConfig) -> PriorFit:
    """Fits the size prior and the grid of a SPACE or SPAIR to boxes.

    The prior's mean is the median of the windows that objects need, in the model's own parametrisation; its
    standard deviation is half the distance of the 16th and 84th percentiles, but no less than the config's. A
    schedule of means ends there, and starts as far from it as before. The grid is the config's, or the coarsest
    finer one in which at most `MAX_SHARED` of the objects share cells.

    Args:
        boxes_cxcywh: float (M, 4), relative to the image.
        image_index: int (M,), the image of each.
        config: the config to start from.
    """
    current = measure_prior(boxes_cxcywh, image_index, config)
    if not len(boxes_cxcywh):
        return PriorFit(current, current, {})
    windows = needed_windows(boxes_cxcywh, config)
    changes = _space_size(windows, config) if isinstance(config, SPACEConfig) else _spair_size(windows, config)
    candidates = [changes]
    while finer := _finer(_changed(config, candidates[-1])):
        candidates.append(merge(candidates[-1], finer))
    fits = [measure_prior(boxes_cxcywh, image_index, _changed(config, each)) for each in candidates]
    enough = max(MAX_SHARED, min(fit.shared for fit in fits) + _LESS_SHARED)
    chosen = next(place for place, fit in enumerate(fits) if fit.shared <= enough)
    return PriorFit(current, fits[chosen], candidates[chosen])


def measure_prior(boxes_cxcywh: Tensor, image_index: NDArray[np.int64], config: GridModelConfig) -> GridPrior:
    """Measures how boxes suit a config's prior and grid; see `fit_prior` for the arguments."""
    if isinstance(config, SPACEConfig):
        size_loc, size_scale, anchor, largest = config.size_prior.end, config.size_prior_scale, None, 1.0
        cells, cell = config.grid, 1 / config.grid
    else:
        size_loc, size_scale, anchor = config.prior.size_loc, config.prior.size_scale, config.cells.anchor
        largest = SIZE_RANGE[1] * anchor / config.image_size
        cells = -(-config.image_size // config.grid.pixels_per_cell)
        cell = config.grid.pixels_per_cell / config.image_size
    windows = needed_windows(boxes_cxcywh, config)
    return GridPrior(
        image_size=config.image_size,
        window=window_side(size_loc, config) * config.image_size,
        size_loc=size_loc,
        size_scale=size_scale,
        anchor=anchor,
        cells=cells,
        too_large=float((windows > largest).double().mean()) if len(windows) else 0.0,
        shared=shared_cells(boxes_cxcywh, image_index, cell),
    )


def needed_windows(boxes_cxcywh: Tensor, config: GridModelConfig) -> Tensor:
    """Returns the sides of the windows that objects need, relative to the image.

    Where the model reports tight boxes, a window is a square around the object with the config's margin: (M,).
    Where it reports its windows, they should be the boxes themselves; width and height have one prior: (2M,).
    """
    if config.output_boxes == "window":
        return boxes_cxcywh[:, 2:].flatten()
    margin = BOUNDARY_WIDTH if isinstance(config, SPACEConfig) else WINDOW_MARGIN
    return boxes_cxcywh[:, 2:].amax(dim=1) / (1 - margin)


def window_side(raw: float, config: GridModelConfig) -> float:
    """Returns a window's side relative to the image, as `windows_from_where` and `SequentialCells.to_boxes` do."""
    share = 1 / (1 + exp(-raw))
    if isinstance(config, SPACEConfig):
        return share
    low, high = SIZE_RANGE
    return (low + (high - low) * share) * config.cells.anchor / config.image_size


def raw_size(windows: Tensor, config: GridModelConfig) -> Tensor:
    """Inverts `window_side` for many windows; those out of the model's range get a raw size near its end."""
    share = windows
    if isinstance(config, SPAIRConfig):
        low, high = SIZE_RANGE
        share = (windows * config.image_size / config.cells.anchor - low) / (high - low)
    return share.clamp(*_SHARES).logit()


def shared_cells(boxes_cxcywh: Tensor, image_index: NDArray[np.int64], cell: float) -> float:
    """Returns the share of objects whose centre is in an occupied cell; `cell` is its side over the image's."""
    if not len(boxes_cxcywh):
        return 0.0
    # A centre on the image's last edge is in the last cell.
    place = (boxes_cxcywh[:, :2].double().clamp(max=1 - 1e-9) / cell).long()
    taken = torch.cat([torch.from_numpy(image_index)[:, None], place], dim=1).unique(dim=0)
    return 1 - len(taken) / len(boxes_cxcywh)


def _space_size(windows: Tensor, config: SPACEConfig) -> dict[str, Any]:
    loc, scale = _location_and_scale(raw_size(windows, config), config.size_prior_scale)
    start = round(loc + config.size_prior.start - config.size_prior.end, 2)
    return {"size_prior": {"start": start, "end": loc}, "size_prior_scale": scale}


def _spair_size(windows: Tensor, config: SPAIRConfig) -> dict[str, Any]:
    """Sets boxes to start at the prior's mean, and the anchor to grow where windows would not fit."""
    high = SIZE_RANGE[1]
    large = float(np.quantile(windows.numpy(), _FITTING)) * config.image_size / (_FILLED * high)
    anchor = config.cells.anchor if large <= config.cells.anchor else float(ceil(large))
    config = _changed(config, {"cells": {"anchor": anchor}})
    loc, scale = _location_and_scale(raw_size(windows, config), config.prior.size_scale)
    start = round(window_side(loc, config) * config.image_size / anchor, 2)
    return {"cells": {"anchor": anchor, "size_init": start}, "prior": {"size_loc": loc, "size_scale": scale}}


def _location_and_scale(raw: Tensor, least_scale: float) -> tuple[float, float]:
    low, median, high = np.quantile(raw.numpy(), [0.16, 0.5, 0.84]).tolist()
    return round(median, 2), max(least_scale, round((high - low) / 2, 2))


def _finer(config: GridModelConfig) -> dict[str, Any]:
    """Returns changes that halve the cells' side; none where cells would be too many, or can't be halved."""
    if isinstance(config, SPACEConfig):
        cells = 2 * config.grid
        return {"grid": cells} if cells <= min(MAX_CELLS, config.image_size) else {}
    strides = list(config.grid.strides)
    even = [place for place, stride in enumerate(strides) if stride % 2 == 0]
    if not even or 2 * config.image_size > MAX_CELLS * config.grid.pixels_per_cell:
        return {}
    # The last stride is halved, so that a cell's receptive field stays as large as possible.
    strides[even[-1]] //= 2
    return {"grid": {"strides": strides}}


def _changed(config: C, changes: dict[str, Any]) -> C:
    """Returns a config of the same class with some values replaced, validated."""
    return type(config).model_validate(merge(config.model_dump(mode="json"), changes))
