"""The engine that encodes parts one after the other in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ssdir.console import Advance
from ssdir.encoding.job import EncodingJob
from ssdir.encoding.part import PartEncoder
from ssdir.inference.files import Encoder


class JobProgress:
    """Counts the images of a job's share that are done, and reports them.

    Args:
        job: the job.
        missing: the parts of its share that are not written yet.
        device: what the model runs on.
        on_progress: called with (images done, all images).
    """

    def __init__(self, job: EncodingJob, missing: Sequence[int], device: str, on_progress: Advance) -> None:
        self.job, self.on_progress = job, on_progress
        self.total = sum(len(job.manifest.images_of(number)) for number in job.parts())
        self.done = self.total - sum(len(job.manifest.images_of(number)) for number in missing)
        on_progress(self.done, self.total, f"encoding on {device}")

    def within(self, done: int, total: int, stage: str | None = None) -> None:
        """Reports images of a part that is not written yet."""
        self.on_progress(self.done + done, self.total)

    def add(self, number: int) -> None:
        """Counts a part that is written."""
        self.done += len(self.job.manifest.images_of(number))
        self.on_progress(self.done, self.total)


def encode_parts(job: EncodingJob, missing: Sequence[int], encoder: Encoder[Any], progress: JobProgress) -> None:
    """Encodes parts of a job.

    Args:
        job: the job.
        missing: numbers of the parts.
        encoder: the job's model.
        progress: is given each batch and part.

    Raises:
        InputError: as `PartEncoder`.
    """
    encode = PartEncoder(job, encoder)
    for number in missing:
        encode(number, progress.within)
        progress.add(number)
