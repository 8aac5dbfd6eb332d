"""Runs work on many images in several processes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_all_start_methods, get_start_method
from typing import Any, TypeVar

import cv2

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")


def run_jobs(
    work: Callable[[JobT], ResultT], jobs: Sequence[JobT], processes: int
) -> Generator[ResultT, None, None]:
    """Yields the results of jobs, in their order.

    Args:
        work: does one job; each process receives it once.
        jobs: the jobs; those that have not begun when the generator is closed are cancelled.
        processes: number of processes; 1 runs the jobs in this process.
    """
    if processes <= 1:
        yield from map(work, jobs)
        return
    executor = ProcessPoolExecutor(processes, initializer=_start, initargs=(work,))
    try:
        yield from executor.map(_run, jobs)
    finally:
        executor.shutdown(cancel_futures=True)


def starts_by_fork() -> bool:
    """Returns whether new processes are forks of this one, which don't import the user's script again.

    The start method is read but not fixed, so that the user may still choose one.
    """
    return (get_start_method(allow_none=True) or get_all_start_methods()[0]) == "fork"


_work: Callable[[Any], Any] | None = None


def _start(work: Callable[[Any], Any]) -> None:
    global _work
    _work = work
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which then ends this process.


def _run(job: Any) -> Any:
    assert _work is not None
    return _work(job)
