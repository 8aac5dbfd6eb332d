import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdir.data.readers.clevr.cameras import NOMINAL_POSITION, Camera
from ssdir.data.readers.clevr.geometry import (
    BEVELS,
    Solids,
    cover_pixels,
    project_boxes,
    silhouette_areas,
    silhouettes,
)

from .clevr_scenes import OBJECTS, box_of, camera_at, make_scene, render_masks, solids_of

jitters = st.tuples(*[st.floats(-0.5, 0.5)] * 3)
places = st.tuples(st.floats(-3, 3), st.floats(-3, 3))
LARGE = (2000, 3000)


def one(shape, place, half=0.7, rotation=0.0):
    return Solids(np.array([shape]), np.array([[*place, half]]), np.array([half]), np.array([rotation]))


def unclipped(camera, solids, bevels=None):
    right, bottom, left, top = silhouettes(camera, solids, 4, bevels)[0]
    return [left[0], top[1], right[0], bottom[1]]


def around(points):
    return [*points[:, :2].min(axis=0), *points[:, :2].max(axis=0)]


@given(jitters, places, st.floats(0, 360))
def test_a_sharp_cube_reaches_as_far_as_its_corners(jitter, place, rotation):
    camera = Camera(NOMINAL_POSITION + jitter, LARGE)
    cos, sin = np.cos(rotation), np.sin(rotation)
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    turned = corners @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    expected = around(camera.project([*place, 0.7] + 0.7 * turned))
    solids = one("cube", place, rotation=rotation)
    assert unclipped(camera, solids, {"cube": 0.0}) == pytest.approx(expected, abs=1e-6)


@given(jitters, places, st.sampled_from([0.35, 0.7]))
def test_a_sphere_is_bounded_by_its_tangents(jitter, place, half):
    """A plane through the camera is a tangent where its distance from the centre is the radius (a quadratic)."""
    camera = Camera(NOMINAL_POSITION + jitter, LARGE)
    center = camera.axes @ (np.array([*place, half]) - camera.position)
    bounds = []
    for axis in (0, 1):
        quadratic = [center[2] ** 2 - half**2, -2 * center[axis] * center[2], center[axis] ** 2 - half**2]
        bounds.append(np.sort(np.roots(quadratic).real) * camera.focal_px + camera.center_px[axis])
    (left, right), (top, bottom) = bounds
    assert unclipped(camera, one("sphere", place, half)) == pytest.approx([left, top, right, bottom], abs=1e-5)


@pytest.mark.parametrize("shape", ["cube", "cylinder"])
@pytest.mark.parametrize("jitter", [(0.0, 0, 0), (0.4, -0.5, 0.3)])
def test_rounded_solids_contain_just_the_points_of_their_surface(shape, jitter):
    camera = camera_at(jitter, LARGE)
    solids = one(shape, (1.2, -0.7), rotation=77.0)
    directions = np.random.default_rng(0).normal(size=(1, 200_000, 3))
    surface = solids.centers + solids.farthest(directions, BEVELS)[0]
    outer, inner = unclipped(camera, solids), around(camera.project(surface))
    assert outer == pytest.approx(inner, abs=1.0)
    assert outer[0] <= inner[0] + 1e-9
    assert outer[1] <= inner[1] + 1e-9
    assert outer[2] >= inner[2] - 1e-9
    assert outer[3] >= inner[3] - 1e-9


@pytest.mark.parametrize("jitter", [(0.0, 0, 0), (0.4, -0.5, 0.3), (-0.5, 0.3, -0.5)])
def test_boxes_and_areas_are_those_of_rays(jitter):
    camera = camera_at(jitter, (160, 240))
    solids = solids_of(make_scene(OBJECTS, camera, "a.png"))
    alone, _ = render_masks(camera, solids)
    boxes = cover_pixels(project_boxes(camera, solids))
    expected = np.array([box_of(mask) for mask in alone])
    assert np.abs(boxes - expected).max() <= 1
    assert (boxes == expected).mean() >= 0.85
    assert silhouette_areas(camera, solids) == pytest.approx(alone.sum(axis=(1, 2)), rel=0.03)


def test_boxes_are_clipped_to_the_image():
    camera = camera_at((0, 0, 0), (240, 320))
    places = [(7.0, 1.0, 0.7), (0.0, 0.0, 0.7), (-9.0, -9.0, 0.7)]
    solids = Solids(np.array(["cube"] * 3), np.array(places), np.full(3, 0.7), np.zeros(3))
    boxes = project_boxes(camera, solids)
    assert (boxes >= 0).all()
    assert (boxes[:, 2:] <= [320, 240]).all()
    assert (boxes[1, 2:] > boxes[1, :2]).all()
    assert boxes[2, 0] == boxes[2, 2] == 0


def test_no_solids_have_no_boxes():
    none = Solids(np.array([], dtype=str), np.zeros((0, 3)), np.zeros(0), np.zeros(0))
    assert project_boxes(camera_at((0, 0, 0)), none).shape == (0, 4)
    assert silhouette_areas(camera_at((0, 0, 0)), none).shape == (0,)


def test_covered_pixels_are_those_whose_centre_is_inside():
    boxes = np.array([[0.4, 0.6, 2.4, 2.6], [0.0, 0.0, 320.0, 240.0]])
    assert cover_pixels(boxes).tolist() == [[0, 1, 2, 3], [0, 0, 320, 240]]
