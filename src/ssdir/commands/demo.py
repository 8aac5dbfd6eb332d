"""`ssdir demo`: everything, small."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssdir.commands.options import Device, Force, Seed
from ssdir.commands.threads import let_waiting_threads_sleep


def demo(
    out: Annotated[Path, typer.Option(help="Folder to make.")] = Path("demo"),
    full: Annotated[bool, typer.Option("--full", help="Train on twice as many images.")] = False,
    seed: Seed = 0,
    force: Force = False,
    device: Device = None,
) -> None:
    """See it work: a small model on scattered digits, from data to numbers and pictures."""
    let_waiting_threads_sleep()
    from ssdir.demo import run_demo

    run_demo(out, full=full, seed=seed, force=force, device=device)
