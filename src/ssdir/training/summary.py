"""What a stage leaves behind of itself: whether it ended, how long it took, and what it counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ssdir.outputs import atomic_file
from ssdir.training.recipe import SUMMARY_FILE


def write_summary(folder: Path, seconds: float, *, ended: bool, **notes: float | str) -> None:
    """Writes a stage's summary.

    Args:
        folder: of the stage.
        seconds: wall-clock, over all its sessions.
        ended: whether it need not be gone on with.
        notes: whatever else is to be known of it.
    """
    summary = {"ended": ended, "wall_seconds": seconds, **notes}
    with atomic_file(folder / SUMMARY_FILE, force=True) as temporary:
        temporary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def read_summary(out: Path, stage: str) -> dict[str, Any]:
    """The summary of a run's stage; empty if it has not run."""
    file = out / stage / SUMMARY_FILE
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def has_ended(out: Path, stage: str) -> bool:
    """Whether a run's stage has ended, and its model is there."""
    model = out / "model" if stage == "representation" else out / stage / "model"
    return bool(read_summary(out, stage).get("ended")) and (model / "config.json").exists()


def stage_seconds(out: Path, stage: str) -> float:
    """Wall-clock seconds of a run's stage so far."""
    return float(read_summary(out, stage).get("wall_seconds", 0.0))
