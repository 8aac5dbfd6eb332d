"""The provenance of a number: everything that is needed to measure it again."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch

from ssdir.ops.precision import multiplies_bf16

_PACKAGES = {
    "ssdir": "ssdir",
    "torch": "torch",
    "torchvision": "torchvision",
    "numpy": "numpy",
    "sklearn": "scikit-learn",
}


def provenance(
    config: Mapping[str, Any], seed: int | None, data_hash: str | None, device: str, wall_seconds: float
) -> dict[str, Any]:
    """The record that goes beside metrics; JSON-ready, without names of hosts, users or places.

    Args:
        config: the run's config, as plain values; kept as it is.
        seed: of training.
        data_hash: of the data set.
        device: such as `cpu`, or the accelerator's model.
        wall_seconds: how long the measurement took.

    Returns:
        `config`, `seed`, `data_hash`, `versions`, `platform`, `device`, `cpu_count`, `cpu`, `wall_seconds`.
    """
    versions = {name: version(package) for name, package in _PACKAGES.items()}
    return {
        "config": dict(config),
        "seed": seed,
        "data_hash": data_hash,
        "versions": {"python": platform.python_version(), **versions},
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device,
        "cpu_count": os.cpu_count(),
        "cpu": cpu_kind(),
        "wall_seconds": round(wall_seconds, 3),
    }


def with_undefined_as_null(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics as JSON has them, which lacks NaN and infinity: None where a metric is undefined."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def cpu_kind() -> str:
    """Names the CPU instructions that torch uses, which decide its speed, such as `AVX512, bfloat16`."""
    return torch.backends.cpu.get_cpu_capability() + (", bfloat16" if multiplies_bf16() else "")


def other_cpu(before: Mapping[str, Any]) -> str | None:
    """Says that figures of speed are of another kind of CPU than this one; None if not, or if it is not known.

    Args:
        before: what `provenance` made then.
    """
    kind = before.get("cpu")
    if kind in (None, cpu_kind()):
        return None
    return f"nothing is compared: what was measured before is of another CPU ({kind}; this one: {cpu_kind()})"
