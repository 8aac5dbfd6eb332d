"""The Kalman filters of boxes equal those of the package `trackers`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ssdir.tracking import motion
from ssdir.tracking.motion import BoxMotion, motion_evidence, predict, update


class _Oracle:
    """The same filter by `trackers`, whose matrices are set at each step."""

    def __init__(self, box: NDArray[np.float64]) -> None:
        representations = pytest.importorskip("trackers.utils.state_representations")
        self.filter: Any = representations.XCYCWHStateEstimator(_corners(box))
        first = [2 * motion.MEASUREMENT_NOISE] * 4 + [motion.FIRST_VELOCITY] * 4
        self.filter.set_kf_covariances(state_covariance=np.diag((first * self._side(2)) ** 2))

    def predict(self) -> None:
        noise = [motion.POSITION_NOISE] * 4 + [motion.VELOCITY_NOISE] * 4
        self.filter.set_kf_covariances(process_noise=np.diag((noise * self._side(2)) ** 2))
        self.filter.predict()

    def update(self, box: NDArray[np.float64]) -> None:
        noise = np.diag((motion.MEASUREMENT_NOISE * self._side(1)) ** 2)
        self.filter.set_kf_covariances(measurement_noise=noise)
        self.filter.update(_corners(box))

    def _side(self, times: int) -> NDArray[np.float64]:
        return np.tile(self.filter.kf.state[2:4, 0], 2 * times)


def _corners(box: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([box[:2] - box[2:] / 2, box[:2] + box[2:] / 2])


def test_filters_equal_those_of_trackers() -> None:
    rng = np.random.default_rng(0)
    boxes = rng.uniform([0, 0, 10, 10], [100, 100, 30, 30], (5, 4))
    ours, oracles = [BoxMotion(box) for box in boxes], [_Oracle(box) for box in boxes]
    for _ in range(30):
        predict(ours)
        boxes = boxes + rng.normal(1, 1, boxes.shape)
        seen = np.flatnonzero(rng.random(5) < 0.7)
        update([ours[row] for row in seen], boxes[seen])
        for row, oracle in enumerate(oracles):
            oracle.predict()
            if row in seen:
                oracle.update(boxes[row])
            covariance = oracle.filter.kf.state_covariance
            np.testing.assert_allclose(ours[row].state[:2].ravel(), oracle.filter.kf.state[:, 0], rtol=1e-8)
            np.testing.assert_allclose(ours[row].state[2], np.diag(covariance)[:4], rtol=1e-8)
            np.testing.assert_allclose(ours[row].state[3], np.diag(covariance[:4, 4:]), rtol=1e-8, atol=1e-9)
            np.testing.assert_allclose(ours[row].state[4], np.diag(covariance)[4:], rtol=1e-8)


def test_a_box_where_the_track_is_expected_is_evidence_for_it() -> None:
    track = BoxMotion(np.array([50.0, 50, 10, 10]))
    for step in range(1, 6):
        predict([track])
        update([track], np.array([[50.0 + 3 * step, 50, 10, 10]]))
    predict([track])
    near, far = motion_evidence([track], np.array([[68.0, 50, 10, 10], [20, 50, 10, 10]]), (100, 100))[0]
    assert near > 0 > far


def test_sides_stay_positive_and_no_tracks_are_fine() -> None:
    track = BoxMotion(np.array([50.0, 50, 10, 10]))
    for side in (8.0, 5, 2, 0.1):
        predict([track])
        update([track], np.array([[50.0, 50, side, side]]))
    for _ in range(50):
        predict([track])
    assert (track.box[2:] > 0).all()
    predict([])
    update([], np.zeros((0, 4)))
    assert motion_evidence([], np.zeros((2, 4)), (10, 10)).shape == (0, 2)
