from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from ssdir.evaluation.matching import best_target, match_greedy, paired_iou, pairs_within_images
from ssdir.objects import Objects

from .fakes import boxes_to_objects, jittered, random_objects


def naive_match(predictions: Objects, targets: Objects, threshold: float) -> list[int]:
    """Takes the pair of largest overlap among all pairs of an image, removes both of its boxes, and repeats."""
    iou = box_iou(predictions.boxes, targets.boxes)
    match = [-1] * len(predictions)
    while True:
        best = None
        for row in range(len(predictions)):
            for column in range(len(targets)):
                if predictions.image_index[row] != targets.image_index[column]:
                    continue
                if match[row] >= 0 or column in match or iou[row, column] < threshold:
                    continue
                if best is None or iou[row, column] > iou[best]:
                    best = (row, column)
        if best is None:
            return match
        match[best[0]] = best[1]


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(0, 4), st.sampled_from([0.1, 0.3, 0.5, 0.9]))
def test_greedy_matches_the_naive_loop(seed: int, images: int, most: int, threshold: float) -> None:
    targets = random_objects(seed, images, most)
    predictions = jittered(targets, seed, noise=0.15)
    assert match_greedy(predictions, targets, threshold).tolist() == naive_match(predictions, targets, threshold)


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(0, 4))
def test_best_target_is_the_largest_overlap_of_the_image(seed: int, images: int, most: int) -> None:
    targets = random_objects(seed, images, most)
    predictions = jittered(targets, seed, noise=0.15)
    iou = box_iou(predictions.boxes, targets.boxes)
    iou = iou.masked_fill(predictions.image_index[:, None] != targets.image_index, -1)
    expected = [int(row.argmax()) if len(row) and row.max() >= 0.5 else -1 for row in iou]
    assert best_target(predictions, targets).tolist() == expected


def test_pairs_stay_within_their_image() -> None:
    first, second = random_objects(0, 7, 5), random_objects(1, 7, 5)
    rows, columns = pairs_within_images(first, second)
    expected = [
        (row, column)
        for row in range(len(first))
        for column in range(len(second))
        if first.image_index[row] == second.image_index[column]
    ]
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == expected


def test_paired_iou_is_torchvisions() -> None:
    targets = random_objects(0, 20, 6)
    first, second = targets.boxes, jittered(targets, 0, noise=0.15, copies=1).boxes
    torch.testing.assert_close(paired_iou(first, second), box_iou(first, second).diagonal())
    assert paired_iou(torch.zeros(1, 4), torch.zeros(1, 4)).tolist() == [0.0]


def test_one_target_is_taken_once() -> None:
    targets = boxes_to_objects([[0, 0, 0.5, 0.5]])
    predictions = boxes_to_objects([[0, 0, 0.5, 0.45], [0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]])
    assert match_greedy(predictions, targets).tolist() == [-1, 0, -1]
    assert best_target(predictions, targets).tolist() == [0, 0, -1]


def test_batches_must_agree() -> None:
    with pytest.raises(ValueError, match="got 2 and 3 images"):
        match_greedy(Objects.empty(2), Objects.empty(3))


def test_nothing_to_match() -> None:
    assert match_greedy(Objects.empty(2), random_objects(0, 2, 3)).shape == (0,)
    assert (match_greedy(random_objects(0, 2, 3), Objects.empty(2)) == -1).all()
