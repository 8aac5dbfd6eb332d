"""`ssdir data unpack`: unpacks TFRecord files to images and masks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssdir.commands.options import AsJson, Force
from ssdir.console import next_step, print_json, progress, say
from ssdir.formatting import counted
from ssdir.outputs import claim


def unpack(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="TFRecord file of a multi-object data set, under its own name.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    train: Annotated[int, typer.Option(min=0, help="Training images: the first of the file.")] = 10_000,
    val: Annotated[int, typer.Option(min=0, help="Validation images: the next ones.")] = 1_000,
    test: Annotated[int, typer.Option(min=0, help="Test images: the next ones.")] = 1_000,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Unpack CLEVR with masks, Multi-dSprites, Tetrominoes or Objects Room to images and masks."""
    claim(out, force)
    from ssdir.data.readers.tfrecord.unpack import unpack as write

    counts = {"train": train, "val": val, "test": test}
    with progress("unpacking") as advance:
        objects = write(path, out, counts, force, advance)
    if as_json:
        splits = {split: {"images": counts[split], "objects": objects[split]} for split in objects}
        print_json({"splits": splits, "out": out})
        return
    for split, number in objects.items():
        say(f"{split}: {counted(counts[split], 'image')}, {counted(number, 'object')}")
    next_step("data", "check", out, "--split", next(iter(objects)))
