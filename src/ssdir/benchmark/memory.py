"""Peak memory, counted operation by operation or of a whole process."""

from __future__ import annotations

import gc
import multiprocessing
import re
import resource
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class PeakBytes(TorchDispatchMode):
    """Counts the peak number of bytes of storages that operations in this mode allocate."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = {t.untyped_storage()._cdata for t in args if isinstance(t, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage(), inputs)
        return result

    def _add(self, storage: torch.UntypedStorage, inputs: set[int]) -> None:
        key = storage._cdata
        if key in self._seen or key in inputs:
            return
        self._seen.add(key)
        size = storage.nbytes()
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.alive -= size


def peak_bytes(run: Callable[[], object]) -> int:
    """Measures the peak of bytes of storages that a call allocates; the same on every call."""
    gc.collect()
    with PeakBytes() as counter:
        run()
    return int(counter.peak)


def growth_in_fresh_process(make: Callable[..., Callable[[], object]], *arguments: Any) -> float:
    """Measures the MiB that a call adds to the peak of a new process.

    Args:
        make: returns the function to call; its own memory is not counted. It can be pickled, as can its arguments.
        arguments: arguments of `make`.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return float(pool.apply(_growth, (make, *arguments)))


def _growth(make: Callable[..., Callable[[], object]], *arguments: Any) -> float:
    run = make(*arguments)
    before = peak_megabytes()
    run()
    return peak_megabytes() - before


def peak_megabytes() -> float:
    """Returns the peak memory of this process so far, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where the other figure begins with the peak of the parent process
        match = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        if match:
            return int(match[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # in bytes on macOS, elsewhere in KiB
