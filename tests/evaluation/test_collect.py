from __future__ import annotations

import torch

from ssdir.objects import Objects

from .fakes import boxes_to_objects


def test_images_without_objects_take_no_field_away() -> None:
    one = boxes_to_objects([[0, 0, 0.5, 0.5]], z_depth=torch.ones(1), z_what=torch.ones(1, 3))
    objects = Objects.cat([Objects.empty(2), one, Objects.empty(1), one])
    assert objects.batch_size == 5
    assert objects.image_index.tolist() == [2, 4]
    assert objects.z_depth is not None
    assert objects.z_depth.tolist() == [1, 1]
    assert objects.z_what is not None
    assert objects.z_what.shape == (2, 3)


def test_nothing_but_empty_images() -> None:
    objects = Objects.cat([Objects.empty(2), Objects.empty(3)])
    assert (len(objects), objects.batch_size) == (0, 5)
