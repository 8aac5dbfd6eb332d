"""Assignment of detections to tracks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]


def assign(evidence: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Assigns detections to tracks, at most one to each, so that the sum of their evidence is largest.

    Args:
        evidence: float (T, N), log-likelihood ratios; pairs with 0 or less are never assigned.

    Returns:
        Pairs of a track and a detection, in the order of the tracks.
    """
    if not evidence.size:
        return []
    rows, columns = linear_sum_assignment(evidence.clip(min=0), maximize=True)
    return [
        (int(row), int(column)) for row, column in zip(rows, columns, strict=True) if evidence[row, column] > 0
    ]
