"""Arguments and options that several commands have, so that each reads the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A shipped model's name, or a model's or run's folder.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing output.")]
Device = Annotated[
    str | None, typer.Option(metavar="DEVICE", help="cpu, cuda, cuda:1 or mps; by default the best there is.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images at once.")]
Precision = Annotated[
    Literal["single", "bf16"] | None,
    typer.Option(help="Precision of encoding; bf16 is fast where the hardware has it."),
]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same result.")]
Extent = Annotated[str | None, typer.Option(help="Extent of CLEVR's boxes: whole or visible objects.")]
Vocabulary = Annotated[str | None, typer.Option(help="CLEVR's categories: shape, object or full.")]
Outside = Annotated[
    str | None, typer.Option(help="COCO's pictures that are not in the data set's folder: leave or read.")
]
ScoreThreshold = Annotated[
    float | None, typer.Option(min=0, max=1, help="Least score of an object; by default the model's.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at an unreadable image.")]
Encoder = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="The model that encoded, where it has moved since or the file no longer names it; it must be theirs.",
    ),
]
Objects = Annotated[Path, typer.Argument(metavar="OBJECTS", help="File that ssdir encode wrote.")]
AnalysisTable = Annotated[Path, typer.Option(help="File to write, a row per object: .parquet, .csv or .json.")]
ImageGrid = Annotated[Path | None, typer.Option(help="Picture to write, of the objects in their pictures.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]
