from __future__ import annotations

import contextlib
import io

import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ssdir.evaluation.detection import detection_metrics, operating_metrics
from ssdir.objects import Objects

from .fakes import boxes_to_objects, jittered, random_objects

# Areas from below 32² to above 96², and not square.
SIZE = (320, 240)
NAMES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")


def pycocotools_ap(predictions: Objects, targets: Objects, ignored: Objects | None = None) -> dict[str, float]:
    """Returns the average precisions of the reference implementation."""

    def rows(objects: Objects) -> list[dict[str, object]]:
        assert objects.labels is not None
        entries: list[dict[str, object]] = []
        for number, (box, image, label) in enumerate(
            zip(
                objects.boxes_px(SIZE).tolist(),
                objects.image_index.tolist(),
                objects.labels.tolist(),
                strict=True,
            )
        ):
            width, height = box[2] - box[0], box[3] - box[1]
            row = {
                "id": number + 1,
                "image_id": image,
                "category_id": label,
                "bbox": [*box[:2], width, height],
            }
            entries.append({**row, "area": width * height, "iscrowd": 0})
        return entries

    assert targets.labels is not None
    assert predictions.scores is not None
    crowds = [] if ignored is None else [{**row, "iscrowd": 1} for row in rows(ignored)]
    truth = COCO()
    truth.dataset = {
        "images": [{"id": image} for image in range(targets.batch_size)],
        "annotations": [{**row, "id": number} for number, row in enumerate([*rows(targets), *crowds], start=1)],
        "categories": [{"id": label} for label in targets.labels.unique().tolist()],
    }
    scores = predictions.scores.tolist()
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        results = truth.loadRes(
            [{**row, "score": score} for row, score in zip(rows(predictions), scores, strict=True)]
        )
        evaluation = COCOeval(truth, results, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {f"detection/{name}": float(value) for name, value in zip(NAMES, evaluation.stats, strict=False)}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("classes", [1, 3])
def test_average_precision_is_pycocotools(seed: int, classes: int) -> None:
    targets = random_objects(seed, 20, 6, classes=classes)
    predictions = jittered(targets, seed, noise=0.1)
    metrics = detection_metrics(predictions, targets, SIZE)
    agnostic = metrics.pop("detection/ap50_class_agnostic", None)
    expected = pycocotools_ap(predictions, targets)
    assert expected["detection/ap_small"] > 0
    assert expected["detection/ap_large"] > 0
    assert metrics == pytest.approx(expected, abs=1e-5)

    if classes == 1:
        assert agnostic is None
        return
    one_class = [objects.replace(labels=0 * objects.image_index) for objects in (predictions, targets)]
    assert agnostic == pytest.approx(pycocotools_ap(*one_class)["detection/ap50"], abs=1e-5)


@pytest.mark.parametrize("classes", [1, 3])
def test_detections_in_ignored_regions_count_as_in_pycocotools(classes: int) -> None:
    targets, ignored = random_objects(3, 20, 6, classes=classes), random_objects(4, 20, 4, classes=classes)
    assert ignored.scores is None
    inside = ignored.replace(z_where=ignored.z_where * torch.tensor([1, 1, 0.6, 0.6]))
    detections = Objects.cat([jittered(targets, 3, noise=0.1), jittered(inside, 5, noise=0.02)])
    image_index = detections.image_index % 20
    order = image_index.argsort(stable=True)
    predictions = detections.regrouped(order, image_index[order], 20)
    metrics = detection_metrics(predictions, targets, SIZE, ignored)
    metrics.pop("detection/ap50_class_agnostic", None)
    expected = pycocotools_ap(predictions, targets, ignored)
    assert metrics == pytest.approx(expected, abs=1e-5)
    assert metrics["detection/ap"] > detection_metrics(predictions, targets, SIZE)["detection/ap"] + 0.01


def test_the_operating_point_excuses_what_lies_in_ignored_regions() -> None:
    targets = boxes_to_objects([[0, 0, 0.2, 0.2], [0.5, 0.5, 0.6, 0.6]])
    crowd = boxes_to_objects([[0.4, 0.4, 1, 1]])
    # Right; right, and in the crowd; excused; a quarter in the crowd; nowhere.
    detections = boxes_to_objects(
        [[0, 0, 0.2, 0.2], [0.5, 0.5, 0.6, 0.6], [0.8, 0.8, 0.9, 0.9], [0.3, 0.3, 0.5, 0.5], [0, 0.7, 0.1, 0.9]]
    )
    metrics = operating_metrics(detections, targets, ignored=crowd)
    assert metrics["detection/precision"] == pytest.approx(2 / 4)
    assert metrics["detection/recall"] == 1
    assert metrics["detection/count_error"] == 2


def test_labels_count_unless_agnostic() -> None:
    targets = boxes_to_objects([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]], labels=torch.tensor([0, 1]))
    predictions = targets.replace(labels=torch.tensor([1, 0]), scores=torch.tensor([0.9, 0.8]))
    metrics = detection_metrics(predictions, targets, (64, 64))
    assert metrics["detection/ap50"] == 0
    assert metrics["detection/ap50_class_agnostic"] == 1
    unlabelled = predictions.replace(labels=None)
    assert detection_metrics(unlabelled, targets, (64, 64))["detection/ap50"] == 1


def test_undefined_sizes_are_left_out() -> None:
    targets = boxes_to_objects([[0, 0, 0.25, 0.25]])
    metrics = detection_metrics(targets.replace(scores=torch.ones(1)), targets, (64, 64))
    assert metrics["detection/ap_small"] == 1
    assert "detection/ap_medium" not in metrics
    assert "detection/ap_large" not in metrics


def test_no_predictions_have_no_precision() -> None:
    targets = random_objects(0, 3, 4, classes=1)
    metrics = detection_metrics(Objects.empty(3), targets, (64, 64))
    assert metrics["detection/ap"] == 0
    assert metrics["detection/ap50"] == 0


def test_no_targets_define_nothing() -> None:
    predictions = random_objects(0, 3, 4, classes=1, scored=True)
    assert detection_metrics(predictions, Objects.empty(3), (64, 64)) == {}
    assert detection_metrics(Objects.empty(3), Objects.empty(3), (64, 64)) == {}


def test_duplicates_are_two_latents_per_object() -> None:
    targets = boxes_to_objects([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]])
    metrics = operating_metrics(targets[[0, 0, 1, 1]], targets)
    assert metrics == {
        "detection/count_error": 2.0,
        "detection/latents_per_object": 2.0,
        "detection/recall": 1.0,
        "detection/precision": 0.5,
    }


def test_uncovered_objects_do_not_dilute_latents_per_object() -> None:
    targets = boxes_to_objects([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1], [0, 0.5, 0.2, 1]])
    detections = boxes_to_objects([[0, 0, 0.5, 0.5]] * 3 + [[0.5, 0.5, 1, 1], [0.6, 0, 0.9, 0.3]])
    metrics = operating_metrics(detections, targets)
    assert metrics["detection/latents_per_object"] == 2.0  # (3 + 1) / 2
    assert metrics["detection/recall"] == pytest.approx(2 / 3)
    assert metrics["detection/precision"] == pytest.approx(2 / 5)


def test_count_errors_do_not_cancel_between_images() -> None:
    box = [0.0, 0.0, 0.5, 0.5]
    detections = Objects.cat([boxes_to_objects([box, box]), boxes_to_objects([])])
    targets = Objects.cat([boxes_to_objects([box]), boxes_to_objects([box])])
    assert operating_metrics(detections, targets)["detection/count_error"] == 1.0


@pytest.mark.parametrize(("detected", "true"), [(0, 0), (0, 4), (4, 0)])
def test_operating_metrics_of_nothing(detected: int, true: int) -> None:
    metrics = operating_metrics(random_objects(0, 2, detected), random_objects(1, 2, true))
    assert metrics["detection/recall"] == metrics["detection/precision"] == 0
    assert metrics["detection/latents_per_object"] == 0
