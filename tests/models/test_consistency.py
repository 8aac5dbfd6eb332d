"""The second view and the contrast of codes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ssdir.models.consistency import (
    ConsistencyConfig,
    hide_patches,
    info_nce,
    random_views,
    vary_strokes,
    view_images,
    view_objects,
)
from ssdir.objects import Objects

CPU = torch.device("cpu")


def rectangle_scene(B: int, size: int = 128) -> tuple[Tensor, Objects]:
    """A white rectangle per image, and its box."""
    images = torch.zeros(B, 1, size, size)
    images[:, :, 40:70, 50:80] = 1
    z_where = torch.tensor([[65.0, 55.0, 30.0, 30.0]]).repeat(B, 1) / size
    return images, Objects(torch.arange(B), B, z_where)


def test_boxes_follow_a_zoom_and_a_shift_exactly() -> None:
    torch.manual_seed(0)
    images, objects = rectangle_scene(16)
    linear, offset = random_views(16, ConsistencyConfig(rotation=0, shear=0, zoom=1.5), CPU)
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


def test_patches_hide_rectangles_of_the_stated_size_with_one_grey() -> None:
    torch.manual_seed(0)
    images = torch.full((64, 3, 100, 100), 2.0)
    hidden = hide_patches(images, 1) != 2.0
    assert (hidden.any(dim=1) == hidden.all(dim=1)).all(), "all channels together"
    sides = torch.stack([hidden[:, 0].any(dim=d).sum(dim=1) for d in (1, 2)])
    assert sides.max() <= 12
    assert sides.float().mean() == pytest.approx(7, abs=1)
    assert torch.equal(sides.prod(dim=0), hidden[:, 0].sum(dim=(1, 2))), "full rectangles"
    greys = hide_patches(images, 1).amin(dim=(1, 2, 3))
    assert greys.max() <= 1
    assert greys.std() > 0.1
    assert torch.equal(hide_patches(images, 0), images)


def test_info_nce_is_the_loop_over_rows() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(5, 3), torch.randn(5, 3)
    total = 0.0
    for one, other in ((first, second), (second, first)):
        for i in range(5):
            cosines = [torch.cosine_similarity(one[i], other[j], dim=0).item() / 0.2 for j in range(5)]
            total -= math.log(math.exp(cosines[i]) / sum(math.exp(c) for c in cosines)) / 10
    assert info_nce(first, second, 0.2).item() == pytest.approx(total, rel=1e-5)


def test_partners_are_rewarded_and_nothing_is_worth_nothing() -> None:
    codes = torch.eye(6)
    assert info_nce(codes, codes, 0.1) < 0.01
    assert info_nce(codes, codes.roll(1, 0), 0.1) > 5
    assert info_nce(torch.zeros(0, 4), torch.zeros(0, 4), 0.1) == 0
