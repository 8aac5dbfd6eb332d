"""What files of costs hold, as they are read again."""

from __future__ import annotations

from pydantic import Field

from ssdir.config import Record


class StoredSpread(Record):
    """Repeats of a measurement."""

    median: float
    min: float
    max: float


class StoredCost(Record):
    """What a stage of a model costs; see `Cost`."""

    model: str
    image_size: int = Field(ge=1)
    objects: int | None
    stage: str
    parameters: int = Field(ge=0)
    seconds: StoredSpread
    memory_mb: float | None


class StoredMachine(Record):
    """Where costs were measured; the kind of CPU may not be known."""

    cpu: str | None = None


class StoredBench(Record):
    """The part of what `ssdir bench` writes that a later one compares with."""

    costs: list[StoredCost]
    provenance: StoredMachine
