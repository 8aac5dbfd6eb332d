import pytest
import torch
from torch import Tensor

from ssdir.objects import Objects
from ssdir.ops.anchors import level_anchors, match_anchors

# Of irregular sizes: no two overlap an object equally.
ANCHORS = torch.cat([level_anchors(6, 0.15, 0.3), level_anchors(3, 0.3, 0.6)])
ANCHORS[:, 2:] *= 0.9 + 0.2 * torch.rand(len(ANCHORS), 2, generator=torch.Generator().manual_seed(9))


def iou(first: Tensor, second: Tensor) -> float:
    """Returns the IoU of two cxcywh boxes."""
    (x1, y1, w1, h1), (x2, y2, w2, h2) = first.tolist(), second.tolist()
    width = min(x1 + w1 / 2, x2 + w2 / 2) - max(x1 - w1 / 2, x2 - w2 / 2)
    height = min(y1 + h1 / 2, y2 + h2 / 2) - max(y1 - h1 / 2, y2 - h2 / 2)
    shared = max(width, 0) * max(height, 0)
    return shared / (w1 * h1 + w2 * h2 - shared)


def scene(*counts: int, seed: int = 0) -> Objects:
    g = torch.Generator().manual_seed(seed)
    M = sum(counts)
    z_where = torch.cat([torch.rand(M, 2, generator=g), 0.05 + 0.5 * torch.rand(M, 2, generator=g)], dim=1)
    image_index = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return Objects(image_index, len(counts), z_where)


def match_by_loops(targets: Objects, anchors: Tensor, threshold: float) -> Tensor:
    matches = torch.full((targets.batch_size, len(anchors)), -1)
    for image in range(targets.batch_size):
        rows = [row for row in range(len(targets)) if targets.image_index[row] == image]
        if not rows:
            continue
        overlaps = {(row, n): iou(targets.z_where[row], anchors[n]) for row in rows for n in range(len(anchors))}
        for n in range(len(anchors)):
            best = max(rows, key=lambda row: overlaps[row, n])
            if overlaps[best, n] >= threshold:
                matches[image, n] = best
        claims: dict[int, tuple[float, int]] = {}
        for row in rows:
            favourite = max(range(len(anchors)), key=lambda n: overlaps[row, n])
            claims[favourite] = max(claims.get(favourite, (-1.0, -1)), (overlaps[row, favourite], row))
        for n, (_, row) in claims.items():
            matches[image, n] = row
    return matches


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("threshold", [0.35, 0.5])
def test_match_equals_loops(seed: int, threshold: float) -> None:
    targets = scene(3, 0, 1, 6, seed=seed)
    matches = match_anchors(targets, ANCHORS, threshold)
    assert torch.equal(matches, match_by_loops(targets, ANCHORS, threshold))


def test_images_without_objects_are_background() -> None:
    assert (match_anchors(scene(0, 0), ANCHORS) == -1).all()
    matches = match_anchors(scene(0, 2, 0), ANCHORS)
    assert (matches[[0, 2]] == -1).all()
    assert (matches[1] >= 0).any()


def test_every_object_gets_its_best_anchor_however_small_the_overlap() -> None:
    tiny = Objects(torch.tensor([0]), 1, torch.tensor([[0.42, 0.42, 0.02, 0.02]]))
    matches = match_anchors(tiny, ANCHORS, 0.5)[0]
    assert (matches == 0).sum() == 1
    assert iou(tiny.z_where[0], ANCHORS[int(matches.argmax())]) < 0.05


def test_contested_anchor_goes_to_the_larger_overlap() -> None:
    anchor = torch.tensor([[0.5, 0.5, 0.4, 0.4]])
    for boxes in ([0.3, 0.35], [0.35, 0.3]):
        targets = Objects(torch.tensor([0, 0]), 1, torch.tensor([[0.5, 0.5, side, side] for side in boxes]))
        assert match_anchors(targets, anchor, 0.99).item() == boxes.index(0.35)
