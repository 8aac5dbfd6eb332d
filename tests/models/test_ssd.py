from __future__ import annotations

from math import exp, log

import pytest
import torch
from torch import Tensor
from torchvision.ops import nms

from ssdir.models.detector.ssd import MATCH_IOU, SSD, AnchorConfig, Detections, SSDConfig
from ssdir.objects import Objects
from ssdir.ops.anchors import match_anchors
from ssdir.ops.boxes import clip_cxcywh, decode_boxes, encode_boxes, to_xyxy

from .tiny import NAMES, SIZE, detector_config, noise, tiny_detector, truth


def test_anchors_cover_the_pyramid() -> None:
    detector = tiny_detector()
    assert detector.feature_sizes == [16, 8]
    assert detector.anchors.shape == (2 * (16**2 + 8**2), 4)
    torch.testing.assert_close(detector.anchors[0], torch.tensor([0.5 / 16, 0.5 / 16, 8 / SIZE, 8 / SIZE]))
    torch.testing.assert_close(detector.anchors[-1, 2], torch.tensor((24 * 56) ** 0.5 / SIZE))


def test_heads_speak_for_the_anchor_of_the_same_index() -> None:
    detector = tiny_detector()
    g = torch.Generator().manual_seed(0)
    features = [torch.rand(1, c, n, n, generator=g) for c, n in zip((12, 16), (16, 8), strict=True)]
    detections = detector.heads(features)
    level, row, column, which = 1, 3, 5, 1
    index = 2 * 16**2 + (row * 8 + column) * 2 + which
    raw = detector.class_heads[level](features[level])[0, :, row, column].view(2, len(NAMES) + 1)
    torch.testing.assert_close(detections.class_logits[0, index], raw[which])
    raw = detector.box_heads[level](features[level])[0, :, row, column].view(2, 4)
    torch.testing.assert_close(detections.box_deltas[0, index], raw[which])
    centre = torch.tensor([(column + 0.5) / 8, (row + 0.5) / 8])
    torch.testing.assert_close(detector.anchors[index, :2], centre)


def smooth_l1(x: float, beta: float) -> float:
    return 0.5 * x * x / beta if abs(x) < beta else abs(x) - 0.5 * beta


def cross_entropy(logits: list[float], label: int) -> float:
    return log(sum(exp(logit) for logit in logits)) - logits[label]


def loss_by_loops(detector: SSD, detections: Detections, targets: Objects) -> tuple[float, float]:
    """Returns the box and class terms of the multibox loss, computed one image and one anchor at a time."""
    assert targets.labels is not None
    matches = match_anchors(targets, detector.anchors, MATCH_IOU)
    box_loss = class_loss = 0.0
    for image in range(targets.batch_size):
        negatives, num_positive = [], 0
        for n, row in enumerate(matches[image].tolist()):
            logits = detections.class_logits[image, n].tolist()
            if row < 0:
                negatives.append(cross_entropy(logits, 0))
                continue
            num_positive += 1
            class_loss += cross_entropy(logits, int(targets.labels[row]) + 1)
            wanted = encode_boxes(targets.z_where[row], detector.anchors[n], detector.config.variances)
            predicted = detections.box_deltas[image, n]
            box_loss += sum(smooth_l1(d, detector.config.box_beta) for d in (predicted - wanted).tolist())
        class_loss += sum(sorted(negatives, reverse=True)[: max(1, 3 * num_positive)])
    total = max(1, int((matches >= 0).sum()))
    return box_loss / total, class_loss / total


@pytest.mark.parametrize(("counts", "beta"), [((3, 0, 5), 1.0), ((3, 0, 5), 0.1), ((0, 0), 1.0), ((1, 1), 1.0)])
def test_loss_equals_loops(counts: tuple[int, ...], beta: float) -> None:
    detector = tiny_detector(box_beta=beta)
    images, targets = noise(len(counts)), truth(*counts)
    losses = detector.loss(images, targets)
    box, classes = loss_by_loops(detector, detector(images)[1], targets)
    assert losses["box"].item() == pytest.approx(box, rel=1e-4)
    assert losses["class"].item() == pytest.approx(classes, rel=1e-4)
    assert losses["total"].item() == pytest.approx(box + classes, rel=1e-4)


def test_loss_reaches_every_weight() -> None:
    detector = tiny_detector().train()
    detector.loss(noise(2), truth(6, 6))["total"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in detector.parameters())


def test_loss_needs_labels() -> None:
    with pytest.raises(ValueError, match="targets need labels"):
        tiny_detector().loss(noise(1), truth(1).replace(labels=None))


def random_detections(detector: SSD, batch_size: int, seed: int = 0) -> Detections:
    g = torch.Generator().manual_seed(seed)
    N = len(detector.anchors)
    logits = 2 * torch.randn(batch_size, N, len(NAMES) + 1, generator=g)
    logits[0, :, 0] = 50  # nothing but background in the first image
    return Detections(logits, torch.randn(batch_size, N, 4, generator=g))


def select_by_loops(
    detector: SSD, detections: Detections, threshold: float
) -> list[list[tuple[int, float, int, Tensor]]]:
    """Returns (anchor, score, label, box) of each image's objects."""
    images = []
    for logits, deltas in zip(detections.class_logits, detections.box_deltas, strict=True):
        entries = []
        for n, probability in enumerate(logits.softmax(dim=-1)):
            label = int(probability[1:].argmax())
            score = float(probability[1 + label])
            box = clip_cxcywh(decode_boxes(deltas[n], detector.anchors[n], detector.config.variances))
            if score >= threshold and (box[2:] > 0).all():
                entries.append((n, score, label, box))
        entries.sort(key=lambda entry: -entry[1])
        if entries and detector.config.nms:
            boxes = to_xyxy(torch.stack([box for *_, box in entries]))
            kept = nms(boxes, torch.tensor([score for _, score, *_ in entries]), detector.config.nms_threshold)
            entries = [entries[int(row)] for row in kept]
        images.append(entries[: detector.config.max_objects])
    return images


@pytest.mark.parametrize("changes", [{}, {"nms": False}, {"max_objects": 5}, {"nms_threshold": 0.1}])
@pytest.mark.parametrize("threshold", [0.3, 0.75])
def test_select_equals_loops(changes: dict[str, float], threshold: float) -> None:
    detector = tiny_detector(**changes)
    detections = random_detections(detector, 3)
    objects = detector.select(detections, threshold)
    expected = select_by_loops(detector, detections, threshold)
    assert objects.counts.tolist() == [len(entries) for entries in expected]
    assert objects.counts[0] == 0
    rows = [entry for entries in expected for entry in entries]
    assert len(rows) > 5
    assert objects.anchor_index is not None
    assert objects.labels is not None
    assert objects.anchor_index.tolist() == [n for n, *_ in rows]
    assert objects.labels.tolist() == [label for _, _, label, _ in rows]
    torch.testing.assert_close(objects.scores, torch.tensor([score for _, score, *_ in rows]))
    # The box is the one that the anchor's own deltas decode to.
    torch.testing.assert_close(objects.z_where, torch.stack([box for *_, box in rows]))


def test_threshold_of_the_config_is_the_default() -> None:
    detector = tiny_detector(score_threshold=0.8)
    detections = random_detections(detector, 2)
    chosen = detector.select(detections)
    assert chosen.scores is not None
    assert 0 < len(chosen) < len(detector.select(detections, 0.3))
    assert chosen.scores.min() >= 0.8


def test_nothing_present_is_an_empty_batch() -> None:
    detector = tiny_detector()
    objects = detector.select(random_detections(detector, 1))
    assert (len(objects), objects.batch_size) == (0, 1)
    assert objects.anchor_index is not None


def test_anchors_must_fit_the_pyramid() -> None:
    with pytest.raises(ValueError, match="min_sizes must have 2 entries, one per pyramid level, got 5"):
        SSD(detector_config(anchors=AnchorConfig()), NAMES)
    with pytest.raises(ValueError, match="one entry per level each"):
        AnchorConfig(min_sizes=(8,), max_sizes=(16, 32))
    with pytest.raises(ValueError, match="at most its max_size"):
        AnchorConfig(min_sizes=(8, 40), max_sizes=(16, 32))


def test_paper_detector_has_880_anchors() -> None:
    assert len(SSD(SSDConfig(), NAMES).anchors) == 880
