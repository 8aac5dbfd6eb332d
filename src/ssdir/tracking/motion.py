"""Motion of boxes: a Kalman filter per track, and how likely a detected box is the track's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

POSITION_NOISE, VELOCITY_NOISE, MEASUREMENT_NOISE = 0.05, 0.03, 0.05
"""Standard deviations as shares of a box's width and height: of the place beyond the predicted one and of the
change of the velocity, per frame, and of a detected box."""

FIRST_VELOCITY = 0.15
"""Standard deviation of a new track's velocity, as a share of the box's width and height per frame."""

DEGREES_OF_FREEDOM = 4.0
"""Of Student's t: objects turn and bounce more often than a normal distribution allows."""

MIN_SIDE = 1e-3
"""Smallest side of an estimated box, in pixels."""


class BoxMotion:
    """A track's box: a Kalman filter of its centre, width and height, and their velocities.

    As in BoT-SORT (Aharon et al. 2022), the noise is proportional to the size of the box. The four numbers of a
    box are independent of each other, so covariances are those of each number with its own velocity alone. This
    equals the filter of the package `trackers`, with its matrices of 8 × 8, but all tracks take a step at once.

    Args:
        box: float (4,), the first box, cxcywh in pixels.
    """

    def __init__(self, box: Floats) -> None:
        side = np.tile(box[2:], 2)
        zero = np.zeros(4)
        # Rows: box, velocity, variance of the box, its covariance with the velocity, variance of the velocity.
        self.state = np.stack([box, zero, (2 * MEASUREMENT_NOISE * side) ** 2, zero, (FIRST_VELOCITY * side) ** 2])

    @property
    def box(self) -> Floats:
        """The estimated box (4,), cxcywh in pixels."""
        box: Floats = self.state[0]
        return box


def predict(motions: Sequence[BoxMotion]) -> None:
    """Moves tracks on by one frame."""
    if not motions:
        return
    box, velocity, variance, covariance, velocity_variance = _states(motions)
    squared = np.tile(box[:, 2:], 2) ** 2
    variance = variance + 2 * covariance + velocity_variance + POSITION_NOISE**2 * squared
    covariance = covariance + velocity_variance
    velocity_variance = velocity_variance + VELOCITY_NOISE**2 * squared
    _store(motions, box + velocity, velocity, variance, covariance, velocity_variance)


def update(motions: Sequence[BoxMotion], boxes: Floats) -> None:
    """Takes a detected box of each track, (T, 4), cxcywh in pixels, into account."""
    if not motions:
        return
    box, velocity, variance, covariance, velocity_variance = _states(motions)
    total, surprise = variance + _measurement_variance(box), boxes - box
    gain, velocity_gain = variance / total, covariance / total
    velocity_variance = velocity_variance - velocity_gain * covariance
    new_box, new_velocity = box + gain * surprise, velocity + velocity_gain * surprise
    _store(motions, new_box, new_velocity, (1 - gain) * variance, (1 - gain) * covariance, velocity_variance)


def _states(motions: Sequence[BoxMotion]) -> Floats:
    """Returns the states of T tracks, float (5, T, 4)."""
    return np.stack([motion.state for motion in motions], axis=1)


def _store(motions: Sequence[BoxMotion], box: Floats, *others: Floats) -> None:
    box[:, 2:] = box[:, 2:].clip(min=MIN_SIDE)
    for motion, state in zip(motions, np.stack([box, *others], axis=1), strict=True):
        motion.state = state


def _measurement_variance(box: Floats) -> Floats:
    """Returns the variance of a detected box around that of each track, (T, 4)."""
    variance: Floats = (MEASUREMENT_NOISE * np.tile(box[:, 2:], 2)) ** 2
    return variance


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
    mean, _, variance, _, _ = _states(motions)
    variance = variance + _measurement_variance(mean)
    distance = ((boxes - mean[:, None]) ** 2 / variance[:, None]).sum(axis=-1)
    nu = DEGREES_OF_FREEDOM
    # The constant of the t distribution in four dimensions is Γ(ν/2 + 2) / Γ(ν/2) = (ν/2)(ν/2 + 1).
    constant = np.log(nu / 2 * (nu / 2 + 1)) - 2 * np.log(nu * np.pi)
    track = constant - np.log(variance).sum(axis=1)[:, None] / 2 - (nu + 4) / 2 * np.log1p(distance / nu)
    anywhere = -np.log(size[0] * size[1]) - np.log(boxes[:, 2:].clip(min=1e-3)).sum(axis=1)
    evidence: Floats = track - anywhere
    return evidence
