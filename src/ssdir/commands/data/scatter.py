"""`ssdir data scatter`: scatters glyphs over images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ssdir.commands.options import AsJson, Force, Seed
from ssdir.console import next_step, print_json, progress, say
from ssdir.formatting import counted


def scatter(
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    source: Annotated[
        str, typer.Option(help="digits, mnist, shapes, or a folder with a subfolder per class.")
    ] = "digits",
    root: Annotated[
        Path | None, typer.Option(help="Folder with MNIST's files; without it, they are downloaded.")
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=2, help="Frames per clip: makes clips of moving objects, not images.")
    ] = None,
    difficulty: Annotated[
        Literal["standard", "hard"],
        typer.Option(help="Of clips: hard has objects that hide each other, leave, and come back."),
    ] = "standard",
    canvas: Annotated[int | None, typer.Option(help="Side of the images, in pixels; by default 128.")] = None,
    grids: Annotated[
        str | None,
        typer.Option(help="Of images: grid sizes to sample from, separated by commas; by default 2,3,4,5,6."),
    ] = None,
    min_size: Annotated[
        float | None,
        typer.Option(
            help="Smallest object, as a fraction of the image's side; by default 0.1875, for clips 0.14."
        ),
    ] = None,
    max_size: Annotated[
        float | None,
        typer.Option(help="Largest object, as a fraction of the image's side; by default 0.75, for clips 0.28."),
    ] = None,
    objects: Annotated[
        str | None,
        typer.Option(help="Objects per image or clip, such as 3 or 2-6; of images, as the grid has cells."),
    ] = None,
    position_variance: Annotated[
        float | None,
        typer.Option(
            help="Of images: how far objects may leave their cells' centres, in half cells; by default 0.7."
        ),
    ] = None,
    colours: Annotated[
        bool | None,
        typer.Option("--colours", help="Of images: objects in plain colours, with masks, not as COCO."),
    ] = None,
    train: Annotated[int | None, typer.Option(help="Training images (10,000) or clips (400).")] = None,
    val: Annotated[int | None, typer.Option(help="Validation images (1,000) or clips (40).")] = None,
    test: Annotated[int | None, typer.Option(help="Test images (1,000) or clips (40).")] = None,
    seed: Seed = 0,
    workers: Annotated[int, typer.Option(min=1, help="Number of processes.")] = 1,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Scatter digits, or your own cut-outs, over images at many sizes: a COCO data set.

    With --frames, they move through clips, in MOTChallenge's layout and as COCO with track ids.
    """
    from ssdir.config import parse
    from ssdir.data.readers.splits import SPLITS
    from ssdir.data.scatter.clip_writer import write_moving
    from ssdir.data.scatter.generator import ScatterConfig
    from ssdir.data.scatter.moving import MovingConfig, moving_values
    from ssdir.data.scatter.writer import write_scatter
    from ssdir.errors import InputError

    bounds = None if objects is None else [part.strip() for part in objects.split("-")]
    options = {
        "frames": frames,
        "canvas": canvas,
        "grids": None if grids is None else [part.strip() for part in grids.split(",")],
        "min_size": min_size,
        "max_size": max_size,
        "objects": bounds * 2 if bounds is not None and len(bounds) == 1 else bounds,
        "position_variance": position_variance,
        "colours": colours,
        "train": train,
        "val": val,
        "test": test,
        "seed": seed,
    }
    given = {name: value for name, value in options.items() if value is not None}
    if frames is None and difficulty != "standard":
        raise InputError("--difficulty is of clips: give their number of frames too, such as --frames 30")
    if frames is not None and (grids is not None or position_variance is not None or colours):
        raise InputError("--grids, --position-variance and --colours are of images: leave them out with --frames")
    config: ScatterConfig | MovingConfig
    with progress("scattering") as advance:
        if frames is None:
            config = parse(ScatterConfig, given, source="ssdir data scatter")
            write_scatter(out, source, config, root=root, workers=workers, progress=advance, force=force)
        else:
            config = parse(MovingConfig, {**moving_values(difficulty), **given}, source="ssdir data scatter")
            write_moving(out, source, config, root=root, workers=workers, progress=advance, force=force)
    counts = {split: config.count(split) for split in SPLITS}
    if as_json:
        print_json({"splits": counts, "out": out})
        return
    say(f"{counted(sum(counts.values()), 'image' if frames is None else 'clip')} in {out}")
    next_step("train", "tiny", "--data", out, "--out", "runs/first")
