"""`ssdir search`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ssdir.commands.options import AsJson, Device, Force
from ssdir.console import next_step, print_json, print_table, say
from ssdir.data.frame_names import split_frame_name
from ssdir.errors import InputError
from ssdir.formatting import counted
from ssdir.outputs import claim


def search(
    index: Annotated[str, typer.Argument(metavar="INDEX", help="Folder or URI that ssdir index made.")],
    query: Annotated[
        str | None,
        typer.Argument(
            metavar="[IMAGE[#K]|TRACKS[#track=T]]",
            help="Image to search by: all its objects, or the Kth from 0; or all tracks of a file, or one.",
        ),
    ] = None,
    row: Annotated[int | None, typer.Option(min=0, help="Search by this row of the index instead.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Number of nearest objects.")] = 5,
    classes: Annotated[
        list[str] | None, typer.Option("--class", help="Only objects of this class; may be repeated.")
    ] = None,
    min_score: Annotated[
        float | None, typer.Option(min=0, max=1, help="Only objects of at least this score.")
    ] = None,
    min_size: Annotated[
        float | None, typer.Option(min=0, help="Minimum longer side of a box, as a share of its image's.")
    ] = None,
    max_size: Annotated[
        float | None, typer.Option(min=0, help="Maximum longer side of a box, as a share of its image's.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The index's model, if it has moved, or TRACKS no longer name it.")
    ] = None,
    score_threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Minimum score of the objects detected in IMAGE.")
    ] = None,
    image_grid: Annotated[
        Path | None, typer.Option(help="PNG to write: each object beside the nearest ones, at most 12 x 10.")
    ] = None,
    as_json: AsJson = False,
    force: Force = False,
    device: Device = None,
) -> None:
    """Search for the objects or tracks most similar to those of an image, to a track, or to one of the index."""
    if (query is None) == (row is None):
        raise InputError("give either an image or tracks to search by, or --row for a row of the index")
    if row is not None and (model, score_threshold) != (None, None):
        raise InputError(
            "--row searches by an object of the index, without its model: leave out --model and --score-threshold"
        )
    if image_grid is not None:
        claim(image_grid, force, (".png",))
    from ssdir.analysis.search import ObjectFilter, ObjectIndex
    from ssdir.analysis.search.query import search_query, search_row

    opened, where = ObjectIndex.open(index), ObjectFilter(tuple(classes or ()), min_score, min_size, max_size)
    if query is not None:
        result = search_query(opened, query, k, where, model, score_threshold, device)
    else:
        result = search_row(opened, row or 0, k, where)
    if image_grid is not None and result.names:
        result.write_image_grid(image_grid, force)
    if as_json:
        print_json(result.records())
        return
    for name, record in zip(result.names, result.records(), strict=True):
        print_table(*_table(record["nearest"], opened.info.entries), _title(name, record["query"]))
    if not result.names:
        say("nothing was detected in the image, so there is nothing to search by: try a lower --score-threshold")
    elif image_grid is not None:
        say(f"see {image_grid}")
    else:
        question: list[str | Path] = [query] if query is not None else ["--row", str(row)]
        next_step("search", index, *question, "--image-grid", "nearest.png")


def _title(name: str, query: dict[str, Any]) -> str:
    views = f" in {counted(query['views'], 'view')}" if "views" in query else ""
    return f"{name}: {query['class']}{views}, score {query['score']:.2f}, in {Path(query['image']).name}"


def _table(nearest: list[dict[str, Any]], entries: str) -> tuple[list[str], list[list[Any]]]:
    """Returns the columns and cells that show neighbours."""
    if entries == "objects":
        columns = ["row", "similarity", "score", "size", "class", "image"]
        return columns, [
            [*(near[column] for column in columns[:-1]), Path(near["image"]).name] for near in nearest
        ]
    cells = []
    for near in nearest:
        frames = f"{near['first_frame']}–{near['last_frame']}"
        shown = [near[column] for column in ("row", "track_id", "similarity", "views")]
        # The frames of many clips have the same names, in folders of the clips' names.
        parts = Path(near["image"]).parts[-1 if split_frame_name(near["image"]) else -3 :]
        cells.append([*shown, frames, near["class"], "/".join(parts)])
    return ["row", "track", "similarity", "views", "frames", "class", "clearest view"], cells
