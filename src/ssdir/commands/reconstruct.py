"""`ssdir reconstruct`: pictures of what a model sees."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssdir.commands.options import Device, Force, Model
from ssdir.console import next_step, say
from ssdir.errors import InputError
from ssdir.outputs import atomic_file, claim
from ssdir.wording import counted

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def reconstruct(
    model: Model,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Images, folders or 'patterns*'.")],
    out: Annotated[Path, typer.Option(help="Picture to write.")],
    score_threshold: Annotated[float | None, typer.Option(help="Least score, 0 ... 1.")] = None,
    force: Force = False,
    device: Device = None,
) -> None:
    """Draw images beside what the model makes of them: boxes, reconstruction, single objects."""
    claim(out, force)
    if out.suffix.lower() not in PICTURE_SUFFIXES:
        raise InputError(f"output '{out}' must end in one of {', '.join(PICTURE_SUFFIXES)}")
    from PIL import Image

    from ssdir.data.images import find_images
    from ssdir.inference.predictor import check_draws, load
    from ssdir.plots import reconstruction_sheet

    files = find_images(images)
    predictor = load(model, device)
    check_draws(predictor.model)
    seen = predictor.prepare(files)
    objects = predictor.encode(seen, score_threshold)
    sheet = reconstruction_sheet(seen, objects, predictor.redraw(seen, objects), predictor.class_names)
    with atomic_file(out, force) as temporary:
        Image.fromarray(sheet).save(temporary)
    say(f"{counted(len(files), 'image')}, {counted(len(objects), 'object')}: {out}")
    next_step("encode", model, *images, "--out", "objects.parquet")
