"""Tests of the share of boxes that anchors match, and of recommended anchors, which match more."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from data.real import real_data
from ssdir.data.learnable import usable_boxes
from ssdir.data.readers.registry import read_annotations
from ssdir.data_check.anchor_fit import (
    MAX_GROWTH,
    _weights,
    fit_anchors,
    full_size,
    match_levels,
    pyramid,
    recommend,
)
from ssdir.models.backbones.conv import ConvConfig
from ssdir.models.backbones.timm_net import TimmConfig
from ssdir.models.detector.ssd import MATCH_IOU, SSD, AnchorConfig, SSDConfig
from ssdir.ops.boxes import to_cxcywh, to_xyxy
from ssdir.training.recipe import read_recipe

WIDERFACE, needs_widerface = real_data("widerface")

CONFIG = SSDConfig(
    image_size=64,
    backbone=ConvConfig(channels=(8, 16, 16, 16), num_levels=3, top_down=8),
    anchors=AnchorConfig(min_sizes=(8, 16, 32), max_sizes=(16, 32, 56), aspect_ratios=(0.5,)),
)


def some_boxes(n: int, low: float, high: float, ratio: float = 1.0, seed: int = 0) -> Tensor:
    """Returns boxes with sides from `low` to `high`, all of one ratio, within the image."""
    generator = torch.Generator().manual_seed(seed)
    side = low + (high - low) * torch.rand(n, 1, generator=generator, dtype=torch.float64)
    sides = side * torch.tensor([ratio**0.5, ratio**-0.5], dtype=torch.float64)
    center = sides / 2 + torch.rand(n, 2, generator=generator, dtype=torch.float64) * (1 - sides)
    return torch.cat([center, sides], dim=1)


def share(boxes: Tensor, anchors: AnchorConfig, size: int, config: SSDConfig = CONFIG) -> float:
    iou = match_levels(boxes, anchors, pyramid(config, size), size)
    return float((iou.amax(dim=1) >= MATCH_IOU).double().mean())


def test_matches_agree_with_a_loop_over_the_detectors_own_anchors() -> None:
    boxes = some_boxes(40, 0.05, 0.6)
    iou = match_levels(boxes, CONFIG.anchors, pyramid(CONFIG), CONFIG.image_size)
    anchors = SSD(CONFIG, ["object"]).anchors
    counts = [cells**2 * CONFIG.anchors.num_per_cell for cells in pyramid(CONFIG)]
    assert sum(counts) == len(anchors)
    for row, box in enumerate(to_xyxy(boxes).tolist()):
        first = 0
        for level, count in enumerate(counts):
            best = 0.0
            for x1, y1, x2, y2 in to_xyxy(anchors[first : first + count]).tolist():
                width = max(min(box[2], x2) - max(box[0], x1), 0)
                height = max(min(box[3], y2) - max(box[1], y1), 0)
                union = (box[2] - box[0]) * (box[3] - box[1]) + (x2 - x1) * (y2 - y1) - width * height
                best = max(best, width * height / union)
            assert iou[row, level].item() == pytest.approx(best, abs=1e-5)
            first += count


def test_the_grid_is_the_backbones_and_loads_no_weights() -> None:
    config = SSDConfig(image_size=64, backbone=TimmConfig(name="resnet18", weights="hub", num_levels=3))
    assert pyramid(config) == [8, 4, 2]
    assert pyramid(CONFIG) == [16, 8, 4]
    assert pyramid(CONFIG, 128) == [32, 16, 8]


@pytest.mark.parametrize(
    ("low", "high", "ratio"),
    [(0.5, 0.9, 0.3), (0.2, 0.4, 3.0), (0.03, 0.06, 1.0), (0.01, 0.9, 1.0), (0.3, 0.3, 1.0)],
)
def test_recommended_anchors_match_no_fewer(low: float, high: float, ratio: float) -> None:
    boxes = some_boxes(300, low, high, ratio)
    better = recommend(boxes, [500] * 10, 0.5, CONFIG)
    assert better.anchors.num_per_cell == CONFIG.anchors.num_per_cell
    assert len(better.anchors.min_sizes) == 3
    assert better.nms_threshold == 0.5
    before = share(boxes, CONFIG.anchors, 64)
    after = share(boxes, better.anchors, better.image_size)
    assert after >= before
    if before < 0.9:
        assert after > before + 0.05


def test_ratios_are_learned() -> None:
    boxes = some_boxes(300, 0.3, 0.5, ratio=4)
    assert share(boxes, CONFIG.anchors, 64) < 0.2
    assert share(boxes, fit_anchors(boxes, CONFIG, pyramid(CONFIG), 64), 64) > 0.85


def test_a_sliver_has_no_anchor_of_its_own() -> None:
    boxes = torch.cat([some_boxes(100, 0.3, 0.5), torch.tensor([[0.2, 0.5, 0.0001, 0.9]], dtype=torch.float64)])
    anchors = CONFIG.anchors.model_copy(update={"aspect_ratios": (0.5, 0.25)})
    config = CONFIG.model_copy(update={"anchors": anchors})
    assert min(fit_anchors(boxes, config, pyramid(config), 64).aspect_ratios) >= 0.15


def test_many_small_boxes_do_not_displace_all_large_ones() -> None:
    small, large = some_boxes(1500, 0.06, 0.12), some_boxes(100, 0.5, 0.8)
    anchors = fit_anchors(torch.cat([small, large]), CONFIG, pyramid(CONFIG), 64)
    assert share(large, anchors, 64) > 0.8


@needs_widerface
def test_small_boxes_do_not_displace_large_ones_on_real_faces() -> None:
    table = read_annotations(WIDERFACE, "val")
    boxes = to_cxcywh(torch.from_numpy(usable_boxes(table)[1]))
    config = read_recipe("tiny").model.ssd
    better = recommend(boxes, [1024], 0.5, config)
    assert better.image_size == 256
    large = boxes[boxes[:, 2:].amax(dim=1) > 0.5]
    assert len(large) > 5
    assert share(large, better.anchors, 256, config) >= share(large, config.anchors, 128, config)


def test_octaves_of_size_weigh_by_the_root_of_their_number() -> None:
    weights = _weights(torch.cat([some_boxes(100, 0.07, 0.12), some_boxes(4, 0.6, 0.9)]))
    assert weights[:100].sum().item() == pytest.approx(10 / 12)
    assert weights[100:].sum().item() == pytest.approx(2 / 12)


@pytest.mark.slow
def test_the_fit_is_the_same_each_time() -> None:
    boxes = some_boxes(4000, 0.05, 0.5)
    assert recommend(boxes, [500], 0.5, CONFIG) == recommend(boxes, [500], 0.5, CONFIG)


def test_the_image_grows_with_small_objects_within_limits() -> None:
    small = some_boxes(100, 0.08, 0.1)
    assert full_size(small) == 128  # 8 px of 0.08 are 100 px, of 0.082 97 px
    assert recommend(small, [500], 0.5, CONFIG).image_size == 128
    # Not beyond the images' own size, nor beyond twice the detector's; large objects need no more than there is.
    assert recommend(small, [100], 0.5, CONFIG).image_size == 96
    tiny = some_boxes(100, 0.01, 0.02)
    assert recommend(tiny, [500], 0.5, CONFIG).image_size == MAX_GROWTH * 64
    assert full_size(tiny) > 512
    assert recommend(some_boxes(100, 0.3, 0.5), [500], 0.5, CONFIG).image_size == 64


def test_without_boxes_all_stays() -> None:
    kept = recommend(torch.zeros(0, 4), [500], 0.45, CONFIG)
    assert (kept.image_size, kept.anchors) == (64, CONFIG.anchors)
