"""The engine that encodes parts by Ray's workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ssdir.encoding.job import EncodingJob
from ssdir.encoding.local import JobProgress
from ssdir.errors import InputError


@dataclass(frozen=True)
class RayWorkers:
    """The workers that encode, and where.

    Attributes:
        address: address of a running cluster; None uses this machine alone.
        workers: their number; None takes as many as there is room for.
        cpus_per_worker: cores of each.
        gpus_per_worker: GPUs of each; None takes 1 if there are GPUs.
    """

    address: str | None = None
    workers: int | None = None
    cpus_per_worker: int = 1
    gpus_per_worker: float | None = None


def encode_parts_by_ray(
    job: EncodingJob, missing: Sequence[int], workers: RayWorkers, progress: JobProgress
) -> None:
    """Encodes parts of a job by Ray's workers."""
    raise InputError("encoding by ray is not there yet")
