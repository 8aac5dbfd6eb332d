"""The engine that encodes parts by Ray's workers, on one machine or on many.

Ray starts the workers, and says which have died. Only the numbers of parts go through it: workers read images and
write parts themselves. A worker is given one part at a time, so a lost one costs this part alone, which any other
worker takes. (Ray Data would keep it for the successor of the lost worker, which waits for a machine that may not
come back: ray-project/ray#44967.)
"""

from __future__ import annotations

import math
import socket
import traceback
import warnings
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version as package_version
from typing import Any, NoReturn

from ssdir.encoding.job import EncodingJob
from ssdir.encoding.local import JobProgress
from ssdir.encoding.part import PartEncoder
from ssdir.encoding.ray_cluster import ray_cluster
from ssdir.encoding.threads import limit_threads
from ssdir.errors import InputError, InputWarning
from ssdir.formatting import counted
from ssdir.inference.engines import ONNX_SUFFIX
from ssdir.storage import absolute

MOST_ATTEMPTS = 5
"""Most times that a part is begun: one that always ends its worker must not be tried for ever."""
PATIENCE_SECONDS = 60.0
"""Seconds without any worker after which a warning says that the cluster has no room."""


@dataclass(frozen=True)
class RayWorkers:
    """The workers that encode, and where.

    Attributes:
        address: address of a running cluster, see `ray_cluster`; None uses this machine alone.
        workers: their number; None takes as many as there is room for.
        cpus_per_worker: cores of each.
        gpus_per_worker: GPUs of each, or the share of one; None takes 1 if there are GPUs and the model can use
            them, else 0.
    """

    address: str | None = None
    workers: int | None = None
    cpus_per_worker: int = 1
    gpus_per_worker: float | None = None

    def check(self) -> None:
        """Raises InputError for a number out of range."""
        if self.workers is not None and self.workers < 1:
            raise InputError(f"the number of workers must be at least 1, got {self.workers}")
        if self.cpus_per_worker < 1:
            raise InputError(f"a worker needs at least 1 core, got {self.cpus_per_worker}")
        if self.gpus_per_worker is not None and not 0 <= self.gpus_per_worker < math.inf:
            raise InputError(f"the GPUs of a worker must be 0 or more, got {self.gpus_per_worker:g}")


def encode_parts_by_ray(
    job: EncodingJob, missing: Sequence[int], workers: RayWorkers, progress: JobProgress
) -> None:
    """Encodes parts of a job by Ray's workers.

    Args:
        job: the job; its folder, its images and its model must be where all workers see them.
        missing: numbers of the parts.
        workers: the workers.
        progress: is given each part that is written.

    Raises:
        InputError: as `ray_cluster` and `PartEncoder`; if there is no room for a worker, or a worker has another
            version of ssdir.
        RuntimeError: if a part can't be encoded.
    """
    workers.check()
    cores = None if workers.workers is None else workers.workers * workers.cpus_per_worker
    with ray_cluster(workers.address, cores) as ray:
        gpus = _gpus_per_worker(job, workers, ray)
        size = min(_number_of_workers(workers, gpus, ray), len(missing))
        actor = ray.remote(num_cpus=workers.cpus_per_worker, num_gpus=gpus)(_Worker)
        shared = ray.put(_for_workers(job, gpus))  # Given boxes may be many.
        dispatch = _Dispatch(ray, lambda: actor.remote(shared, workers.cpus_per_worker), missing, progress.add)
        try:
            dispatch.run(size)
        finally:
            dispatch.end()


def _gpus_per_worker(job: EncodingJob, workers: RayWorkers, ray: Any) -> float:
    if workers.gpus_per_worker is not None:
        return workers.gpus_per_worker
    options = job.options
    is_onnx = options.engine == "onnx" or job.manifest.model.lower().endswith(ONNX_SUFFIX)
    takes_gpus = not is_onnx and (options.device or "cuda").startswith("cuda")
    return 1.0 if takes_gpus and ray.cluster_resources().get("GPU", 0) else 0.0


def _number_of_workers(workers: RayWorkers, gpus: float, ray: Any) -> int:
    """Returns how many workers to start; warns where there is no room for all of them.

    Raises:
        InputError: if there is no room for any, and their number is not given.
    """
    there = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(_room(node, workers.cpus_per_worker, gpus) for node in there)
    each = counted(workers.cpus_per_worker, "core") + (f" and {gpus:g} of a GPU" if gpus else "")
    if workers.workers is None and not room:
        raise InputError(f"Ray has no machine with {each}, which a worker needs: ask for fewer")
    if workers.workers is not None and workers.workers > room:
        _warn(
            f"Ray has room for {room} of {counted(workers.workers, 'worker')} with {each}: the others wait for it"
        )
    return workers.workers or room


def _room(node: dict[str, float], cpus: int, gpus: float) -> int:
    """Returns how many workers a machine has the cores and the GPUs for."""
    room = node.get("CPU", 0) // cpus
    return int(min(room, node.get("GPU", 0) // gpus) if gpus else room)


def _for_workers(job: EncodingJob, gpus: float) -> EncodingJob:
    """Returns the job for processes that run in other folders, and that each see their own GPUs alone."""
    on_gpu = gpus and (job.options.device or "cuda").startswith("cuda")
    device = "cuda" if on_gpu else job.options.device
    return replace(job, folder=absolute(job.folder), options=replace(job.options, device=device))


@dataclass(frozen=True)
class _Failure:
    """An exception of a worker; it is returned, because Ray wraps those that are raised in texts of its own.

    Attributes:
        error: the exception.
        traceback: where it was raised.
    """

    error: Exception
    traceback: str = ""

    @classmethod
    def of(cls, error: Exception) -> _Failure:
        """Wraps an exception that is being handled."""
        where = socket.gethostname()
        if isinstance(error, InputError):
            return cls(InputError(f"{error} (a worker on {where})"))
        if type(error).__module__ != "builtins":  # Other libraries' may not arrive whole.
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return cls(error, f"a worker on {where}: {traceback.format_exc()}")

    def throw(self) -> NoReturn:
        """Raises the exception."""
        if self.traceback:
            self.error.add_note(self.traceback)
        raise self.error


class _Worker:
    """Encodes parts, in a process of Ray's.

    Args:
        job: the job.
        threads: number of threads of each library that computes.
    """

    def __init__(self, job: EncodingJob, threads: int) -> None:
        self._job, self._threads = job, threads

    def load(self, version: str) -> _Failure | None:
        """Loads the model; `version` is that of the ssdir which has started the worker."""
        try:
            if version != (own := package_version("ssdir")):
                raise InputError(f"ssdir {version} needs workers of the same version, not {own}")
            self._encode = PartEncoder(self._job, readers=limit_threads(self._threads))
        except Exception as error:
            return _Failure.of(error)
        return None

    def encode(self, number: int) -> _Failure | None:
        """Encodes a part."""
        try:
            self._encode(number)
        except Exception as error:
            return _Failure.of(error)
        return None


class _Dispatch:
    """Gives parts to workers until all are written.

    Args:
        ray: the module.
        start: starts a worker, and returns its handle.
        numbers: the parts.
        on_part: called with the number of each part that is written.
    """

    def __init__(
        self, ray: Any, start: Callable[[], Any], numbers: Sequence[int], on_part: Callable[[int], None]
    ) -> None:
        self._ray, self._start, self._on_part = ray, start, on_part
        self._waiting, self._left = deque(numbers), len(numbers)
        self._calls: dict[Any, tuple[Any, int | None]] = {}  # A call's worker, and its part; None loads the model.
        self._idle: list[Any] = []
        self._attempts: Counter[int] = Counter()
        self._setbacks = self._most_setbacks = 0  # since a part was written

    def run(self, size: int) -> None:
        """Encodes the parts by so many workers.

        Raises:
            Exception: what a worker raised; other errors than an `InputError` after several attempts.
            ChildProcessError: if workers die again and again.
        """
        self._most_setbacks = MOST_ATTEMPTS * size  # All workers of a machine may die together.
        for _ in range(size):
            self._add_worker()
        while self._left:
            while self._idle and self._waiting:
                worker, number = self._idle.pop(), self._waiting.popleft()
                self._calls[worker.encode.remote(number)] = worker, number
            for call in self._finished():
                self._take(call)

    def end(self) -> None:
        """Ends the workers; those that are still starting end with the last reference to them."""
        busy = [worker for worker, number in self._calls.values() if number is not None]
        for worker in [*self._idle, *busy]:
            self._kill(worker)

    def _add_worker(self) -> None:
        worker = self._start()
        self._calls[worker.load.remote(package_version("ssdir"))] = worker, None

    def _kill(self, worker: Any) -> None:
        with suppress(Exception):  # It may be dead, or its machine away.
            self._ray.kill(worker)

    def _finished(self) -> list[Any]:
        """Returns the calls that are done, at least one."""
        calls = list(self._calls)
        while not self._ray.wait(calls, num_returns=1, timeout=PATIENCE_SECONDS)[0]:
            if not self._idle and all(number is None for _, number in self._calls.values()):
                _warn("no worker has started yet: Ray has no room for one, or its machines are slow; waiting")
        done: list[Any] = self._ray.wait(calls, num_returns=len(calls), timeout=0)[0]
        return done

    def _take(self, call: Any) -> None:
        """Takes the outcome of a call; a worker that has failed is replaced."""
        worker, number = self._calls.pop(call)
        try:
            outcome = self._ray.get(call)
        except self._ray.exceptions.RayError as error:
            outcome = _Failure(_lost(number, error))
        if isinstance(outcome, _Failure):
            self._kill(worker)
            self._count_setback(number, outcome)
            self._add_worker()
            return
        self._idle.append(worker)
        if number is not None:
            self._left -= 1
            self._setbacks = 0
            self._attempts.pop(number, None)
            self._on_part(number)

    def _count_setback(self, number: int | None, failure: _Failure) -> None:
        """Plans the next attempt at a part, or raises the failure if there have been enough."""
        self._setbacks += 1
        if isinstance(failure.error, InputError) or self._setbacks >= self._most_setbacks:
            failure.throw()
        if number is not None:
            self._attempts[number] += 1
            if self._attempts[number] >= MOST_ATTEMPTS:
                failure.throw()
            self._waiting.append(number)


def _lost(number: int | None, error: Exception) -> Exception:
    """Words the loss of a worker."""
    text = str(error)
    if "No module named 'ssdir" in text:
        return InputError("a machine of the Ray cluster has no ssdir: install it on all of them")
    if "references to the actor were removed" in text:  # It can't ask their owner.
        return ChildProcessError(
            "the Ray cluster can't reach this process, which must answer it: open its ports, set RAY_AUTH_MODE "
            "as on the cluster"
        )
    doing = "loading the model" if number is None else f"encoding part {number}"
    reason = " for lack of memory" if "OutOfMemory" in type(error).__name__ or "OOM" in text else ""
    return ChildProcessError(
        f"workers died again and again{reason}, the last while {doing}: the same command goes on; if "
        "they need more memory than there is, use fewer workers or a smaller batch size"
    )


def _warn(text: str) -> None:
    warnings.warn(InputWarning(text), stacklevel=3)
