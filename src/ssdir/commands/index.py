"""`ssdir index`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssdir.commands.options import AsJson, Encoder, Force
from ssdir.console import next_step, print_json, progress, say
from ssdir.errors import InputError
from ssdir.formatting import counted


def index(
    objects: Annotated[list[Path], typer.Argument(metavar="OBJECTS...", help="Files that ssdir encode wrote.")],
    out: Annotated[Path, typer.Option(help="Folder of the index.")],
    model: Encoder = None,
    add: Annotated[bool, typer.Option("--add", help="Add the objects to an existing index.")] = False,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Index encoded objects for search, in a folder; no server is needed."""
    if add and force:
        raise InputError("--add and --force exclude each other: the one extends an index, the other replaces it")
    from ssdir.analysis.search.index import ObjectIndex

    with progress("reading objects") as advance:
        if add:
            made = ObjectIndex.open(out)
            made.add(objects, advance, model)
        else:
            made = ObjectIndex.create(out, objects, model, force, advance)
    if as_json:
        print_json({"objects": len(made), "model": made.info.model, "out": out})
        return
    say(f"{counted(len(made), 'object')} of {made.info.model}: {out}")
    next_step("search", out, "IMAGE", "--image-grid", "nearest.png")
