"""Assignment of detections to tracks."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

from ssdir.tracking.motion import Floats


def assign(evidence: Floats, margin: float = 0.0) -> list[tuple[int, int]]:
    """Assigns detections to tracks, at most one to each, so that the sum of their evidence is largest.

    Args:
        evidence: float (T, N), log-likelihood ratios; pairs with 0 or less are never assigned.
        margin: minimum lead of a track over the other ones that a detection could be assigned to.

    Returns:
        Pairs of a track and a detection, in the order of the tracks.
    """
    if not evidence.size:
        return []
    rows, columns = linear_sum_assignment(evidence.clip(min=0), maximize=True)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return [pair for pair in pairs if evidence[pair] > 0 and (margin == 0 or _lead(evidence, *pair) >= margin)]


def _lead(evidence: Floats, row: int, column: int) -> float:
    others = np.delete(evidence[:, column], row)
    return float(evidence[row, column] - others.max(initial=-np.inf))
