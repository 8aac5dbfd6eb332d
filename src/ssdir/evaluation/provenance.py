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
    """Makes the record that is stored beside metrics, for JSON; it names no host, user or folder.

    Args:
        config: the run's config as plain values; stored unchanged.
        seed: seed of the run.
        data_hash: fingerprint of the data set.
        device: such as `cpu`, or the accelerator's model.
        wall_seconds: duration of the measurement, in seconds.

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
    """Replaces NaN and infinity, which JSON lacks, by None."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def cpu_kind() -> str:
    """Names the CPU instructions that torch uses, which decide its speed, such as `AVX512, bfloat16`."""
    return torch.backends.cpu.get_cpu_capability() + (", bfloat16" if multiplies_bf16() else "")


def other_cpu(before: Mapping[str, Any]) -> str | None:
    """Returns a sentence if earlier timings are from another kind of CPU than this one; else, or if unknown, None.

    Args:
        before: the `provenance` of the earlier timings.
    """
    kind = before.get("cpu")
    if kind in (None, cpu_kind()):
        return None
    return f"nothing is compared: what was measured before is of another CPU ({kind}; this one: {cpu_kind()})"
