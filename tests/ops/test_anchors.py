from math import sqrt

import torch

from ssdir.ops.anchors import level_anchors


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
