"""`ssdir data scatter`: scatters glyphs over images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssdir.commands.options import AsJson, Force, Seed
from ssdir.console import next_step, print_json, progress, say
from ssdir.formatting import counted


def scatter(
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    source: Annotated[str, typer.Option(help="digits, mnist, or a folder with a subfolder per class.")] = "digits",
    root: Annotated[
        Path | None, typer.Option(help="Folder with MNIST's files; without it, they are downloaded.")
    ] = None,
    canvas: Annotated[int, typer.Option(help="Side of the images, in pixels.")] = 128,
    grids: Annotated[str, typer.Option(help="Grid sizes to sample from, separated by commas.")] = "2,3,4,5,6",
    min_size: Annotated[float, typer.Option(help="Smallest object, as a fraction of the side.")] = 0.1875,
    max_size: Annotated[float, typer.Option(help="Largest object, as a fraction of the side.")] = 0.75,
    objects: Annotated[
        str | None, typer.Option(help="Objects per image, such as 2-6; by default as the grid has cells.")
    ] = None,
    position_variance: Annotated[float, typer.Option(help="How far objects leave their cells' centres.")] = 0.7,
    train: Annotated[int, typer.Option(help="Training images.")] = 10_000,
    val: Annotated[int, typer.Option(help="Validation images.")] = 1_000,
    test: Annotated[int, typer.Option(help="Test images.")] = 1_000,
    seed: Seed = 0,
    workers: Annotated[int, typer.Option(min=1, help="Number of processes.")] = 1,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Scatter digits, or your own cut-outs, over images at many sizes: a COCO data set."""
    from ssdir.config import parse
    from ssdir.data.scatter.generator import ScatterConfig
    from ssdir.data.scatter.writer import write_scatter

    values = {
        "canvas": canvas,
        "grids": [part.strip() for part in grids.split(",")],
        "min_size": min_size,
        "max_size": max_size,
        "objects": None if objects is None else [part.strip() for part in objects.split("-")],
        "position_variance": position_variance,
        "train": train,
        "val": val,
        "test": test,
        "seed": seed,
    }
    config = parse(ScatterConfig, values, source="ssdir data scatter")
    with progress("scattering") as advance:
        write_scatter(out, source, config, root=root, workers=workers, progress=advance, force=force)
    if as_json:
        print_json({"splits": {"train": train, "val": val, "test": test}, "out": out})
        return
    say(f"{counted(train + val + test, 'image')} in {out}")
    next_step("train", "tiny", "--data", out, "--out", "runs/first")
