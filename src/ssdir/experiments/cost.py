"""What a model costs: parameters, time and memory, by number of objects.

The models are untrained. How many objects they describe is set: those with a detector are given boxes, the others
always describe every cell. Times are medians of rounds in which the models take turns; memory is the growth of a
fresh process's peak.
"""

from __future__ import annotations

import multiprocessing
import re
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ssdir.models.base import GenerativeModel, ObjectModel
from ssdir.models.detected import DetectedConfig
from ssdir.models.detected_vae import DetectedVAE
from ssdir.models.pooled_features import PooledFeatures
from ssdir.models.registry import AnyModelConfig, build_model
from ssdir.models.zoo import seeded
from ssdir.objects import Objects

BATCH, REPEATS = 8, 7


@dataclass(frozen=True)
class Cost:
    """What a model costs, on the CPU.

    Attributes:
        objects: in each image; None where the model always describes every cell.
        parameters: how many it has.
        encode_seconds: of an image, to find and describe its objects.
        train_seconds: of an image in a training step (of the representation, where there is a detector); None for
            models that learn nothing in steps beside the detector.
        training_memory_mb: what a training step of a batch adds to the peak of a fresh process, in MiB; likewise.
    """

    objects: int | None
    parameters: int
    encode_seconds: float
    train_seconds: float | None
    training_memory_mb: float | None


@dataclass(frozen=True)
class Case:
    """A model, and the number of objects of each image; None leaves it to the model."""

    config: AnyModelConfig
    objects: int | None
    batch: int = BATCH


def measure_costs(
    configs: Mapping[str, AnyModelConfig],
    counts: Sequence[int],
    *,
    batch: int = BATCH,
    repeats: int = REPEATS,
) -> dict[str, list[Cost]]:
    """Measures models against each other.

    Args:
        configs: by name.
        counts: objects of an image, for the models whose cost depends on them.
        batch: images at once.
        repeats: rounds, beside one to warm up.

    Returns:
        By name, a cost for each count, or a single one.
    """
    cases = [
        (name, Case(config, count, batch))
        for name, config in configs.items()
        for count in (counts if isinstance(config, DetectedConfig) else [None])
    ]
    timed = _median_seconds([case for _, case in cases], repeats)
    costs: dict[str, list[Cost]] = {name: [] for name in configs}
    for (name, case), (encode, train) in zip(cases, timed, strict=True):
        assert encode is not None
        parameters = sum(p.numel() for p in _make(case.config).parameters())
        memory = None if train is None else _training_memory(case)
        costs[name].append(Cost(case.objects, parameters, encode, train, memory))
    return costs


def _make(config: AnyModelConfig) -> ObjectModel:
    with seeded(0):
        model = build_model(_without_pretrained(config), ["object"])
        if isinstance(model, PooledFeatures):  # the only one that encodes nothing before it has seen objects
            images = torch.rand(2, 3, config.image_size, config.image_size)
            model.fit(model.pooled_features(images, _boxes(4, 2), model.config.pool_size), seed=0)
        return model


def _without_pretrained(config: AnyModelConfig) -> AnyModelConfig:
    """ImageNet's weights cost nothing but the wait for them."""
    if not isinstance(config, DetectedConfig) or not getattr(config.detector.backbone, "pretrained", False):
        return config
    backbone = config.detector.backbone.model_copy(update={"pretrained": False})
    return config.model_copy(update={"detector": config.detector.model_copy(update={"backbone": backbone})})


def _boxes(count: int, batch: int) -> Objects:
    """So many random objects in each image of a batch."""
    g = torch.Generator().manual_seed(0)
    sides = 0.15 + 0.2 * torch.rand(batch * count, 2, generator=g)
    centres = sides / 2 + (1 - sides) * torch.rand(batch * count, 2, generator=g)
    image_index = torch.arange(batch).repeat_interleave(count)
    return Objects(image_index, batch, torch.cat([centres, sides], dim=1))


def _steps(case: Case) -> tuple[Callable[[], None], Callable[[], None] | None]:
    """What is measured: encoding, and a training step, if there is such."""
    model, size = _make(case.config), case.config.image_size
    images = torch.rand(case.batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    given = None if case.objects is None else _boxes(case.objects, case.batch)

    def encode() -> None:
        model.eval()
        model.encode(images, boxes=given)

    def train(model: GenerativeModel, optimizer: torch.optim.Optimizer) -> None:
        model.train()
        optimizer.zero_grad()
        _loss(model, images, given)["total"].backward()
        optimizer.step()

    if not isinstance(model, GenerativeModel):
        return encode, None
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    return encode, partial(train, model, optimizer)


def _loss(model: GenerativeModel, images: Tensor, given: Objects | None) -> dict[str, Tensor]:
    if isinstance(model, DetectedVAE) and given is not None:
        with torch.no_grad():
            features = model.detector.backbone(images)
            objects = model.encode(images, boxes=given)
        return model.loss_of(images, objects.replace(z_what=None, z_what_scale=None, z_depth=None), features)
    return model.loss(images)


def _median_seconds(cases: Sequence[Case], repeats: int) -> list[list[float | None]]:
    """Seconds per image of each case's steps."""
    steps = [_steps(case) for case in cases]
    seconds: list[list[list[float]]] = [[[], []] for _ in cases]
    for repeat in range(repeats + 1):
        for number, case in enumerate(cases):
            for which, step in enumerate(steps[number]):
                if step is None:
                    continue
                started = time.perf_counter()
                step()
                if repeat:  # the first warms up
                    seconds[number][which].append((time.perf_counter() - started) / case.batch)
    return [[statistics.median(values) if values else None for values in each] for each in seconds]


def _training_memory(case: Case) -> float:
    """Megabytes that a training step adds to the peak of a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_growth, (case,))


def _peak_growth(case: Case) -> float:
    _, train = _steps(case)
    assert train is not None
    before = peak_megabytes()
    train()
    return peak_megabytes() - before


def peak_megabytes() -> float:
    """The most memory that this process has held so far, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where the other figure starts at the peak of the process that started this one
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        if found:
            return int(found[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
