"""`ssdir reconstruct`: images beside their reconstruction."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ssdir.commands.options import AsJson, Device, Force, ImagePaths, Model, ScoreThreshold, Strict
from ssdir.console import next_step, print_json, say, warn


def reconstruct(
    model: Model,
    paths: ImagePaths,
    out: Annotated[Path, typer.Option(help="PNG to write.")],
    score_threshold: ScoreThreshold = None,
    strict: Strict = False,
    force: Force = False,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Write a grid of images beside their boxes, their reconstructions and single objects.

    Of many images, at most 64 are shown, evenly chosen.
    """
    from ssdir.inference.reconstruct_to_file import reconstruct_to_file

    shown = reconstruct_to_file(model, paths, out, score_threshold, strict, device, force)
    for problem in shown.skipped:
        warn(f"skipped: {problem}")
    if as_json:
        print_json({**asdict(shown), "out": out})
        return
    say(f"{shown.summary()}: {out}")
    next_step("encode", model, *paths, "--out", "objects.parquet")
