import torch
from torch import Tensor
from torchvision.ops import box_iou

from ssdir.ops.suppression import keep_best, suppress, suppress_refined


def noise(B: int = 4, N: int = 60) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    low = torch.rand(B, N, 2, generator=rng) * 0.7
    boxes = torch.cat([low, low + 0.1 + 0.2 * torch.rand(B, N, 2, generator=rng)], dim=-1)
    return boxes, torch.rand(B, N, generator=rng) - 0.3


def greedy(boxes: Tensor, scores: Tensor, iou_threshold: float, max_objects: int) -> list[int]:
    kept: list[int] = []
    for row in scores.argsort(descending=True).tolist():
        apart = all(float(box_iou(boxes[[row]], boxes[[other]])) <= iou_threshold for other in kept)
        if scores[row] >= 0 and apart and len(kept) < max_objects:
            kept.append(row)
    return kept


def test_dense_suppression_is_the_greedy_one_in_each_image() -> None:
    boxes, scores = noise()
    scores[2] = -1  # An image without detections.
    for iou_threshold, max_objects in ((0.3, 200), (0.3, 5), (1.0, 200), (1.0, 5)):
        selected = suppress(boxes, scores, iou_threshold, max_objects)
        expected = [
            [image, row]
            for image in range(len(boxes))
            for row in greedy(boxes[image], scores[image], iou_threshold, max_objects)
        ]
        assert selected.tolist() == expected


def test_what_stays_does_not_depend_on_the_images_place_in_the_batch() -> None:
    """Boxes are in tight clusters, whose overlaps lie close to the threshold."""
    rng = torch.Generator().manual_seed(0)
    for _ in range(200):
        low = torch.rand(1, 2, generator=rng) * 0.9 + 0.01 * torch.rand(40, 2, generator=rng)
        boxes, scores = torch.cat([low, low + 0.03], dim=1), torch.rand(40, generator=rng)
        first, late = (keep_best(boxes, scores, torch.full((40,), place), 0.45, 200) for place in (0, 511))
        assert torch.equal(first, late)


def test_refined_detections_are_suppressed_again_image_by_image() -> None:
    boxes, scores = noise(N=20)
    boxes, scores, image_index = boxes.flatten(0, 1), scores.flatten(), torch.arange(4).repeat_interleave(20)
    assert not torch.equal(scores, scores.sort(descending=True).values)
    remaining = suppress_refined(boxes, scores, image_index, 0.3)
    there = (scores >= 0).nonzero()[:, 0]
    assert 4 < len(remaining) < len(there) < 80
    assert torch.equal(remaining, there[keep_best(boxes[there], scores[there], image_index[there], 0.3, 200)])


def test_nothing_to_suppress() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert keep_best(torch.zeros(0, 4), torch.zeros(0), none, 0.5, 3).tolist() == []
    assert suppress(torch.zeros(2, 3, 4), -torch.ones(2, 3), 0.5, 3).shape == (0, 2)


def test_operator_can_be_traced() -> None:
    boxes, scores = noise()
    torch.library.opcheck(suppress, (boxes, scores, 0.3, 5), test_utils=("test_schema", "test_faketensor"))
