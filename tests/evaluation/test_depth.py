from __future__ import annotations

import pytest
import torch

from ssdir.evaluation.depth import depth_metrics
from ssdir.evaluation.matching import match_greedy
from ssdir.objects import Objects

from .fakes import boxes_to_objects

# The first two overlap, so do the next two; the last stands alone.
BOXES = [
    [0, 0, 0.4, 0.4],
    [0.1, 0.1, 0.5, 0.5],
    [0.5, 0.5, 0.8, 0.8],
    [0.6, 0.6, 0.9, 0.9],
    [0.6, 0, 0.9, 0.3],
]


def scene(depths: list[float], boxes: list[list[float]] = BOXES) -> Objects:
    return boxes_to_objects(boxes, z_depth=torch.tensor(depths, dtype=torch.float32))


def test_hand_made_order() -> None:
    targets, objects = scene([0, 1, 2, 3, 4]), scene([-5.0, -1.0, 9.0, 2.0, 0.0])
    metrics = depth_metrics(objects, targets, torch.arange(5))
    assert metrics == {"depth/pairs": 2, "depth/order_accuracy": 0.5, "depth/lower_edge_accuracy": 1}


def test_rows_follow_the_match() -> None:
    targets = scene([0, 1, 2, 3, 4])
    objects = targets[[4, 3, 1, 2, 0]]
    match = match_greedy(objects, targets)
    assert match.tolist() == [4, 3, 1, 2, 0]
    assert depth_metrics(objects, targets, match)["depth/order_accuracy"] == 1


def test_ties_are_errors_but_equally_deep_targets_do_not_count() -> None:
    everything = torch.arange(5)
    assert depth_metrics(scene([1.0] * 5), scene([0, 1, 2, 3, 4]), everything)["depth/order_accuracy"] == 0
    assert depth_metrics(scene([0, 1, 2, 3, 4]), scene([1.0] * 5), everything) == {"depth/pairs": 0}


def test_missed_objects_make_no_pairs() -> None:
    targets = scene([0, 1, 2, 3, 4])
    metrics = depth_metrics(targets, targets, torch.tensor([0, -1, 2, 3, 4]))
    assert metrics == {"depth/pairs": 1, "depth/order_accuracy": 1, "depth/lower_edge_accuracy": 1}


def test_lower_edges_are_those_of_detected_boxes() -> None:
    targets = scene([0, 1, 2, 3, 4])
    higher = [[x, y, right, below - 0.2 * (i % 2)] for i, (x, y, right, below) in enumerate(BOXES)]
    metrics = depth_metrics(scene([0, 1, 2, 3, 4], higher), targets, torch.arange(5))
    assert metrics["depth/lower_edge_accuracy"] == 0


def test_pairs_stay_within_their_image() -> None:
    one, other = scene([0.0], [BOXES[0]]), scene([1.0], [BOXES[1]])
    both = Objects.cat([one, other])
    assert depth_metrics(both, both, torch.arange(2)) == {"depth/pairs": 0}


@pytest.mark.parametrize("lacking", ["objects", "targets"])
def test_without_depth_there_is_nothing_to_say(lacking: str) -> None:
    objects, targets = scene([0, 1, 2, 3, 4]), scene([0, 1, 2, 3, 4])
    if lacking == "objects":
        objects = objects.replace(z_depth=None)
    else:
        targets = targets.replace(z_depth=None)
    assert depth_metrics(objects, targets, torch.arange(5)) == {}
