"""`ssdir convert`: encoded objects for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ssdir.commands.options import Encoder, Force
from ssdir.console import say, warn
from ssdir.errors import InputError
from ssdir.formatting import counted
from ssdir.outputs import claim

SUFFIXES = {"coco": ".json", "csv": ".csv", "fiftyone": ".json", "npz": ".npz"}


def convert(
    objects: Annotated[Path, typer.Argument(metavar="OBJECTS", help="Parquet file that ssdir encode wrote.")],
    to: Annotated[
        Literal["coco", "csv", "fiftyone", "npz"],
        typer.Option(help="COCO's results, CSV, FiftyOne's samples, or NumPy's arrays."),
    ],
    out: Annotated[Path, typer.Option(help="File to write.")],
    annotations: Annotated[
        Path | None, typer.Option(help="COCO file of the same images, whose ids the results are to have.")
    ] = None,
    model: Encoder = None,
    force: Force = False,
) -> None:
    """Write encoded objects in the format of another tool; Parquet itself is read by pandas and Arrow."""
    if out.suffix.lower() != SUFFIXES[to]:
        raise InputError(f"output '{out}' must end in {SUFFIXES[to]} for --to {to}")
    claim(out, force)
    from ssdir.inference.engines import load_identity
    from ssdir.store.coco_results import CLASS_AGNOSTIC
    from ssdir.store.convert import convert_objects, sidecar
    from ssdir.store.objects_file import read_info

    if to == "coco":
        claim(sidecar(out), force)
    identity = None if model is None else load_identity(model)
    info = read_info(objects, identity)
    number = convert_objects(objects, to, out, annotations, identity)
    if info.images_seen is None:
        warn(f"rows of '{objects}' were selected since it was encoded: images without objects are not known")
    say(f"{counted(number, 'object')} as {to}: {out}")
    if annotations is not None and info.class_names == CLASS_AGNOSTIC:
        say(
            "the model knows no classes, so all objects have the id of one category of the annotations: compare "
            "boxes alone (of pycocotools, COCOeval's params.useCats = 0)"
        )
    say(f"next: {_use(to, out, annotations or sidecar(out))}")


def _use(to: str, out: Path, ids: Path) -> str:
    """How the other tool reads the file."""
    return {
        "coco": f"from pycocotools.coco import COCO; COCO({str(ids)!r}).loadRes({str(out)!r})",
        "csv": f"import pandas; pandas.read_csv({str(out)!r})",
        "fiftyone": f"add the samples of {out} to a FiftyOne dataset, see docs/interop.md",
        "npz": f"import numpy; numpy.load({str(out)!r})",
    }[to]
