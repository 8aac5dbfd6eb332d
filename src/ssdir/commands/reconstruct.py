"""`ssdir reconstruct`: pictures of what a model sees."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssdir.commands.options import Device, Force, Model, ScoreThreshold, Strict
from ssdir.console import next_step, say, warn
from ssdir.errors import InputError
from ssdir.formatting import counted
from ssdir.outputs import atomic_file, claim

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")

MOST_IMAGES = 64
"""Rows of a grid: more would be neither looked at, nor be a picture that every format can hold."""


def reconstruct(
    model: Model,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Images, folders or 'patterns*'.")],
    out: Annotated[Path, typer.Option(help="Picture to write.")],
    score_threshold: ScoreThreshold = None,
    strict: Strict = False,
    force: Force = False,
    device: Device = None,
) -> None:
    """Draw images beside what the model makes of them: boxes, reconstruction, single objects.

    Of many images, at most 64 are drawn, evenly chosen.
    """
    claim(out, force, PICTURE_SUFFIXES)
    import numpy as np
    from PIL import Image

    from ssdir.data.image_files import find_images
    from ssdir.inference.files import none_readable, read_batches
    from ssdir.inference.predictor import check_draws, load
    from ssdir.plots import reconstruction_grid

    found = find_images(images)
    files = found[:: -(-len(found) // MOST_IMAGES)]
    predictor = load(model, device)
    check_draws(predictor.model)
    batches = list(read_batches(files, predictor.image_size, predictor.batch_size, strict))
    skipped = [problem for batch in batches for problem in batch.skipped]
    if len(skipped) == len(files):
        raise InputError(none_readable(skipped))
    for problem in skipped:
        warn(f"skipped: {problem}")
    seen = predictor.prepare(np.concatenate([batch.pixels for batch in batches]))
    objects = predictor.encode(seen, score_threshold)
    grid = reconstruction_grid(seen, objects, predictor.redraw(seen, objects), predictor.class_names)
    with atomic_file(out, force) as temporary:
        Image.fromarray(grid).save(temporary)
    some = "" if len(files) == len(found) else f" of {len(found)}, evenly chosen"
    left_out = f", {len(skipped)} skipped" if skipped else ""
    say(f"{counted(len(seen), 'image')}{some}, {counted(len(objects), 'object')}{left_out}: {out}")
    next_step("encode", model, *images, "--out", "objects.parquet")
