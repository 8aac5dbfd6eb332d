"""What commands that count objects by class or cluster print."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ssdir.console import next_step, print_json, print_table, say


def print_counts(
    what: str, counts: Mapping[str, int], objects: str, out: Path, image_grid: Path | None, as_json: bool
) -> None:
    """Prints numbers of objects by `what`, the files written and the next step; or the numbers alone as JSON."""
    if as_json:
        print_json(counts)
        return
    print_table([what, "objects"], counts.items())
    say(f"{out}; see {image_grid}" if image_grid else f"{out}")
    next_step("outliers", objects, "--out", "outliers.csv", "--image-grid", "outliers.png")
