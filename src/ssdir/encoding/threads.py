"""Threads of a process that encodes beside others on the same machine."""

from __future__ import annotations

import os

import cv2
import pyarrow as pa

from ssdir.inference.files import READERS


def limit_threads(threads: int) -> int:
    """Limits the threads of each library that computes; call it before the model's engine is imported.

    Returns:
        `readers` of `PartEncoder` for so many threads: with one, a process reads, encodes and writes in turns.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)
    cv2.setNumThreads(0 if threads == 1 else threads)
    pa.set_cpu_count(threads)
    return 0 if threads == 1 else min(READERS, threads)
