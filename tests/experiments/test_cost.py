"""What models cost: counted, timed and weighed."""

from __future__ import annotations

from ssdir.experiments.cost import measure_costs
from ssdir.models.registry import build_model
from ssdir.training.recipe import read_recipe


def test_objects_cost_where_they_are_described_one_by_one() -> None:
    small = ["model.detector.image_size=64", "model.consistency.weight=0"]
    configs = {
        "SSDIR": read_recipe("tiny", small).model,
        "PooledFeatures": read_recipe("tiny-pooled", small[:1]).model,
        "SPACE": read_recipe("space-64").model,
    }
    # On Linux, one count of a process's memory starts at the peak of the process that started it.
    ballast = bytearray(b"x") * 800_000_000
    costs = measure_costs(configs, (1, 40), batch=2, repeats=1)
    assert len(ballast)
    assert [cost.objects for cost in costs["SSDIR"]] == [1, 40]
    assert [cost.objects for cost in costs["SPACE"]] == [None]
    assert all(cost.encode_seconds > 0 and cost.train_seconds is None for cost in costs["PooledFeatures"])
    few, many = costs["SSDIR"]
    expected = sum(p.numel() for p in build_model(configs["SSDIR"], ["object"]).parameters())
    assert few.parameters == many.parameters == expected
    for cost in (few, many, *costs["SPACE"]):
        assert cost.encode_seconds > 0
        assert cost.train_seconds is not None
        assert cost.train_seconds > 0
        assert cost.training_memory_mb is not None
        assert cost.training_memory_mb > 5
    assert (many.training_memory_mb or 0) > (few.training_memory_mb or 0)
