from __future__ import annotations

import json
import platform

import pytest
import torch

from ssdir.evaluation import provenance as module
from ssdir.evaluation.provenance import other_cpu, provenance


def test_record_is_json_and_names_no_place() -> None:
    record = provenance({"size": 3}, 1, "abc", "cpu", 1.23456)
    text = json.dumps(record)
    assert json.loads(text) == record
    assert record["versions"].keys() == {"python", "ssdir", "torch", "torchvision", "numpy", "sklearn"}
    assert record["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert record["wall_seconds"] == 1.235
    assert (record["config"], record["seed"], record["data_hash"]) == ({"size": 3}, 1, "abc")
    assert platform.node() not in text
    assert "/" not in text


@pytest.mark.parametrize(("instructions", "kind"), [(True, "AVX512, bfloat16"), (False, "AVX512")])
def test_a_record_states_what_the_cpu_multiplies_in(
    instructions: bool, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(module, "multiplies_bf16", lambda: instructions)
    record = provenance({}, 0, None, "cpu", 0)
    assert record["cpu"] == kind
    assert other_cpu(record) is None
    assert other_cpu({}) is None  # records from before it was noted
    warning = other_cpu({"cpu": "AVX2"})
    assert warning is not None
    assert f"AVX2; this one: {kind}" in warning
