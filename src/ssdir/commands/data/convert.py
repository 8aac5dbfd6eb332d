"""`ssdir data convert`: writes a data set in another layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ssdir.commands.options import AsJson, DataSet, Extent, Force, Outside, Vocabulary
from ssdir.console import next_step, print_json, progress, say, warn
from ssdir.formatting import counted


def convert(
    path: DataSet,
    to: Annotated[Literal["coco", "yolo", "voc", "mot"], typer.Option(help="Layout to write.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    extent: Extent = None,
    vocabulary: Vocabulary = None,
    outside: Outside = None,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Write all splits of a data set in another layout; images are copied as they are."""
    from ssdir.data.writers.convert import convert as write

    options = {"extent": extent, "vocabulary": vocabulary, "outside": outside}
    with progress("converting") as advance:
        done = write(path, to, out, force, advance, **options)
    for note in done.notes:
        warn(note)
    if as_json:
        splits = {split: {"images": done.images[split], "objects": done.objects[split]} for split in done.images}
        print_json({"layout": done.layout, "splits": splits, "out": out})
        return
    for split, images in done.images.items():
        say(f"{split}: {counted(images, 'image')}, {counted(done.objects[split], 'object')}")
    say(f"{done.layout} written as {to}: {out}")
    next_step("data", "check", out)
