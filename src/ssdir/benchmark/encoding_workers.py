"""Processes that encode parts at the same time, each with the model loaded, and measure themselves.

Torch is imported by none but the workers, after their number of threads is set.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ssdir.data.processes import end_with_parent
from ssdir.encoding.job import EncodingJob
from ssdir.encoding.part import PartEncoder
from ssdir.encoding.threads import limit_threads
from ssdir.errors import InputError
from ssdir.inference.engines import load_encoder
from ssdir.inference.files import READERS, Encoder, read_image_batches

T = TypeVar("T")

_MEETING_SECONDS = 300.0
"""Longest time that a worker waits until the others have loaded the model."""


@dataclass(frozen=True)
class WorkerKind:
    """What a worker is.

    Attributes:
        model: the model, as `load_encoder` takes it.
        device: what it runs on.
        threads: number of threads; None takes as many as a process has that encodes alone.
    """

    model: str
    device: str
    threads: int | None


@dataclass(frozen=True)
class EncodedPart:
    """A part that a worker has encoded.

    Attributes:
        seconds: from the list of images to the written part, with the model loaded.
        reading_seconds: to read and decode the same images alone, one after the other; 0 if not measured.
        peak_mb: peak memory of the worker so far, in MiB.
        start_seconds: from the order to start the worker until its model was loaded.
    """

    seconds: float
    reading_seconds: float
    peak_mb: float
    start_seconds: float


class EncodingWorkers:
    """Workers of one kind; the object is made by `encoding_workers`.

    Args:
        pool: their processes.
        number: how many there are.
    """

    def __init__(self, pool: ProcessPoolExecutor, number: int) -> None:
        self._pool, self.number = pool, number

    def alone(self, job: EncodingJob) -> EncodedPart:
        """Lets one worker encode the first part of a job, while the others wait."""
        return self._run(job, [0], meet=False)[0]

    def together(self, job: EncodingJob) -> list[EncodedPart]:
        """Lets each worker encode a part of a job, all at the same time."""
        return self._run(job, range(self.number), meet=True)

    def _run(self, job: EncodingJob, numbers: Sequence[int], *, meet: bool) -> list[EncodedPart]:
        for number in numbers:
            Path(job.part(number)).unlink(missing_ok=True)
        return self._results([self._pool.submit(_encode, job, number, meet) for number in numbers])

    def wait(self) -> None:
        """Returns when all workers have loaded the model."""
        # The pool starts a process for a task only while no other process is free.
        self._results([self._pool.submit(_meet) for _ in range(self.number)])

    def _results(self, tasks: Sequence[Future[T]]) -> list[T]:
        try:
            return [task.result() for task in tasks]
        except BrokenProcessPool:
            raise InputError(
                f"a worker that measured encoding has died: is there memory for {self.number} of them?"
            ) from None


@contextmanager
def encoding_workers(kind: WorkerKind, number: int) -> Iterator[EncodingWorkers]:
    """Starts workers for a `with` block, which is entered when all have loaded the model.

    Args:
        kind: what they are.
        number: how many.

    Raises:
        InputError: if one of them dies.
    """
    context = multiprocessing.get_context("spawn")  # A fork of a process that has run torch may hang.
    barrier = context.Barrier(number)
    start = (kind, barrier, time.time())
    pool = ProcessPoolExecutor(number, mp_context=context, initializer=_start, initargs=start)
    try:
        workers = EncodingWorkers(pool, number)
        workers.wait()
        yield workers
    finally:
        barrier.abort()  # None may wait for one that does not come.
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class _Worker:
    """The state of this process, if it is a worker."""

    encoder: Encoder[Any]
    readers: int
    barrier: Any
    start_seconds: float


_worker: _Worker | None = None


def _start(kind: WorkerKind, barrier: Any, ordered: float) -> None:
    global _worker
    end_with_parent()
    readers = READERS if kind.threads is None else limit_threads(kind.threads)
    encoder = load_encoder(kind.model, device=kind.device)
    _worker = _Worker(encoder, readers, barrier, time.time() - ordered)


def _meet() -> None:
    """Waits until every worker has come here, so that each of them takes one such task."""
    assert _worker is not None
    _worker.barrier.wait(_MEETING_SECONDS)


def _encode(job: EncodingJob, number: int, meet: bool) -> EncodedPart:
    from ssdir.benchmark.memory import peak_megabytes

    assert _worker is not None
    encode = PartEncoder(job, _worker.encoder, _worker.readers)
    if meet:
        _worker.barrier.wait(_MEETING_SECONDS)
    started = time.perf_counter()
    encode(number)
    seconds = time.perf_counter() - started
    reading = 0.0 if meet else _seconds_to_read(job, number, _worker.encoder)
    return EncodedPart(seconds, reading, peak_megabytes(), _worker.start_seconds)


def _seconds_to_read(job: EncodingJob, number: int, encoder: Encoder[Any]) -> float:
    images = job.image_list().read(job.manifest.images_of(number))
    started = time.perf_counter()
    for _ in read_image_batches(images, encoder.image_size, encoder.resize, job.options.batch_size, readers=0):
        pass
    return time.perf_counter() - started
