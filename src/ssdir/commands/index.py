"""`ssdir index`."""

from __future__ import annotations

from typing import Annotated

import typer

from ssdir.commands.options import AsJson, Encoder, Force, PerView
from ssdir.console import next_step, print_json, progress, say
from ssdir.errors import InputError
from ssdir.formatting import counted


def index(
    out: Annotated[str, typer.Option(help="Folder of the index, or its URI: s3://BUCKET/NAME, gs:// or az://.")],
    objects: Annotated[
        list[str] | None,
        typer.Argument(metavar="OBJECTS...", help="Files or folders that ssdir encode or ssdir track wrote."),
    ] = None,
    model: Encoder = None,
    add: Annotated[bool, typer.Option("--add", help="Add the objects to an existing index.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Read every file of an existing index, and compare its checksum.")
    ] = False,
    per_view: PerView = False,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Index encoded objects, or tracks, for search, in a folder; no server is needed."""
    if add and force:
        raise InputError("--add and --force exclude each other: the one extends an index, the other replaces it")
    if add and per_view:
        raise InputError("--per-view is chosen when an index is made: --add keeps to it")
    if check == bool(objects) or (check and (add or force)):
        raise InputError("give files of objects to index, or --check alone to read an existing index")
    from ssdir.analysis.search.index import ObjectIndex

    with progress("reading objects") as advance:
        if check:
            made = ObjectIndex.open(out)
            made.check()
        elif add:
            made = ObjectIndex.open(out)
            made.add(objects or [], advance, model)
        else:
            made = ObjectIndex.create(out, objects or [], model, force, advance, per_view)
    if as_json:
        print_json({made.info.entries: len(made), "model": made.info.model, "out": out})
        return
    count = counted(len(made), made.info.entries.removesuffix("s"))
    say(f"{count} of {made.info.model}: {out}{', all files as written' if check else ''}")
    next_step(
        "search",
        out,
        "IMAGE" if made.info.entries == "objects" else "TRACKS.parquet",
        "--image-grid",
        "nearest.png",
    )
