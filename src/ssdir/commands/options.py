"""Arguments and options that several commands have, so that each reads the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="Name of a shipped model, or folder of a model or run.")
]
ModelOrExport = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="Name of a shipped model, folder of a model or run, or .onnx file."),
]
ImagePaths = Annotated[
    list[str],
    typer.Argument(metavar="PATH...", help="Images, folders, 'patterns*' or lists (.txt, .parquet); URIs too."),
]
DataSet = Annotated[
    Path, typer.Argument(metavar="DATA", help="Folder of a data set (layouts: see ssdir data check --help).")
]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing output.")]
Device = Annotated[
    str | None, typer.Option(metavar="DEVICE", help="cpu, cuda, cuda:1 or mps; by default the best there is.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images per batch.")]
Precision = Annotated[
    Literal["single", "bf16"] | None,
    typer.Option(help="Precision of encoding: bf16 is faster where the hardware supports it."),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all random choices.")]
Extent = Annotated[str | None, typer.Option(help="CLEVR: boxes around whole or visible objects.")]
Vocabulary = Annotated[str | None, typer.Option(help="CLEVR: categories shape, object or full.")]
Outside = Annotated[str | None, typer.Option(help="COCO: leave or read images outside the data set's folder.")]
ScoreThreshold = Annotated[
    float | None, typer.Option(min=0, max=1, help="Minimum score of an object; by default the model's.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at an unreadable image.")]
Encoder = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="The model that encoded the objects, if it has moved or the file does not name it.",
    ),
]
Objects = Annotated[
    str,
    typer.Argument(
        metavar="OBJECTS", help="File or folder that ssdir encode or track wrote, or its URI (s3://…)."
    ),
]
PerView = Annotated[
    bool, typer.Option("--per-view", help="Of a file of tracks: take every view of a track, not the track as one.")
]
AnalysisTable = Annotated[Path, typer.Option(help="File to write, a row per object: .parquet, .csv or .json.")]
ImageGrid = Annotated[Path | None, typer.Option(help="PNG to write: the objects within their images.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]
