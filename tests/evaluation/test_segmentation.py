from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from ssdir.evaluation.segmentation import MaskMeter, adjusted_rand_index, count_overlaps, segment
from ssdir.objects import Objects, Scene

from .fakes import boxes_to_objects

SIZE = 16


def scene_of(objects: Objects, alpha: Tensor | None = None, *, transparent: bool = False) -> Scene:
    """Returns a scene of opaque objects, of objects with the given opacity, or without opacity."""
    blank = torch.zeros(objects.batch_size, 3, SIZE, SIZE)
    if alpha is None and not transparent:
        alpha = torch.ones(len(objects), 1, 8, 8)
    return Scene(blank, torch.zeros(len(objects), 3, 8, 8), alpha)


def random_mask(seed: int, segments: int, coarse: int = 4) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    cells = torch.randint(0, segments, (coarse, coarse), generator=g)
    return cells.repeat_interleave(SIZE // coarse, 0).repeat_interleave(SIZE // coarse, 1)


@settings(max_examples=80)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 6), st.integers(1, 40))
def test_rand_index_is_that_of_scikit_learn(seed: int, first: int, second: int, pixels: int) -> None:
    g = torch.Generator().manual_seed(seed)
    truth, predicted = (torch.randint(0, n, (pixels,), generator=g) for n in (first, second))
    expected = adjusted_rand_score(truth.numpy(), predicted.numpy())
    assert adjusted_rand_index(count_overlaps(truth[None], predicted[None])) == pytest.approx(expected, abs=1e-12)


def test_rand_index_where_it_is_undefined() -> None:
    one, every = torch.zeros(1, 5, dtype=torch.int64), torch.arange(5)[None]
    assert adjusted_rand_index(count_overlaps(one, one)) == 1
    assert adjusted_rand_index(count_overlaps(every, every)) == 1
    assert adjusted_rand_index(count_overlaps(one, every)) == 0
    assert adjusted_rand_index(np.zeros((0, 3), dtype=np.int64)) == 1


def metrics_by_hand(
    truth: NDArray[np.int64], predicted: NDArray[np.int64]
) -> tuple[float, list[float], list[float]]:
    """Returns the fg-ARI of an image, and its objects' matched and best IoU, by trying every assignment."""
    seen, predicted_segments = np.unique(truth[truth > 0]), np.unique(predicted[predicted > 0])
    iou = np.zeros((len(seen), len(predicted_segments) + len(seen)))  # The last columns: matched to nothing.
    for row, t in enumerate(seen):
        for column, p in enumerate(predicted_segments):
            iou[row, column] = ((truth == t) & (predicted == p)).sum() / ((truth == t) | (predicted == p)).sum()
    choices = [
        [iou[row, column] for row, column in enumerate(chosen)]
        for chosen in permutations(range(iou.shape[1]), len(seen))
    ]
    inside = truth > 0
    rand = adjusted_rand_score(truth[inside], predicted[inside])
    return rand, max(choices, key=sum), iou.max(axis=1).tolist()


class Painted:
    """Objects that cover the whole image, each opaque in the pixels of one segment of given segmentations."""

    def __init__(self, *segmentations: Tensor) -> None:
        alpha, image_index = [], []
        for image, segments in enumerate(segmentations):
            for value in range(1, int(segments.max()) + 1):
                alpha.append((segments == value).float())
                image_index.append(image)
        M = len(alpha)
        z_where = torch.tensor([0.5, 0.5, 1, 1]).repeat(M, 1)
        self.objects = Objects(torch.tensor(image_index, dtype=torch.int64), len(segmentations), z_where)
        self.scene = scene_of(self.objects, torch.stack(alpha)[:, None] if M else torch.zeros(0, 1, SIZE, SIZE))


@pytest.mark.parametrize("seed", range(6))
def test_metrics_equal_those_by_hand(seed: int) -> None:
    truths = [random_mask(seed * 7 + n, 4) for n in range(3)]
    predicted = [random_mask(seed * 11 + n + 100, 2 + n) for n in range(3)]
    painted = Painted(*predicted)
    assert torch.equal(segment(painted.objects, painted.scene), torch.stack(predicted))
    meter = MaskMeter()
    meter.update(painted.objects, painted.scene, truths)
    rand, matched, best = zip(
        *(metrics_by_hand(t.numpy(), f.numpy()) for t, f in zip(truths, predicted, strict=True)), strict=True
    )
    assert meter.compute() == pytest.approx(
        {
            "masks/fg_ari": np.mean(rand),
            "masks/miou": np.mean(np.concatenate(matched)),
            "masks/mbo": np.mean(np.concatenate(best)),
        }
    )


def test_the_right_segmentation_is_perfect_whatever_the_order() -> None:
    truth = random_mask(0, 5)
    renamed = torch.tensor([0, 3, 1, 4, 2])[truth]
    painted, meter = Painted(renamed), MaskMeter()
    meter.update(painted.objects, painted.scene, [truth])
    assert meter.compute() == {"masks/fg_ari": 1, "masks/miou": 1, "masks/mbo": 1}


def test_one_object_in_two_halves_counts_once() -> None:
    truth = torch.zeros(SIZE, SIZE, dtype=torch.int64)
    truth[:, :8], truth[:, 8:12] = 1, 2
    whole = torch.where(truth > 0, 1, 0)
    painted, meter = Painted(whole), MaskMeter()
    meter.update(painted.objects, painted.scene, [truth])
    # One predicted object for two: matched to the larger, best for both.
    assert meter.compute() == pytest.approx(
        {"masks/fg_ari": 0, "masks/miou": (8 / 12) / 2, "masks/mbo": (8 / 12 + 4 / 12) / 2}
    )


def test_background_is_no_object_but_parts_pixels() -> None:
    truth = torch.ones(SIZE, SIZE, dtype=torch.int64)
    nothing, meter = Painted(torch.zeros_like(truth)), MaskMeter()
    meter.update(nothing.objects, nothing.scene, [truth])
    assert meter.compute() == {"masks/fg_ari": 1, "masks/miou": 0, "masks/mbo": 0}
    truth[8:] = 2
    predicted = torch.where(truth == 1, 1, 0)  # The second object is missed, which makes it a part of its own.
    half, meter = Painted(predicted), MaskMeter()
    meter.update(half.objects, half.scene, [truth])
    assert meter.compute() == {"masks/fg_ari": 1, "masks/miou": 0.5, "masks/mbo": 0.5}


def test_what_is_not_seen_or_not_known_does_not_count() -> None:
    truth = random_mask(3, 3)
    hidden = torch.where(truth == 2, 5, truth)  # Objects 2, 3 and 4 have no pixel.
    empty = torch.zeros_like(truth)
    painted = Painted(truth, truth, empty, truth)
    meters = [MaskMeter(), MaskMeter()]
    meters[0].update(painted.objects, painted.scene, [hidden, None, empty, empty])
    alone = Painted(truth)
    meters[1].update(alone.objects, alone.scene, [truth])
    assert meters[0].compute() == meters[1].compute() == {"masks/fg_ari": 1, "masks/miou": 1, "masks/mbo": 1}


def test_without_alpha_or_masks_there_are_no_figures() -> None:
    objects, truth = boxes_to_objects([[0, 0, 1, 1]]), random_mask(0, 3)
    meter = MaskMeter()
    meter.update(objects, scene_of(objects, transparent=True), [truth])
    meter.update(objects, scene_of(objects), [None])
    meter.update(objects, scene_of(objects), [])
    assert meter.compute() == {}
    with pytest.raises(ValueError, match=r"masks must be \(16, 16\), got \(8, 8\)"):
        meter.update(objects, scene_of(objects), [truth[:8, :8]])


def test_the_nearer_object_owns_what_two_cover() -> None:
    boxes = [[0.0, 0.0, 0.75, 1.0], [0.25, 0.0, 1.0, 1.0]]
    depths = ([0.0, 20.0], [20.0, 0.0])
    parts = [boxes_to_objects(boxes, z_depth=torch.tensor(depth)) for depth in depths]
    objects = Objects.cat([Objects.empty(1), *parts])
    segments = segment(objects, scene_of(objects))
    assert (segments[0] == 0).all()
    for image, nearer in ((1, 2), (2, 1)):
        assert segments[image, 8, [1, 8, 14]].tolist() == [1, nearer, 2]
    same = segment(objects.replace(z_depth=None), scene_of(objects))
    assert same[1:, 8, [1, 14]].tolist() == [[1, 2]] * 2


def test_a_box_without_area_owns_a_pixel_or_so() -> None:
    objects = boxes_to_objects([[0.5, 0.5, 0.5, 0.5], [0.0, 0.0, 0.25, 0.25]])
    pixels = segment(objects, scene_of(objects)).flatten().bincount(minlength=3)
    assert pixels[1] <= 4
    assert pixels[2] == 16
