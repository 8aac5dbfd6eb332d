"""Worker processes end with the command, and the command says so if one of them is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from ssdir.data.processes import run_jobs
from ssdir.errors import InputError

WAIT = """
import os, time
from ssdir.data.processes import run_jobs

def wait(job: int) -> None:
    os.write(1, b"%d\\n" % os.getpid())  # Lines of two processes do not mix, as those of print may.
    time.sleep(600)

if __name__ == "__main__":
    list(run_jobs(wait, range(2), 2))
"""


def kill_oneself(job: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return job


def test_a_killed_worker_is_one_sentence() -> None:
    with pytest.raises(InputError, match="one of 2 worker processes was killed, often for lack of memory"):
        list(run_jobs(kill_oneself, range(4), 2))


def test_workers_end_with_a_command_that_is_killed() -> None:
    command = subprocess.Popen([sys.executable, "-c", WAIT], stdout=subprocess.PIPE, text=True)
    assert command.stdout is not None
    workers = [int(command.stdout.readline()) for _ in range(2)]
    command.kill()
    try:
        command.communicate(timeout=20)  # Returns when no worker has the pipe open any more.
    except subprocess.TimeoutExpired:
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        raise
