from __future__ import annotations

import json
import platform

import torch

from ssdir.evaluation.provenance import provenance


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
