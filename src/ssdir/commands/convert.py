"""`ssdir convert`: encoded objects for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ssdir.commands.options import AsJson, Encoder, Force, Objects
from ssdir.console import print_json, say
from ssdir.formatting import counted


def convert(
    objects: Objects,
    to: Annotated[
        Literal["coco", "csv", "fiftyone", "npz", "parquet"],
        typer.Option(help="COCO results, CSV, FiftyOne samples, NumPy arrays, or one Parquet file of all parts."),
    ],
    out: Annotated[Path, typer.Option(help="File to write.")],
    annotations: Annotated[
        Path | None, typer.Option(help="COCO annotations of the same images, whose ids the results take.")
    ] = None,
    model: Encoder = None,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Write encoded objects in the format of another tool, or join a folder of parts into one file.

    pandas and Arrow read Parquet files, and folders of them, as they are.
    """
    from ssdir.inference.engines import load_identity
    from ssdir.store.convert import check_output, convert_objects, how_to_read

    check_output(to, out, force)
    number = convert_objects(objects, to, out, annotations, load_identity(model), force)
    if as_json:
        print_json({"objects": number, "format": to, "out": out})
        return
    say(f"{counted(number, 'object')} as {to}: {out}")
    say(f"next: {how_to_read(to, out, annotations)}")
