"""Measures time and memory of each stage of a model, by number of objects and size of the images.

The number of objects is fixed: detectors return given boxes, and models without a detector always encode every
cell. Time and memory don't depend on the weights, so untrained models are measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from pydantic import Field
from torch import Tensor, nn

from ssdir.benchmark.memory import growth_in_fresh_process
from ssdir.benchmark.timing import Spread, in_turn
from ssdir.config import Record, parse
from ssdir.console import Advance, no_progress
from ssdir.device import seeded
from ssdir.models.base import GenerativeModel, ObjectModel
from ssdir.models.detected.model import DetectedConfig, DetectedModel, detector_of
from ssdir.models.detected.vae import DetectedVAE, DetectedVAEConfig
from ssdir.models.detector.ssd import SSD, Detections, SSDConfig
from ssdir.models.inference_form import inference_form
from ssdir.models.pooled_features import PooledFeatures
from ssdir.models.registry import StoredConfig, build_model, without_pretrained
from ssdir.objects import Objects
from ssdir.plots.charts import line_panels

BATCH, REPEATS = 8, 7

MEASURED_STAGES = {
    "detect": "backbone, heads, selection",
    "encode": "backbone, and embeddings of given objects",
    "decode": "decode the objects, and composite them",
    "reconstruct": "encode, then decode",
    "train": "a step of the representation, backbone included",
    "train_cached": "the same on features that were computed before",
}
"""The stages that are measured, in this order, of the models that have them."""

Step = Callable[[], object]


class Cost(Record):
    """Time and memory of a stage of a model on the CPU.

    Attributes:
        model: the model's name.
        image_size: side of the images, in pixels.
        objects: number of objects in each image; None if the model always encodes every cell.
        stage: one of `MEASURED_STAGES`.
        parameters: number of the model's parameters.
        seconds: time per image, in seconds.
        memory_mb: memory that a batch adds to the peak of a new process, in MiB; None if it was not measured.
    """

    model: str
    image_size: int = Field(ge=1)
    objects: int | None
    stage: str
    parameters: int = Field(ge=0)
    seconds: Spread
    memory_mb: float | None

    @property
    def case(self) -> tuple[str, int, int | None, str]:
        """The measured case: model, image size, number of objects and stage."""
        return self.model, self.image_size, self.objects, self.stage


@dataclass(frozen=True)
class Case:
    """A model and a number of objects per image; None for models that always encode every cell."""

    name: str
    config: StoredConfig
    objects: int | None
    batch: int = BATCH


class GivenDetector(SSD):
    """A detector that takes the time of a real one to select objects, and then returns given objects instead."""

    given: Objects | None = None

    def select(self, detections: Detections, score_threshold: float | None = None) -> Objects:
        """Returns the given objects."""
        selected = super().select(detections, score_threshold)
        return selected if self.given is None else self.given

    def give(self, objects: Objects) -> None:
        """Sets the objects. Suppression is off, because it would remove some of the overlapping random boxes."""
        self.given = objects.replace(
            scores=torch.ones(len(objects)),
            labels=torch.zeros(len(objects), dtype=torch.int64),
            anchor_index=self.assign(objects.z_where),
        )
        self.config = self.config.model_copy(update={"nms": False})


def measure_costs(
    configs: Mapping[str, Sequence[StoredConfig]],
    counts: Sequence[int],
    *,
    batch: int = BATCH,
    repeats: int = REPEATS,
    memory_of: Sequence[str] = ("encode", "train"),
    on_progress: Advance = no_progress,
) -> list[Cost]:
    """Measures models side by side: in each round, all of them run in turn.

    Args:
        configs: by name, configs of the model, one for each size of images.
        counts: numbers of objects per image, for models whose time depends on it.
        batch: batch size.
        repeats: number of measured rounds, after one warm-up round.
        memory_of: stages whose memory is measured too, each in a new process, which takes seconds.
        on_progress: called with (done, all, stage).
    """
    cases = [
        Case(name, config, count, batch)
        for name, sizes in configs.items()
        for config in sizes
        for count in (counts if isinstance(config, (SSDConfig, DetectedConfig)) else [None])
    ]
    models = [untrained(case.config) for case in cases]
    pairs = [(number, stage) for number, model in enumerate(models) for stage in _stages(model)]
    steps = {f"{number} {stage}": _step(models[number], cases[number], stage) for number, stage in pairs}
    seconds = in_turn(steps, repeats, lambda done, total, _=None: on_progress(done, total, "timing"))
    costs = []
    for done, (number, stage) in enumerate(pairs):
        case = cases[number]
        on_progress(done, len(pairs), "measuring memory")
        costs.append(
            Cost(
                model=case.name,
                image_size=case.config.image_size,
                objects=case.objects,
                stage=stage,
                parameters=sum(p.numel() for p in models[number].parameters()),
                seconds=Spread.of(value / batch for value in seconds[f"{number} {stage}"]),
                memory_mb=growth_in_fresh_process(_step_anew, case, stage) if stage in memory_of else None,
            )
        )
    return costs


def chart_of(costs: Sequence[Cost]) -> bytes:
    """Plots the time of encoding, by number of objects (in the largest images) and by image size, as a PNG."""
    encode = [cost for cost in costs if cost.stage == "encode"]
    models = {cost.model for cost in encode}
    counts = sorted({cost.objects for cost in encode if cost.objects is not None}) or [0]
    largest = {name: max(cost.image_size for cost in encode if cost.model == name) for name in models}
    by_count: dict[str, tuple[list[float], list[float]]] = {}
    by_size: dict[str, tuple[list[float], list[float]]] = {}
    for cost in encode:
        milliseconds = 1000 * cost.seconds.median
        if cost.image_size == largest[cost.model]:
            x, y = by_count.setdefault(cost.model, ([], []))
            for count in counts if cost.objects is None else [cost.objects]:
                x.append(count)
                y.append(milliseconds)
        if cost.objects in (None, counts[-1]):
            x, y = by_size.setdefault(cost.model, ([], []))
            x.append(cost.image_size)
            y.append(milliseconds)
    panels = {"objects in an image": by_count}
    if any(len(x) > 1 for x, _ in by_size.values()):
        panels[f"side of the image in px, {counts[-1]} objects"] = by_size
    return line_panels(panels, "ms per image, encoding")


def untrained(config: StoredConfig) -> ObjectModel:
    """Builds an untrained model whose detector detects nothing; it is class-agnostic unless it learns classes.

    Pretrained weights are not loaded, because neither time nor memory depends on them.
    """
    config = without_pretrained(config)
    with seeded(0):
        names = ["one", "other"] if isinstance(config, DetectedVAEConfig) and config.loss.classes else ["object"]
        if isinstance(config, SSDConfig):
            model: ObjectModel = GivenDetector(config, names)
        else:
            detector = GivenDetector(config.ssd, names) if isinstance(config, DetectedConfig) else None
            model = build_model(config, names, detector)
        if (of_model := detector_of(model)) is not None:
            _detect_nothing(of_model)
        if isinstance(model, PooledFeatures):  # It is the only model that has to be fitted before it encodes.
            images = torch.rand(2, 3, config.image_size, config.image_size)
            model.fit(model.pooled_features(images, _boxes(4, 2), model.config.pool_size), seed=0)
        return model


def _detect_nothing(detector: SSD) -> None:
    """Lowers an untrained detector's scores, so that suppression of countless detections does not dominate."""
    A = detector.config.anchors.num_per_cell
    with torch.no_grad():
        for head in detector.class_heads:
            assert isinstance(head, nn.Conv2d)
            assert head.bias is not None
            head.bias.view(A, -1)[:, 1:] = -30


def resized(config: StoredConfig, size: int) -> StoredConfig:
    """Returns a model's config for images of another side, in pixels.

    Raises:
        InputError: if its other parts don't fit that size.
    """
    values = config.model_dump()
    where = values["ssd"] if isinstance(config, DetectedConfig) else values
    where["image_size"] = size
    return parse(type(config), values, source=f"{config.kind} of {size} pixels")


def _boxes(count: int, batch: int) -> Objects:
    """Returns `count` random objects in each image of a batch."""
    g = torch.Generator().manual_seed(0)
    sides = 0.15 + 0.2 * torch.rand(batch * count, 2, generator=g)
    centres = sides / 2 + (1 - sides) * torch.rand(batch * count, 2, generator=g)
    image_index = torch.arange(batch).repeat_interleave(count)
    labels = torch.zeros_like(image_index)
    return Objects(image_index, batch, torch.cat([centres, sides], dim=1), labels=labels)


def _stages(model: ObjectModel) -> list[str]:
    """Lists those of `MEASURED_STAGES` that a model has."""
    if isinstance(model, SSD):
        return ["detect"]
    has = {"encode"}
    if isinstance(model, DetectedModel):
        has |= {"detect"}
    if isinstance(model, GenerativeModel):
        has |= {"decode", "reconstruct", "train"}
    if isinstance(model, DetectedVAE):
        has |= {"train_cached"}
    return [stage for stage in MEASURED_STAGES if stage in has]


def _step_anew(case: Case, stage: str) -> Step:
    return _step(untrained(case.config), case, stage)


def _step(model: ObjectModel, case: Case, stage: str) -> Step:
    """Returns a function that runs a stage on a batch.

    Preparing it takes little memory, so that it does not hide the stage's own peak.
    """
    size = case.config.image_size
    images = torch.rand(case.batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    if stage.startswith("train"):
        assert isinstance(model, GenerativeModel)
        return _training_step(model, case, images, cached=stage == "train_cached")
    # `ssdir.load` encodes with the same copy.
    fast = inference_form(model)
    images = images.contiguous(memory_format=torch.channels_last)
    if stage == "decode":
        images = images[:1]
    detector = detector_of(fast)
    if isinstance(detector, GivenDetector) and case.objects is not None:
        detector.give(_boxes(case.objects, len(images)))
    encode = partial(fast.encode, images)
    if stage == "encode":
        return encode
    if stage == "detect":
        assert detector is not None
        return partial(detector.encode, images)
    assert isinstance(fast, GenerativeModel)
    if stage == "reconstruct":
        return torch.no_grad()(lambda: fast.decode(encode()))
    objects = Objects.cat([encode()] * case.batch)
    return torch.no_grad()(partial(fast.decode, objects))


def _training_step(model: GenerativeModel, case: Case, images: Tensor, *, cached: bool) -> Step:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6, fused=True)

    def step(loss: Callable[[], dict[str, Tensor]]) -> None:
        model.train()
        optimizer.zero_grad()
        loss()["total"].backward()
        optimizer.step()

    if not isinstance(model, DetectedVAE) or case.objects is None:
        return partial(step, partial(model.loss, images))
    detected, given = model, _boxes(case.objects, case.batch)
    objects = given.replace(anchor_index=model.detector.assign(given.z_where))

    features = torch.no_grad()(model.detector.read)
    if not cached:
        return partial(step, lambda: detected.loss_of(images, objects, features(images)))
    each = [features(image) for image in images.split(1)]
    known = [torch.cat(level) for level in zip(*each, strict=True)]
    return partial(step, lambda: detected.loss_of(images, objects, known))
