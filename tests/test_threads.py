"""Tests of how the threads of long commands wait."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Ends as soon as torch is asked for: OpenMP reads its variables then.
WATCHED = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(os.environ.get("OMP_WAIT_POLICY"), flush=True)
            os._exit(0)
sys.meta_path.insert(0, Watch())
from ssdir.cli import app
app(sys.argv[1:])
"""


@pytest.mark.parametrize("command", ["demo --out demo", "train tiny --data . --out run", "data check ."])
@pytest.mark.parametrize(("before", "after"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_sleep_unless_asked_to_spin(
    command: str, before: str | None, after: str, tmp_path: Path
) -> None:
    env = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if before is not None:
        env["OMP_WAIT_POLICY"] = before
    call = [sys.executable, "-c", WATCHED, *command.split()]
    result = subprocess.run(call, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.split() == [after]
