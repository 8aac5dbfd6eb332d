"""`ssdir reconstruct`: pictures of what a model sees."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssdir.commands.options import Device, Force, Model
from ssdir.console import next_step, say
from ssdir.outputs import atomic_file, claim
from ssdir.wording import counted

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")

MOST_IMAGES = 64
"""Rows of a sheet: more would be neither looked at, nor be a picture that every format can hold."""


def reconstruct(
    model: Model,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Images, folders or 'patterns*'.")],
    out: Annotated[Path, typer.Option(help="Picture to write.")],
    score_threshold: Annotated[float | None, typer.Option(help="Least score, 0 ... 1.")] = None,
    force: Force = False,
    device: Device = None,
) -> None:
    """Draw images beside what the model makes of them: boxes, reconstruction, single objects.

    Of many images, at most 64 are drawn, evenly chosen.
    """
    claim(out, force, PICTURE_SUFFIXES)
    from PIL import Image

    from ssdir.data.images import find_images
    from ssdir.inference.predictor import check_draws, load
    from ssdir.plots import reconstruction_sheet

    found = find_images(images)
    files = found[:: -(-len(found) // MOST_IMAGES)]
    predictor = load(model, device)
    check_draws(predictor.model)
    seen = predictor.prepare(files)
    objects = predictor.encode(seen, score_threshold)
    sheet = reconstruction_sheet(seen, objects, predictor.redraw(seen, objects), predictor.class_names)
    with atomic_file(out, force) as temporary:
        Image.fromarray(sheet).save(temporary)
    some = "" if len(files) == len(found) else f" of {len(found)}, evenly chosen"
    say(f"{counted(len(files), 'image')}{some}, {counted(len(objects), 'object')}: {out}")
    next_step("encode", model, *images, "--out", "objects.parquet")
