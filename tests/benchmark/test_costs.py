"""Time, memory and parameters of models."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import Tensor

from ssdir.benchmark.costs import MEASURED_STAGES, Case, _step, measure_costs, untrained
from ssdir.benchmark.memory import peak_megabytes
from ssdir.models.detector.refiner import Refiner
from ssdir.models.registry import build_model
from ssdir.objects import Scene
from ssdir.training.recipe import read_recipe

SMALL = ["model.ssd.image_size=64", "model.consistency.weight=0"]


@pytest.mark.slow
def test_time_depends_on_the_number_of_objects_where_they_are_encoded_one_by_one() -> None:
    configs = {
        "SSDIR": [read_recipe("tiny", SMALL).model],
        "PooledFeatures": [read_recipe("tiny-pooled", SMALL[:1]).model],
        "SPACE": [read_recipe("space-64").model],
    }
    costs = measure_costs(configs, (1, 40), batch=2, repeats=1, memory_of=["train"])
    measured = {(cost.model, cost.objects, cost.stage): cost for cost in costs}
    assert len(measured) == len(costs), "each case is measured once"
    stages = {
        name: [cost.stage for cost in costs if cost.model == name and cost.objects != 40] for name in configs
    }
    assert stages == {
        "SSDIR": list(MEASURED_STAGES),
        "PooledFeatures": ["detect", "encode"],
        "SPACE": ["encode", "decode", "reconstruct", "train"],
    }
    assert {cost.objects for cost in costs if cost.model == "SPACE"} == {None}
    expected = sum(p.numel() for p in build_model(configs["SSDIR"][0], ["object"]).parameters())
    for cost in costs:
        assert 0 < cost.seconds.min <= cost.seconds.median <= cost.seconds.max
        assert (cost.memory_mb is not None) == (cost.stage == "train")
        assert cost.model != "SSDIR" or cost.parameters == expected
    few, many = (measured["SSDIR", count, "train"].memory_mb or 0 for count in (1, 40))
    assert many > few > 5


def test_encoding_detects_as_many_objects_as_asked_and_refines_their_boxes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = read_recipe("tiny", SMALL).model
    refined: list[int] = []

    def refine(
        self: Refiner, maps: list[Tensor], z_where: Tensor, image_index: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        refined.append(len(z_where))
        return z_where, None

    monkeypatch.setattr(Refiner, "forward", refine)
    for stage in ("detect", "encode", "reconstruct", "decode"):
        output = _step(untrained(config), Case("SSDIR", config, 30, batch=2), stage)()
        objects = output.appearances if isinstance(output, Scene) else output
        assert len(objects) == 60, stage
    assert refined == [60, 60, 60, 30], "decoding prepares one image"


@pytest.mark.parametrize(
    "overrides", [["model.encoder.refiner_features=true", "model.loss.classes=1"], ["model.clone_backbone=false"]]
)
def test_models_that_read_what_the_refiner_reads_are_trained_too(overrides: list[str]) -> None:
    config = read_recipe("tiny", [*SMALL, *overrides]).model
    for stage in ("train", "train_cached"):
        _step(untrained(config), Case("SSDIR", config, 3, batch=2), stage)()


def test_sizes_of_images_are_measured_apart() -> None:
    sizes = [read_recipe("tiny", [f"model.ssd.image_size={size}"]).model for size in (64, 96)]
    costs = measure_costs({"SSDIR": sizes}, [2], batch=1, repeats=1, memory_of=[])
    assert [(cost.image_size, cost.stage) for cost in costs] == [
        (size, name) for size in (64, 96) for name in MEASURED_STAGES
    ]


def test_macos_counts_the_peak_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(Path, "exists", lambda path: False)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=500 << 20))
    assert peak_megabytes() == 500
