from math import sqrt

import torch
from torchvision.ops import box_iou

from ssdir.ops.anchors import level_anchors, level_iou
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
