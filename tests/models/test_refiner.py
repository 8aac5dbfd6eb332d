from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from ssdir.device import seeded
from ssdir.errors import InputError
from ssdir.models.backbones.conv import ConvConfig
from ssdir.models.detector.refiner import Refiner, RefinerConfig
from ssdir.models.detector.ssd import SSD
from ssdir.objects import Objects
from ssdir.ops.boxes import decode_boxes, encode_boxes, to_xyxy
from ssdir.ops.suppression import keep_best

from .tiny import NAMES, SIZE, assert_same_objects, detector_config, noise, tiny_detector, tiny_model, truth

VARIANCES = (0.1, 0.2)
SMALL = RefinerConfig(size=5, channels=8, hidden=32)


def build(config: RefinerConfig = SMALL) -> Refiner:
    with seeded(0):
        return Refiner([3], 1, config, VARIANCES, beta=0.1)


def last_layer(refiner: Refiner) -> nn.Linear:
    last = refiner.net[-1]
    assert isinstance(last, nn.Linear)
    return last


def rectangles(count: int, seed: int) -> tuple[Tensor, Objects]:
    """Returns dim noisy images with a bright rectangle each, and its box."""
    g = torch.Generator().manual_seed(seed)
    sides = 0.15 + 0.35 * torch.rand(count, 2, generator=g)
    boxes = torch.cat([sides / 2 + (1 - sides) * torch.rand(count, 2, generator=g), sides], dim=1)
    images = 0.2 * torch.rand(count, 3, SIZE, SIZE, generator=g)
    for image, (left, top, right, bottom) in zip(
        images, (to_xyxy(boxes) * SIZE).round().int().tolist(), strict=True
    ):
        image[:, top:bottom, left:right] += 0.8
    return images, Objects(torch.arange(count), count, boxes)


def shaken(boxes: Tensor, seed: int) -> Tensor:
    noise = 0.08 * torch.randn(boxes.shape, generator=torch.Generator().manual_seed(seed))
    return torch.cat([boxes[:, :2] + noise[:, :2] * boxes[:, 2:], boxes[:, 2:] * noise[:, 2:].exp()], dim=1)


def overlap(one: Tensor, other: Tensor) -> float:
    return float(box_iou(to_xyxy(one.detach()), to_xyxy(other)).diag().mean())


def test_boxes_stay_as_they_are_before_it_has_learned() -> None:
    images, objects = rectangles(4, seed=0)
    refined, _ = build()([images], objects.z_where, objects.image_index)
    torch.testing.assert_close(refined, objects.z_where)


def test_corrections_are_encoded_relative_to_each_box() -> None:
    refiner, deltas = build(), torch.tensor([0.5, -0.25, 0.3, -0.6])
    last_layer(refiner).bias.data.copy_(deltas)
    boxes = torch.tensor([[0.4, 0.5, 0.2, 0.4], [0.5, 0.6, 0.1, 0.1]])
    refined, _ = refiner([torch.rand(1, 3, 16, 16)], boxes, torch.zeros(2, dtype=torch.int64))
    torch.testing.assert_close(refined, decode_boxes(deltas.expand(2, 4), boxes, VARIANCES))


def test_no_box_leaves_the_image_or_loses_its_area() -> None:
    refiner = build()
    last_layer(refiner).bias.data.copy_(torch.tensor([20.0, 0, 0, 0]))  # two box widths to the right
    boxes = torch.tensor([[0.8, 0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2], [0.65, 0.5, 0.2, 0.2]])
    refined, _ = refiner([torch.rand(1, 3, 16, 16)], boxes, torch.zeros(3, dtype=torch.int64))
    assert torch.equal(refined[0], boxes[0]), "it would be gone, so it stays"
    torch.testing.assert_close(to_xyxy(refined[1:])[:, 2], torch.ones(2))
    assert (refined[1:, 2:] > 0).all()


def test_it_learns_to_correct_boxes_of_images_that_it_has_not_seen() -> None:
    refiner = build()
    optimizer = torch.optim.AdamW(refiner.parameters(), lr=5e-3)
    images, objects = rectangles(64, seed=1)
    torch.manual_seed(0)
    for _ in range(50):
        optimizer.zero_grad()
        refiner.loss([images], objects)["refine"].backward()
        optimizer.step()
    images, objects = rectangles(64, seed=2)
    seen = shaken(objects.z_where, seed=3)
    refined, _ = refiner([images], seen, objects.image_index)
    assert overlap(seen, objects.z_where) < 0.85
    assert overlap(refined, objects.z_where) > 0.88


def test_loss_is_the_smooth_l1_of_the_correction_per_box() -> None:
    refiner = build(SMALL.model_copy(update={"copies": 2}))
    images, objects = rectangles(3, seed=4)
    torch.manual_seed(5)
    loss = refiner.loss([images], objects)["refine"].item()
    torch.manual_seed(5)
    moves = 0.08 * torch.randn(6, 4)
    true = torch.cat([objects.z_where, objects.z_where])
    seen = torch.cat([true[:, :2] + moves[:, :2] * true[:, 2:], true[:, 2:] * moves[:, 2:].exp()], dim=1)
    low, high = to_xyxy(seen).clamp(0, 1).split(2, dim=1)
    wanted = encode_boxes(true, torch.cat([(low + high) / 2, high - low], dim=1), VARIANCES)
    # It corrects nothing yet.
    size = wanted.abs()
    expected = torch.where(size < 0.1, size**2 / 0.2, size - 0.05).sum() / 6
    assert loss == pytest.approx(float(expected), rel=1e-4)


def test_loss_without_objects_is_zero() -> None:
    assert build().loss([torch.rand(2, 3, 16, 16, requires_grad=True)], truth(0, 0))["refine"].item() == 0


def test_a_detector_refines_its_detections_and_reads_one_finer_map() -> None:
    detector = tiny_detector(["object"], refiner=SMALL)
    assert detector.refiner is not None
    nn.init.normal_(last_layer(detector.refiner).weight)
    last_layer(detector.refiner).bias.data[2:] = 3.0  # larger, so that some overlap
    images = noise(2)
    selected = detector.select(detector(images)[1])
    refined, maps = detector.detect(images)
    assert [feature.shape[-1] for feature in maps] == [32, 16, 8]
    assert [feature.shape[-1] for feature in detector.pyramid(maps)] == [16, 8]
    finer = detector.backbone(images, finer=True)
    assert finer[0].shape[-1] == 32
    moved, _ = detector.refiner(finer, selected.z_where, selected.image_index)
    assert selected.scores is not None
    keep = keep_best(to_xyxy(moved), selected.scores, selected.image_index, 0.45, 200)
    assert len(keep) < len(selected), "no object was detected twice"
    torch.testing.assert_close(refined.z_where, moved[keep])
    assert not torch.allclose(refined.z_where, selected.z_where[keep])
    assert torch.equal(refined.scores, selected.scores[keep])  # type: ignore[arg-type]
    assert torch.equal(refined.labels, selected.labels[keep])  # type: ignore[arg-type]


def test_a_refiner_classifies_detections_again() -> None:
    detector = tiny_detector(refiner=SMALL)
    assert detector.refiner is not None
    last = last_layer(detector.refiner)
    nn.init.normal_(last.weight[4:], std=3.0)  # Boxes stay where they are.
    images = noise(2)
    _, detections = detector(images)
    selected = detector.select(detections)
    refined = detector.encode(images)
    assert refined.scores is not None
    assert refined.labels is not None
    assert len(NAMES) > 1
    maps = detector.read(images)
    _, logits = detector.refiner(maps, selected.z_where, selected.image_index)
    assert logits is not None
    background = detections.class_logits.softmax(dim=2)[selected.image_index, selected.anchor_index][:, 0]
    torch.testing.assert_close(selected.scores, 1 - background)
    chances = (1 - background[:, None]) * logits.softmax(dim=1)
    unsure = chances.amax(dim=1) < detector.config.score_threshold
    assert 0 < unsure.sum() < len(selected)
    assert not torch.equal(chances.argmax(dim=1), selected.labels), "the labels are those before refinement"
    best, labels = chances[~unsure].max(dim=1)
    order = keep_best(
        to_xyxy(selected.z_where[~unsure]),
        best,
        selected.image_index[~unsure],
        detector.config.suppress_above,
        200,
    )
    torch.testing.assert_close(refined.scores, best[order])
    assert torch.equal(refined.labels, labels[order])


def test_detections_at_a_threshold_are_those_of_a_lower_one_above_it() -> None:
    detector = tiny_detector(refiner=SMALL)
    assert detector.refiner is not None
    nn.init.normal_(last_layer(detector.refiner).weight[4:], std=3.0)
    more = detector.encode(noise(2), score_threshold=0.2)
    assert more.scores is not None
    for threshold in (0.4, 0.7):
        refined = detector.encode(noise(2), score_threshold=threshold)
        assert 0 < len(refined) < len(more)
        assert_same_objects(refined, more[more.scores >= threshold])


def test_labels_are_learned_at_displaced_boxes() -> None:
    """The two classes are bright and dim rectangles."""
    images, objects = rectangles(96, seed=6)
    labels = torch.arange(96) % 2
    images = images * (1 - 0.5 * labels.view(-1, 1, 1, 1))
    with seeded(0):
        refiner = Refiner([3], 2, SMALL, VARIANCES, beta=0.1)
    optimizer = torch.optim.AdamW(refiner.parameters(), lr=5e-3)
    torch.manual_seed(0)
    rows, unseen = torch.arange(64), torch.arange(64, 96)
    targets = Objects(rows, 64, objects.z_where[rows], labels=labels[rows])
    assert refiner.loss([images[rows]], targets)["name"].item() == pytest.approx(math.log(2)), (
        "untrained, it scores all classes alike"
    )
    for _ in range(30):
        optimizer.zero_grad()
        refiner.loss([images[rows]], targets)["name"].backward()
        optimizer.step()
    _, logits = refiner([images], shaken(objects.z_where, seed=7)[unseen], unseen)
    assert logits is not None
    assert (logits.argmax(dim=1) == labels[unseen]).float().mean() > 0.95


def test_a_single_class_is_not_classified() -> None:
    refiner = Refiner([3], 1, SMALL, VARIANCES, beta=0.1)
    images, objects = rectangles(2, seed=0)
    assert refiner([images], objects.z_where, objects.image_index)[1] is None
    assert set(refiner.loss([images], objects)) == {"refine"}


def test_embeddings_are_read_from_refined_boxes() -> None:
    model = tiny_model(detector={"refiner": SMALL}, encoder={"kind": "aligned", "samples": 4})
    assert model.detector.refiner is not None
    nn.init.normal_(last_layer(model.detector.refiner).weight)
    objects = model.encode(noise(2))
    assert torch.equal(objects.z_where, model.detector.encode(noise(2)).z_where)
    again = model.embed(noise(2), objects)
    assert torch.equal(again.z_where, objects.z_where), "boxes that are given are not corrected"


def test_loss_of_a_detector_counts_and_reaches_its_refiner() -> None:
    config = SMALL.model_copy(update={"weight": 2.5})
    detector = tiny_detector(refiner=config).train()
    losses = detector.loss(noise(2), truth(6, 6))
    total = losses["box"] + losses["class"] + 2.5 * losses["refine"] + losses["name"]
    torch.testing.assert_close(losses["total"], total)
    nn.init.normal_(last_layer(detector.refiner).weight)  # type: ignore[arg-type]
    detector.loss(noise(2), truth(6, 6))["total"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in detector.parameters())


def test_it_needs_a_finer_stage() -> None:
    config = detector_config(backbone=ConvConfig(channels=(8, 12), num_levels=2), refiner=SMALL)
    with pytest.raises(InputError, match="refiner needs a stage finer than the pyramid"):
        SSD(config, NAMES)
