import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

from ssdir.data.readers.clevr.cameras import NOMINAL_POSITION, Camera, largest_error_px, recover_camera

jitters = st.tuples(*[st.floats(-0.5, 0.5)] * 3)
sizes = st.sampled_from([(240, 320), (320, 480), (128, 128), (480, 320)])


@st.composite
def points(draw, min_size, max_size=10):
    """Generates centres as CLEVR places them: within 3 of the origin, at least 0.5 apart, on the ground."""
    grid = draw(
        st.lists(
            st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=min_size, max_size=max_size, unique=True
        )
    )
    heights = draw(st.lists(st.sampled_from([0.35, 0.7]), min_size=len(grid), max_size=len(grid)))
    return np.array([(0.55 * x, 0.55 * y, z) for (x, y), z in zip(grid, heights, strict=True)])


def seen_by(camera, centers, rounded=True):
    seen = camera.project(centers)
    if rounded:
        seen[:, :2] = np.round(seen[:, :2])
    return seen


def spread(centers):
    """Returns how far the centres are from lying on one line."""
    return np.linalg.svd(centers[:, :2] - centers[:, :2].mean(axis=0), compute_uv=False)[-1]


@given(jitters, points(3), sizes)
def test_a_camera_is_recovered(jitter, centers, size):
    camera = Camera(NOMINAL_POSITION + jitter, size)
    seen = seen_by(camera, centers)
    recovered = recover_camera(centers, seen, size)
    assert largest_error_px(recovered, centers, seen) <= 0.75
    assert np.abs(recovered.project(centers)[:, 2] - seen[:, 2]).max() < 1e-3
    if spread(centers) > 1:
        assert recovered.position == pytest.approx(camera.position, abs=0.01)


@given(jitters, points(1, 2), sizes)
def test_one_or_two_objects_give_a_camera_that_sees_them_there(jitter, centers, size):
    seen = seen_by(Camera(NOMINAL_POSITION + jitter, size), centers)
    recovered = recover_camera(centers, seen, size)
    assert largest_error_px(recovered, centers, seen) <= 0.75
    assert np.abs(recovered.project(centers)[:, 2] - seen[:, 2]).max() < 1e-3
    assert np.abs(recovered.position - NOMINAL_POSITION).max() < 1.5


def test_without_objects_the_camera_is_the_nominal_one():
    none = np.zeros((0, 3))
    recovered = recover_camera(none, none, (240, 320))
    assert recovered.position == pytest.approx(NOMINAL_POSITION)
    assert largest_error_px(recovered, none, none) == 0


@settings(max_examples=20)
@given(jitters, points(4))
def test_another_solver_gives_the_same_camera(jitter, centers):
    assume(spread(centers) > 1)  # On one line, the prior decides as well.
    camera = Camera(NOMINAL_POSITION + jitter, (240, 320))
    seen = seen_by(camera, centers, rounded=False)

    def residuals(position):
        return (Camera(position, (240, 320)).project(centers) - seen).ravel()

    expected = least_squares(residuals, NOMINAL_POSITION, xtol=1e-12, ftol=1e-12).x
    assert expected == pytest.approx(camera.position, abs=1e-4)
    assert recover_camera(centers, seen, (240, 320)).position == pytest.approx(expected, abs=0.01)


def test_projection_follows_blenders_conventions():
    camera = Camera(np.array([0.0, -10.0, 0.0]), (200, 320))
    seen = camera.project(np.array([[0.0, 0, 0], [1, 0, 0], [0, 0, 1], [0, -5, 0]]))
    focal = 35 / 32 * 320
    assert seen == pytest.approx(
        np.array([[160, 100, 10], [160 + focal / 10, 100, 10], [160, 100 - focal / 10, 10], [160, 100, 5]])
    )
    portrait = Camera(camera.position, (320, 200))  # The sensor is fitted to the longer side.
    assert portrait.project(np.array([[1.0, 0, 0]]))[0] == pytest.approx([100 + focal / 10, 160, 10])


@given(jitters)
def test_axes_are_a_frame(jitter):
    position = NOMINAL_POSITION + jitter
    right, down, forward = Camera(position, (240, 320)).axes
    assert np.cross(right, down) == pytest.approx(forward)
    assert right[2] == 0
    assert down[2] < 0
    assert forward == pytest.approx(-position / np.linalg.norm(position))


def test_the_first_published_validation_scene():
    """The coordinates of CLEVR v1.0 (CC BY 4.0), CLEVR_val_000000.png, 480 x 320, fit to within rounding."""
    centers = np.array(
        [
            [-1.4937210083007812, -1.9936031103134155, 0.699999988079071],
            [1.555708646774292, -2.104736566543579, 0.699999988079071],
            [-2.342184543609619, -0.5205014944076538, 0.3499999940395355],
            [-0.8073106408119202, 1.914123773574829, 0.699999988079071],
            [2.6763813495635986, 0.03453871235251427, 0.3499999940395355],
        ]
    )
    seen = np.array(
        [
            [119, 131, 10.801968574523926],
            [198, 190, 8.60103988647461],
            [161, 118, 12.372727394104004],
            [282, 100, 12.495001792907715],
            [337, 195, 9.161211967468262],
        ]
    )
    camera = recover_camera(centers, seen, (320, 480))
    assert largest_error_px(camera, centers, seen) < 0.5
    assert np.abs(camera.project(centers)[:, 2] - seen[:, 2]).max() < 1e-5
    assert np.abs(camera.position - NOMINAL_POSITION).max() < 0.5
    wrong = recover_camera(centers, seen, (240, 320))
    assert largest_error_px(wrong, centers, seen) > 10
