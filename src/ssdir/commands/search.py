"""`ssdir search`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from ssdir.commands.options import AsJson, Device, Force
from ssdir.console import next_step, say, stdout
from ssdir.documents import json_text
from ssdir.errors import InputError
from ssdir.outputs import atomic_file, claim

if TYPE_CHECKING:
    import pyarrow as pa

    from ssdir.analysis.search.index import Neighbours, ObjectIndex


def search(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="Folder that ssdir index made.")],
    image: Annotated[
        str | None,
        typer.Argument(
            metavar="[IMAGE[#K]]", help="Picture; all objects that are found in it, or the Kth from 0."
        ),
    ] = None,
    row: Annotated[int | None, typer.Option(min=0, help="Ask for an object of the index instead.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many to find for each object.")] = 5,
    classes: Annotated[
        list[str] | None, typer.Option("--class", help="Only objects of this class, or these.")
    ] = None,
    min_score: Annotated[float | None, typer.Option(min=0, max=1, help="Least score of what is found.")] = None,
    min_size: Annotated[
        float | None, typer.Option(min=0, help="Least longer side, relative to the picture's longer side.")
    ] = None,
    max_size: Annotated[float | None, typer.Option(min=0, help="Largest longer side.")] = None,
    model: Annotated[str | None, typer.Option(help="The model of the index, where it has moved since.")] = None,
    score_threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least score of the asked objects.")
    ] = None,
    image_grid: Annotated[
        Path | None, typer.Option(help="Picture to write: what was asked for, what was found.")
    ] = None,
    as_json: AsJson = False,
    force: Force = False,
    device: Device = None,
) -> None:
    """Find the objects that are most alike: to those of a picture, or to one of the index."""
    if (image is None) == (row is None):
        raise InputError("give a picture to search by, or --row for an object of the index")
    if image_grid is not None:
        claim(image_grid, force, (".png",))
    from ssdir.analysis.search.index import ObjectFilter, ObjectIndex

    opened = ObjectIndex.open(index)
    where = ObjectFilter(tuple(classes or ()), min_score, min_size, max_size)
    where.sql(opened.info.class_names)  # A wrong class is to be told before a model is loaded.
    if image is None:
        assert row is not None
        asked, names = opened.rows([row]), [f"row {row}"]
        # An object is not its own neighbour.
        found = [each[each.rows != row][:k] for each in opened.nearest(_codes(asked), k + 1, where)]
    else:
        from ssdir.analysis.search.query import encode_query

        asked = encode_query(opened.info, image, model, score_threshold, device)
        found = opened.nearest(_codes(asked), k, where)
        names = [f"#{number}" for number in asked["number"].to_pylist()]
    if image_grid is not None and found:
        _write_image_grid(image_grid, force, opened, asked, names, found)
    if as_json:
        records = [
            {"asked": _record(asked, number), "nearest": _records(each)} for number, each in enumerate(found)
        ]
        typer.echo(json_text(records), nl=False)
        return
    _print(opened, asked, names, found)
    if not found:
        say("nothing was found in the picture, so there is nothing to compare: try a lower --score-threshold")
    elif image_grid is not None:
        say(f"see {image_grid}")
    else:
        question: list[str | Path] = [image] if image is not None else ["--row", str(row)]
        next_step("search", index, *question, "--image-grid", "nearest.png")


def _codes(table: pa.Table) -> Any:
    import numpy as np

    return np.stack(table["z_what"].to_numpy()) if len(table) else np.zeros((0, table["z_what"].type.list_size))


def _record(table: pa.Table, number: int) -> dict[str, Any]:
    """All but the code and what only models understand."""
    kept = [name for name in table.column_names if not name.startswith(("z_w", "anchor"))]
    row: dict[str, Any] = table.slice(number, 1).select(kept).to_pylist()[0]
    return row


def _records(found: Neighbours) -> list[dict[str, Any]]:
    return [
        {"row": int(found.rows[n]), "similarity": float(found.similarity[n]), **_record(found.table, n)}
        for n in range(len(found))
    ]


def _print(index: ObjectIndex, asked: pa.Table, names: list[str], found: list[Neighbours]) -> None:
    several = len(index.info.class_names) > 1
    for number, (name, each) in enumerate(zip(names, found, strict=True)):
        of = _record(asked, number)
        named = f"{of['class']}, " if several else ""
        title = f"{name}: {named}score {of['score']:.2f}, in {Path(of['image']).name}"
        right = [Column(header, justify="right") for header in ("row", "similarity")]
        numbers = [Column(header, justify="right") for header in ("score", "size")]
        table = Table(
            *right, *(["class"] if several else []), *numbers, "image", title=escape(title), title_justify="left"
        )
        for near in _records(each):
            cells = [str(near["row"]), f"{near['similarity']:.3f}", *([escape(near["class"])] if several else [])]
            table.add_row(*cells, f"{near['score']:.2f}", f"{near['size']:.2f}", escape(Path(near["image"]).name))
        stdout().print(table)


def _write_image_grid(
    path: Path, force: bool, index: ObjectIndex, asked: pa.Table, names: list[str], found: list[Neighbours]
) -> None:
    from ssdir.analysis.crops import Tile, crop_grid, read_crops
    from ssdir.plots.image_grids import to_png

    rows = []
    for name, crop, each in zip(names, read_crops(asked, index.image_path), found, strict=True):
        crops = read_crops(each.table, index.image_path)
        near = [
            Tile(part, f"{similarity:.3f}  row {row}", 1)
            for part, similarity, row in zip(crops, each.similarity.tolist(), each.rows.tolist(), strict=True)
        ]
        rows.append([Tile(crop, name), *near])
    with atomic_file(path, force) as temporary:
        temporary.write_bytes(to_png(crop_grid(rows, ["asked for", "nearest"])))
