"""Schemas of the stored results, which check that values have the types that reports need."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from pydantic import Field

from ssdir.benchmark.costs import Cost
from ssdir.config import Record
from ssdir.reproduce.plan import FileName

Metrics: TypeAlias = dict[str, float | None]
"""Values of metrics by name; None where one is undefined."""


class StoredTraining(Record):
    """The training of a measured model."""

    recipe: dict[str, Any]
    wall_seconds: dict[str, float]
    device: str | None = None


class StoredProvenance(Record):
    """The provenance of metrics; see `provenance`."""

    config: dict[str, Any]
    seed: int | None
    data_hash: str | None
    versions: dict[str, str]
    device: str
    wall_seconds: float
    training: StoredTraining | None = None


class StoredCosts(Record):
    """Time and memory of a model, and where they were measured."""

    costs: list[Cost] = Field(min_length=1)
    provenance: StoredProvenance


class StoredScatter(Record):
    """The options of the generated images of a training that figure 4 shows."""

    min_size: float
    max_size: float
    grids: list[int] = Field(min_length=1)


class StoredRecord(Record):
    """The record that an experiment keeps of a training."""

    run: str
    group: FileName
    label: str
    model: str
    data: str
    detector: Literal["class_aware", "class_agnostic"] | None
    seed: int
    metrics: Metrics
    provenance: StoredProvenance
    cost: StoredCosts | None = None
    picture: FileName | None = None
    scatter: StoredScatter | None = None


class StoredResults(Record):
    """The results of an experiment."""

    left_out: list[str]
    records: list[StoredRecord]


class StoredMeasurement(Record):
    """The measurement of a training; `failure` says why there is none."""

    metrics: Metrics
    failure: str | None = None
    provenance: StoredProvenance


class StoredModelCosts(Record):
    """Time and memory of several models, by name."""

    costs: dict[str, list[Cost]]
    provenance: StoredProvenance
