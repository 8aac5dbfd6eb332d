from math import sqrt

import torch
from torchvision.ops import box_iou

from ssdir.ops.anchors import AnchorLevel, assign_anchors, level_anchors, level_iou
from ssdir.ops.boxes import to_xyxy


def test_paper_pyramid_has_880() -> None:
    assert sum(len(level_anchors(cells, 0.1, 0.2)) for cells in (18, 9, 5, 3, 1)) == 880


def test_values_of_a_cell_by_hand() -> None:
    anchors = level_anchors(4, 0.1, 0.4, aspect_ratios=(2.0,)).view(4, 4, 3, 4)
    cell = anchors[1, 2]  # second row, third column
    expected = torch.tensor(
        [
            [0.625, 0.375, 0.1, 0.1],
            [0.625, 0.375, 0.2, 0.2],
            [0.625, 0.375, 0.1 * sqrt(2), 0.1 / sqrt(2)],
        ]
    )
    torch.testing.assert_close(cell, expected)


def test_aspect_ratios_keep_the_area() -> None:
    anchors = level_anchors(1, 0.3, 0.3, aspect_ratios=(0.5, 3.0))
    torch.testing.assert_close(anchors[:, 2] * anchors[:, 3], torch.full((4,), 0.09))
    torch.testing.assert_close(anchors[2:, 2] / anchors[2:, 3], torch.tensor([0.5, 3.0]))


def test_level_iou_is_the_best_of_all_anchors() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(500, 4, generator=generator, dtype=torch.float64)
    boxes[:, 2:] = boxes[:, 2:] ** 3 + 0.005
    boxes[0] = torch.tensor([1, 0, 0.2, 0.1])  # on the corner
    boxes[1] = torch.tensor([0.25, 0.5, 0.2, 0.1])  # between cells
    for cells, low, high, ratios in [(8, 0.05, 0.2, ()), (4, 0.2, 0.4, (0.5, 3.0)), (1, 0.9, 1.0, (0.25,))]:
        anchors = level_anchors(cells, low, high, ratios).double()
        best = box_iou(to_xyxy(boxes), to_xyxy(anchors)).amax(dim=1)
        torch.testing.assert_close(level_iou(boxes, cells, low, high, ratios), best, rtol=0, atol=1e-6)


def test_level_iou_of_no_boxes() -> None:
    assert level_iou(torch.zeros(0, 4), 4, 0.1, 0.2).shape == (0,)


def test_a_box_takes_the_best_anchor_of_all_levels() -> None:
    g = torch.Generator().manual_seed(1)
    boxes = torch.cat([torch.rand(400, 2, generator=g), 0.03 + 0.7 * torch.rand(400, 2, generator=g) ** 2], dim=1)
    levels = [
        AnchorLevel(9, 0.06, 0.15, (0.7,)),
        AnchorLevel(4, 0.15, 0.35, (0.7, 2.0)),
        AnchorLevel(1, 0.35, 0.8),
    ]
    anchors = torch.cat([level_anchors(*level) for level in levels])
    overlaps = box_iou(to_xyxy(boxes), to_xyxy(anchors))
    assigned = assign_anchors(boxes, levels)
    assigned_overlaps = overlaps.gather(1, assigned[:, None])[:, 0]
    torch.testing.assert_close(assigned_overlaps, overlaps.amax(dim=1), rtol=0, atol=1e-6)
    assert assign_anchors(boxes[:0], levels).shape == (0,)


def test_a_box_within_many_anchors_takes_that_of_its_own_cell() -> None:
    speck = torch.tensor([[0.61, 0.13, 0.01, 0.01]])
    levels = [AnchorLevel(10, 0.5, 0.6), AnchorLevel(2, 0.8, 0.9)]
    assert assign_anchors(speck, levels).tolist() == [2 * (1 * 10 + 6)]
