"""Threads of commands that compute for minutes."""

from __future__ import annotations

import os


def let_waiting_threads_sleep() -> None:
    """Lets OpenMP's threads sleep while they wait for each other, unless the environment says otherwise.

    By default they spin. Beside other programs, a thread that spins holds the core that the one it waits for
    needs: on two cores, beside others' load of four, a training step of `demo` in single precision took 0.9 s of
    CPU time, and takes 0.4 s so. It counts only before torch is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
