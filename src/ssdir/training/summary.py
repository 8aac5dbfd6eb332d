"""What a stage leaves behind of itself: whether it ended, how long it took, and what it counted."""

from __future__ import annotations

from pathlib import Path

from ssdir.documents import json_text
from ssdir.outputs import atomic_file
from ssdir.training.recipe import SUMMARY_FILE, read_summary


def write_summary(folder: Path, seconds: float, *, ended: bool, **notes: float | str | None) -> None:
    """Writes a stage's summary.

    Args:
        folder: of the stage.
        seconds: wall-clock, over all its sessions.
        ended: whether the stage has ended.
        notes: whatever else is to be known of it.
    """
    with atomic_file(folder / SUMMARY_FILE, force=True) as temporary:
        temporary.write_text(json_text({"ended": ended, "wall_seconds": seconds, **notes}), encoding="utf-8")


def has_ended(out: Path, stage: str) -> bool:
    """Whether a run's stage has ended, and its model is there."""
    model = out / "model" if stage == "representation" else out / stage / "model"
    return read_summary(out, stage).ended and (model / "config.json").exists()


def stage_seconds(out: Path, stage: str) -> float:
    """Wall-clock seconds of a run's stage so far."""
    return read_summary(out, stage).wall_seconds
