"""Tests of second views: warped images, and copy-paste views."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ssdir.models.detected.views import (
    CUT_OUT_MARGIN,
    ViewConfig,
    cut_out,
    erase_rectangles,
    jitter_boxes,
    random_views,
    second_view,
    vary_strokes,
    view_images,
    view_objects,
)
from ssdir.objects import Objects
from ssdir.ops.distributed import rows_of

CPU = torch.device("cpu")
MIN_SIDE = 6 / 128


def rectangle_scene(B: int, size: int = 128) -> tuple[Tensor, Objects]:
    """Returns images with a white rectangle each, and its box."""
    images = torch.zeros(B, 1, size, size)
    images[:, :, 40:70, 50:80] = 1
    z_where = torch.tensor([[65.0, 55.0, 30.0, 30.0]]).repeat(B, 1) / size
    return images, Objects(torch.arange(B), B, z_where)


def test_boxes_follow_a_zoom_and_a_shift_exactly() -> None:
    torch.manual_seed(0)
    images, objects = rectangle_scene(16)
    linear, offset = random_views(rows_of(16, CPU), ViewConfig(rotation=0, shear=0, zoom=1.5))
    views = view_images(images, linear, offset)
    moved, kept = view_objects(objects, linear, offset, min_side=0.01)
    assert kept.sum() > 8
    for view, box in zip(views[kept], moved[kept].boxes_px((128, 128)), strict=True):
        y, x = (view[0] > 0.5).nonzero(as_tuple=True)
        ink = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1])
        assert (ink - box).abs().max() < 1


def test_a_turned_disc_keeps_its_box() -> None:
    disc = Objects(torch.zeros(1, dtype=torch.int64), 1, torch.tensor([[0.5, 0.5, 0.4, 0.4]]))
    angle = math.radians(30)
    turn = torch.tensor([[[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]])
    moved, _ = view_objects(disc, turn, torch.zeros(1, 2), min_side=0.01)
    assert torch.allclose(moved.z_where, disc.z_where, atol=1e-6)


def test_objects_that_leave_the_view_or_shrink_too_far_are_not_compared() -> None:
    _, objects = rectangle_scene(3)
    linear = torch.eye(2).repeat(3, 1, 1) * torch.tensor([1.0, 1.0, 0.1])[:, None, None]
    offset = torch.tensor([[0.0, 0.0], [1.5, 0.0], [0.0, 0.0]])
    _, kept = view_objects(objects, linear, offset, min_side=0.05)
    assert kept.tolist() == [True, False, False]


def test_elastic_distortion_moves_points_by_what_was_asked_and_not_all_alike() -> None:
    torch.manual_seed(0)
    size, elastic = 64, 0.02
    ramp = ((torch.arange(size) + 0.5) / size).expand(8, 1, size, size)
    still = torch.eye(2).repeat(8, 1, 1), torch.zeros(8, 2)
    inner = slice(8, -8)
    shifts = (view_images(ramp, *still, elastic) - ramp)[:, 0, inner, inner]
    assert 0.5 * elastic < shifts.std() < elastic, "a shift of the ramp is a change of its grey"
    assert (shifts.amax(dim=(1, 2)) - shifts.amin(dim=(1, 2))).min() > elastic
    assert torch.allclose(view_images(ramp, *still), ramp, atol=1e-5)


def test_strokes_become_thicker_or_thinner_within_their_neighbourhood() -> None:
    torch.manual_seed(0)
    images, _ = rectangle_scene(32)
    varied = vary_strokes(images, 1.0)
    ink = varied.sum(dim=(1, 2, 3)) / images.sum(dim=(1, 2, 3))
    assert ink.min() < 0.95
    assert ink.max() > 1.05
    changed = (varied - images).abs().amax(dim=(0, 1)).nonzero()
    assert changed.min() >= 39, "only the border of the rectangle changes"
    assert changed.max() <= 80
    assert torch.equal(vary_strokes(images, 0.0), images)


def test_random_erasing_hides_rectangles_of_the_stated_size_with_one_grey() -> None:
    torch.manual_seed(0)
    images = torch.full((64, 3, 100, 100), 2.0)
    hidden = erase_rectangles(images, 1) != 2.0
    assert (hidden.any(dim=1) == hidden.all(dim=1)).all(), "all channels together"
    sides = torch.stack([hidden[:, 0].any(dim=d).sum(dim=1) for d in (1, 2)])
    assert sides.max() <= 12
    assert sides.float().mean() == pytest.approx(7, abs=1)
    assert torch.equal(sides.prod(dim=0), hidden[:, 0].sum(dim=(1, 2))), "full rectangles"
    greys = erase_rectangles(images, 1).amin(dim=(1, 2, 3))
    assert greys.max() <= 1
    assert greys.std() > 0.1
    assert torch.equal(erase_rectangles(images, 0), images)


def test_strokes_are_dilated_by_the_largest_and_eroded_by_the_smallest_of_nine_pixels() -> None:
    torch.manual_seed(0)
    images = torch.rand(6, 3, 9, 7)
    varied = vary_strokes(images, 1.0)
    torch.manual_seed(0)
    torch.rand(6, 3, 9, 7)
    share = 2 * torch.rand(6, 1, 1, 1) - 1
    assert (share > 0).any()
    assert (share < 0).any()
    grown, shrunk = F.max_pool2d(images, 3, 1, 1), -F.max_pool2d(-images, 3, 1, 1)
    expected = images + share.abs() * (torch.where(share > 0, grown, shrunk) - images)
    assert torch.allclose(varied, expected, atol=1e-6)


def coloured_scenes(B: int = 8, size: int = 128) -> tuple[Tensor, Objects]:
    """Returns images with two filled rectangles each, one wide and one high, each of a colour of its own."""
    torch.manual_seed(1)
    images = torch.zeros(B, 3, size, size)
    boxes, index = [], []
    for image in range(B):
        side = 12 + 3 * image
        for number, (left, top, width, height) in enumerate(((8, 8, 2 * side, side), (80, 70, side // 2, side))):
            images[image, :, top : top + height, left : left + width] = 0.2 + 0.8 * torch.rand(3, 1, 1)
            boxes.append([left + width / 2, top + height / 2, width, height])
            index.append(image)
            assert number in (0, 1)
    return images, Objects(torch.tensor(index), B, torch.tensor(boxes) / size)


PLAIN = ViewConfig(view="copy_paste", zoom=1, rotation=0, shear=0)


def test_copy_paste_views_show_each_object_once_with_its_own_colour_and_shape() -> None:
    images, objects = coloured_scenes()
    view = second_view(images, objects, PLAIN, 0.01)
    assert sorted(view.rows.tolist()) == list(range(len(objects)))
    assert (view.rows != torch.arange(len(objects))).any()
    center = (objects.z_where[:, :2] * 128).long()
    colour = images[objects.image_index, :, center[:, 1], center[:, 0]]
    new = view.objects.z_where
    there = (new[:, :2] * 128).long()
    seen = view.images[view.objects.image_index, :, there[:, 1], there[:, 0]]
    assert torch.allclose(seen, colour[view.rows], atol=0.02)
    aspect = objects.z_where[:, 2] / objects.z_where[:, 3]
    assert torch.allclose(new[:, 2] / new[:, 3], aspect[view.rows], rtol=1e-3)


def test_copy_paste_views_give_an_object_the_place_and_the_size_of_another() -> None:
    images, objects = coloured_scenes()
    view = second_view(images, objects, PLAIN, 0.01)
    assert torch.equal(view.objects.image_index, objects.image_index)
    assert torch.allclose(view.objects.z_where[:, 2:].amax(dim=1), objects.z_where[:, 2:].amax(dim=1))
    moved = (view.objects.z_where[:, :2] - objects.z_where[:, :2]).abs() * 128
    assert moved.median() < 1, "but for those that would reach over the border"
    low = view.objects.boxes
    assert (low[:, :2] > -1e-6).all()
    assert (low[:, 2:] < 1 + 1e-6).all()


def test_copy_paste_views_have_boxes_that_are_tight_around_the_pasted_pixels() -> None:
    images, objects = coloured_scenes(1)
    one = objects[torch.tensor([0])]
    for _ in range(5):
        view = second_view(images, one, ViewConfig(view="copy_paste", zoom=1.5, rotation=0, shear=0), 0.01)
        y, x = (view.images[0].amax(dim=0) > 0.1).nonzero(as_tuple=True)
        ink = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1])
        assert (ink - view.objects.boxes_px((128, 128))[0]).abs().max() <= 2


def test_a_cut_out_shows_its_object_turned_in_the_middle_of_a_margin() -> None:
    images, objects = coloured_scenes(1)
    wide = objects[torch.tensor([0])]
    quarter = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]])
    picture, extent = cut_out(images, wide, quarter)
    assert torch.allclose(extent, wide.z_where[:, [3, 2]])
    ink = picture[0].amax(dim=0) > 0.1
    share = 1 / CUT_OUT_MARGIN
    assert ink.any(dim=1).float().mean().item() == pytest.approx(share, abs=0.06)
    assert ink.any(dim=0).float().mean().item() == pytest.approx(share, abs=0.06)
    assert torch.equal(ink, ink.flip(0))
    assert torch.equal(ink, ink.flip(1))


def test_boxes_are_off_by_what_was_asked() -> None:
    torch.manual_seed(0)
    boxes = torch.tensor([[0.5, 0.5, 0.1, 0.2]]).repeat(4000, 1)
    objects = Objects(torch.zeros(4000, dtype=torch.int64), 1, boxes)
    errors = (jitter_boxes(objects, 0.05).z_where - boxes) / boxes[:, [2, 3, 2, 3]]
    assert errors.std(dim=0).tolist() == pytest.approx([0.05] * 4, rel=0.05)
    assert errors.mean(dim=0).abs().max() < 0.005
    assert torch.equal(jitter_boxes(objects, 0.0).z_where, boxes)


@pytest.mark.parametrize("view_kind", ["warp", "copy_paste"])
def test_no_object_is_seen_again_as_no_object(view_kind: str) -> None:
    none = Objects.empty(2)
    view = second_view(torch.rand(2, 3, 32, 32), none, ViewConfig.model_validate({"view": view_kind}), 0.1)
    assert len(view.rows) == len(view.objects) == 0
    assert view.images.shape == (2, 3, 32, 32)
