"""Runs work on many images in several processes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from multiprocessing import get_all_start_methods, get_start_method, parent_process
from typing import Any, TypeVar

import cv2

from ssdir.errors import EXIT_FAILED, InputError

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

    Raises:
        InputError: if one of the processes is killed.
    """
    if processes <= 1:
        yield from map(work, jobs)
        return
    executor = ProcessPoolExecutor(processes, initializer=_start, initargs=(work,))
    try:
        yield from executor.map(_run, jobs)
    except BrokenExecutor:
        raise InputError(
            f"one of {processes} worker processes was killed, often for lack of memory: use fewer workers"
        ) from None
    finally:
        executor.shutdown(cancel_futures=True)


def starts_by_fork() -> bool:
    """Returns whether new processes are forks of this one, which don't import the user's script again.

    The start method is read but not fixed, so that the user may still choose one.
    """
    return (get_start_method(allow_none=True) or get_all_start_methods()[0]) == "fork"


def end_with_parent() -> None:
    """Lets this worker process end with its parent, even if that is killed, and not before it, by Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_after_parent, daemon=True).start()


def _end_after_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(EXIT_FAILED)


_work: Callable[[Any], Any] | None = None


def _start(work: Callable[[Any], Any]) -> None:
    global _work
    _work = work
    cv2.setNumThreads(0)
    end_with_parent()


def _run(job: Any) -> Any:
    assert _work is not None
    return _work(job)
