"""Motion of boxes: a Kalman filter per track, and how likely a detected box is the track's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ssdir.errors import InputError

if TYPE_CHECKING:
    from trackers.utils.state_representations import XCYCWHStateEstimator

Floats = NDArray[np.float64]

POSITION_NOISE, VELOCITY_NOISE, MEASUREMENT_NOISE = 0.05, 0.03, 0.05
"""Standard deviations as shares of a box's width and height: of the place beyond the predicted one and of the
change of the velocity, per frame, and of a detected box."""

FIRST_VELOCITY = 0.15
"""Standard deviation of a new track's velocity, as a share of the box's width and height per frame."""

DEGREES_OF_FREEDOM = 4.0
"""Of Student's t: objects turn and bounce more often than a normal distribution allows."""


class BoxMotion:
    """A track's box: a Kalman filter of its centre, width and height, and their velocities.

    As in BoT-SORT (Aharon et al. 2022), the noise is proportional to the size of the box.

    Args:
        box: float (4,), the first box, cxcywh in pixels.

    Raises:
        InputError: if the extra `ssdir[video]` is not installed.
    """

    def __init__(self, box: Floats) -> None:
        self._filter = _estimator()(_corners(box))
        side = np.tile(box[2:], 2)
        first = np.concatenate([2 * MEASUREMENT_NOISE * side, FIRST_VELOCITY * side])
        self._filter.set_kf_covariances(state_covariance=np.diag(first**2))

    def predict(self) -> None:
        """Moves on by one frame."""
        side = np.tile(self.box[2:], 2)
        noise = np.concatenate([POSITION_NOISE * side, VELOCITY_NOISE * side])
        self._filter.set_kf_covariances(process_noise=np.diag(noise**2))
        self._filter.predict()
        self._keep_positive()

    def update(self, box: Floats) -> None:
        """Takes a detected box (4,), cxcywh in pixels, into account."""
        self._filter.set_kf_covariances(measurement_noise=np.diag(self._measurement_variance()))
        self._filter.update(_corners(box))
        self._keep_positive()

    @property
    def box(self) -> Floats:
        """The estimated box (4,), cxcywh in pixels."""
        box: Floats = self._filter.kf.state[:4, 0]
        return box

    @property
    def variance(self) -> Floats:
        """Variances (4,) of a detected box around the estimated one, in squared pixels."""
        variance: Floats = np.diag(self._filter.kf.state_covariance)[:4] + self._measurement_variance()
        return variance

    def _measurement_variance(self) -> Floats:
        variance: Floats = (MEASUREMENT_NOISE * np.tile(self.box[2:], 2)) ** 2
        return variance

    def _keep_positive(self) -> None:
        self._filter.kf.state[2:4] = self._filter.kf.state[2:4].clip(min=1e-3)


def motion_evidence(motions: Sequence[BoxMotion], boxes: Floats, size: tuple[float, float]) -> Floats:
    """Computes the log-likelihood ratio that a detected box is a track's, against a new object anywhere.

    A track's box has Student's t distribution around the predicted one. A new object's centre is uniform over the
    frame, and the logarithms of its width and height over a factor of e.

    Args:
        motions: T tracks, predicted to the frame of the boxes.
        boxes: float (N, 4), cxcywh in pixels.
        size: (height, width) of the frame in pixels.

    Returns:
        float (T, N), in nats.
    """
    if not motions or not len(boxes):
        return np.zeros((len(motions), len(boxes)))
    mean = np.stack([motion.box for motion in motions])
    variance = np.stack([motion.variance for motion in motions])
    distance = ((boxes - mean[:, None]) ** 2 / variance[:, None]).sum(axis=-1)
    nu = DEGREES_OF_FREEDOM
    # The constant of the t distribution in four dimensions is Γ(ν/2 + 2) / Γ(ν/2) = (ν/2)(ν/2 + 1).
    constant = np.log(nu / 2 * (nu / 2 + 1)) - 2 * np.log(nu * np.pi)
    track = constant - np.log(variance).sum(axis=1)[:, None] / 2 - (nu + 4) / 2 * np.log1p(distance / nu)
    anywhere = -np.log(size[0] * size[1]) - np.log(boxes[:, 2:].clip(min=1e-3)).sum(axis=1)
    evidence: Floats = track - anywhere
    return evidence


def _corners(box: Floats) -> Floats:
    return np.concatenate([box[:2] - box[2:] / 2, box[:2] + box[2:] / 2])


def _estimator() -> type[XCYCWHStateEstimator]:
    try:
        from trackers.utils.state_representations import XCYCWHStateEstimator
    except ImportError:
        raise InputError("tracking needs the package trackers: pip install 'ssdir[video]'") from None
    estimator: type[XCYCWHStateEstimator] = XCYCWHStateEstimator
    return estimator
