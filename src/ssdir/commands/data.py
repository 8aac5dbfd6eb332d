"""`ssdir data …`: make, check, convert and unpack data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ssdir.commands.options import AsJson, Boxes, Force, Outside, Seed, Vocabulary
from ssdir.console import next_step, progress, say, warn
from ssdir.documents import json_text
from ssdir.errors import EXIT_FAILED
from ssdir.formatting import counted
from ssdir.outputs import claim


def scatter(
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    source: Annotated[str, typer.Option(help="digits, mnist, or a folder with a subfolder per class.")] = "digits",
    root: Annotated[Path | None, typer.Option(help="Folder with MNIST's files; downloaded without.")] = None,
    canvas: Annotated[int, typer.Option(help="Side of the images, in pixels.")] = 128,
    grids: Annotated[str, typer.Option(help="Grid sizes to draw from.")] = "2,3,4,5,6",
    min_size: Annotated[float, typer.Option(help="Smallest object, as a fraction of the side.")] = 0.1875,
    max_size: Annotated[float, typer.Option(help="Largest object, as a fraction of the side.")] = 0.75,
    objects: Annotated[str | None, typer.Option(help="Objects per image, such as 2-6; else by the grid.")] = None,
    position_variance: Annotated[float, typer.Option(help="How far objects leave their cells' centres.")] = 0.7,
    train: Annotated[int, typer.Option(help="Training images.")] = 10_000,
    val: Annotated[int, typer.Option(help="Validation images.")] = 1_000,
    test: Annotated[int, typer.Option(help="Test images.")] = 1_000,
    seed: Seed = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
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
    say(f"{counted(train + val + test, 'image')} in {out}")
    next_step("train", "tiny", "--data", out, "--out", "runs/first")


def check(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Folder of a data set, in any known layout.")],
    split: Annotated[str | None, typer.Option(help="Split to look at; by default all, to train on train.")] = None,
    preset: Annotated[str, typer.Option(help="Preset that is to learn it, see ssdir models.")] = "tiny",
    boxes: Boxes = None,
    vocabulary: Vocabulary = None,
    outside: Outside = None,
    out: Annotated[Path | None, typer.Option(help="Folder to make: all findings, a recipe, a picture.")] = None,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Say what a data set holds, what is broken in it, and what to train on it with.

    Ends with exit code 1 if training would stop at something.
    """
    if out is not None:
        claim(out, force)
    from ssdir.data_check.report import IMAGE_GRID_FILE, RECOMMENDED_FILE, diagnose, write_diagnosis
    from ssdir.data_check.screen import screen

    with progress("reading images") as advance:
        diagnosis = diagnose(path, split, preset, advance, boxes=boxes, vocabulary=vocabulary, outside=outside)
    if out is not None:
        write_diagnosis(diagnosis, out, force)
    if as_json:
        typer.echo(json_text(diagnosis.as_json()), nl=False)
    else:
        for line in screen(diagnosis):
            say(line)
        if out is None:
            only = [] if split is None else ["--split", split]
            only += [part for name, value in diagnosis.options.items() for part in (f"--{name}", value)]
            next_step("data", "check", path, *only, "--preset", preset, "--out", "check")
        elif diagnosis.trainable:
            say(f"see {out / IMAGE_GRID_FILE}")
            next_step("train", out / RECOMMENDED_FILE, "--data", path, "--out", "runs/first")
    if not diagnosis.trainable:
        raise typer.Exit(EXIT_FAILED)


def convert(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Folder of a data set, in any layout.")],
    to: Annotated[Literal["coco", "yolo", "voc"], typer.Option(help="Layout to write.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    boxes: Boxes = None,
    vocabulary: Vocabulary = None,
    outside: Outside = None,
    force: Force = False,
) -> None:
    """Write a data set in another layout: all splits, the images copied as they are."""
    from ssdir.data.writers.convert import convert as write

    options = {"boxes": boxes, "vocabulary": vocabulary, "outside": outside}
    with progress("converting") as advance:
        done = write(path, to, out, force, advance, **options)
    for note in done.notes:
        warn(note)
    for split, images in done.images.items():
        say(f"{split}: {counted(images, 'image')}, {counted(done.objects[split], 'object')}")
    say(f"{done.layout} written as {to}: {out}")
    next_step("data", "check", out)


def unpack(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="TFRecord file of a multi-object data set, under its own name.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    train: Annotated[int, typer.Option(min=0, help="Training images: the first of the file.")] = 10_000,
    val: Annotated[int, typer.Option(min=0, help="Validation images: the next ones.")] = 1_000,
    test: Annotated[int, typer.Option(min=0, help="Test images: the next ones.")] = 1_000,
    force: Force = False,
) -> None:
    """Unpack CLEVR with masks, Multi-dSprites, Tetrominoes or Objects Room to images and masks."""
    claim(out, force)
    from ssdir.data.readers.tfrecord.unpack import unpack as write

    counts = {"train": train, "val": val, "test": test}
    with progress("unpacking") as advance:
        objects = write(path, out, counts, force, advance)
    for split, number in objects.items():
        say(f"{split}: {counted(counts[split], 'image')}, {counted(number, 'object')}")
    next_step("data", "check", out, "--split", next(iter(objects)))
