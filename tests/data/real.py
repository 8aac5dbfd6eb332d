"""Paths of real data that tests read, which is not part of the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_SHARED = Path(__file__).parents[3] / "shared" / "data"


def real_data(name: str) -> tuple[Path, pytest.MarkDecorator]:
    """Returns the folder of real data, and the mark that skips tests where it is missing."""
    variable = f"SSDIR_{name.upper().replace('-', '_')}"
    folder = Path(os.environ.get(variable, _SHARED / name))
    reason = f"needs {name} at {folder} (or where {variable} says)"
    return folder, pytest.mark.skipif(not folder.is_dir(), reason=reason)
