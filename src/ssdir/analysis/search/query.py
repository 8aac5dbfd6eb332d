"""Queries to an index: by the objects of an image, by objects or tracks of a file, or by one of its own."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from ssdir.analysis.crops import crop_grid, read_crops
from ssdir.analysis.output import COLUMNS, ROWS
from ssdir.analysis.search.filters import ObjectFilter
from ssdir.analysis.search.header import IndexInfo
from ssdir.analysis.search.index import Neighbours, ObjectIndex
from ssdir.analysis.search.stored_query import is_stored, read_stored_query
from ssdir.data.frame_names import file_of
from ssdir.errors import InputError, InputWarning
from ssdir.identity import check_comparable
from ssdir.inference.engines import load_encoder, load_identity
from ssdir.inference.files import encode_files
from ssdir.outputs import atomic_file
from ssdir.plots.image_grids import to_png
from ssdir.storage import Location, absolute, exists, is_file, is_folder, to_location
from ssdir.store.columns import is_scalar, json_rows, numbers
from ssdir.store.info import folder_around
from ssdir.store.objects_file import find_picture
from ssdir.store.writer import checked_table


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The query objects, and the nearest objects of the index to each.

    Attributes:
        index: the index.
        queries: a table with a row for each query object, with the columns of stored objects.
        names: name of each query: `#0`, `#1`, … in an image, `track 3` in a file, or its row in the index.
        neighbours: the nearest objects of each query.
        find_image: returns the file of an image of the queries, which need not be where the index's images are.
    """

    index: ObjectIndex
    queries: pa.Table
    names: list[str]
    neighbours: list[Neighbours]
    find_image: Callable[[str], Location]

    def records(self) -> list[dict[str, Any]]:
        """Returns, for each query, its columns as `query` and those of its neighbours as `nearest`.

        The values are those that JSON has, see `json_rows`; vectors, lists and bytes are left out.
        """
        records = []
        for query, neighbours in zip(_records(self.queries), self.neighbours, strict=True):
            near = zip(
                neighbours.rows.tolist(), neighbours.similarity.tolist(), _records(neighbours.table), strict=True
            )
            nearest = [{"row": row, "similarity": similarity, **record} for row, similarity, record in near]
            records.append({"query": query, "nearest": nearest})
        return records

    def write_image_grid(self, path: Path, force: bool = False) -> None:
        """Writes a PNG file with a row for each query: its crop and those of its neighbours.

        It shows at most `ROWS` queries and `COLUMNS` neighbours of each; an `InputWarning` says what is left out.

        Raises:
            InputError: as `atomic_file`.
        """
        totals = (
            ("queries", ROWS, len(self.names)),
            ("neighbours", COLUMNS, max(map(len, self.neighbours), default=0)),
        )
        cut = [f"{most} of {total:,} {what}" for what, most, total in totals if total > most]
        if cut:
            warnings.warn(InputWarning(f"'{path}' shows the first {' and '.join(cut)}"), stacklevel=2)
        rows, shown = [], [each[:COLUMNS] for each in self.neighbours[:ROWS]]
        crops = read_crops(self.queries.slice(0, ROWS), self.names[:ROWS], self.find_image)
        for crop, neighbours in zip(crops, shown, strict=True):
            near = zip(neighbours.similarity.tolist(), neighbours.rows.tolist(), strict=True)
            captions = [f"{similarity:.3f}  row {row}" for similarity, row in near]
            rows.append([crop, *read_crops(neighbours.table, captions, self.index.image_path, group=1)])
        with atomic_file(path, force) as temporary:
            temporary.write_bytes(to_png(crop_grid(rows, ["query", "nearest"])))


def search_row(index: ObjectIndex, row: int, k: int = 5, where: ObjectFilter | None = None) -> SearchResult:
    """Searches for the objects nearest to an object of the index, except itself; see `ObjectIndex.nearest`."""
    query = index.rows([row])
    neighbours = index.nearest(numbers(query["z_what"]), k + 1, where)
    others = [each[each.rows != row][:k] for each in neighbours]
    return SearchResult(index, query, [f"row {row}"], others, index.image_path)


def search_query(
    index: ObjectIndex,
    query: str,
    k: int = 5,
    where: ObjectFilter | None = None,
    model: str | None = None,
    score_threshold: float | None = None,
    device: str | None = None,
) -> SearchResult:
    """Searches for the objects, or tracks, of an index that are nearest to each of a query.

    Args:
        index: the index.
        query: see `Query`.
        k: number of neighbours, see `ObjectIndex.nearest`.
        where: filter of the objects to search; None for all.
        model: the present folder of the model that encodes an image, None if it is still where the index says; or
            the model that encoded a file, where the file no longer names it.
        score_threshold: least score of the image's objects; None takes the model's, and a file takes None.
        device: see `load_encoder`.

    Raises:
        InputError: if a file is searched by with a `score_threshold`; as `Query.parse`, `encode_query`,
            `load_identity`, `read_stored_query`, `ObjectIndex.nearest`.
    """
    if where is not None:  # A wrong class is an error before a model is loaded.
        where.sql(index.info.class_names)
    parsed = Query.parse(query)
    if is_stored(parsed.path):
        if score_threshold is not None:
            raise InputError(
                f"--score-threshold chooses among detected objects: leave it out for '{parsed.path}', "
                "whose objects are encoded already"
            )
        identity = load_identity(model)
        queries, names = read_stored_query(index.info, parsed.path, parsed.track, parsed.number, identity)
    else:
        queries, names = encode_query(index.info, parsed, model, score_threshold, device)
    neighbours, folder = index.nearest(numbers(queries["z_what"]), k, where), folder_around(parsed.path)
    return SearchResult(
        index, queries, names, neighbours, lambda image: find_picture(image, ".", folder, beside=folder)
    )


@dataclass(frozen=True)
class Query:
    """What to search by.

    | query | what is searched for |
    |---|---|
    | `photo.png` | each object of an image, or of a frame: `clip.mp4#frame=12` |
    | `photo.png#2` | its third object by falling score |
    | `tracks.parquet` | each track of a file of `ssdir track`; of a file without tracks, each object |
    | `tracks.parquet#track=3` | its track 3 |
    | `tracks.parquet#2` | its third row, a single view |

    Attributes:
        path: path or URI of the image or file.
        number: which object, from 0; None for all.
        track: number of the track; None for all.
    """

    path: Location
    number: int | None = None
    track: int | None = None

    @classmethod
    def parse(cls, query: str) -> Self:
        """Reads a query; a `#` of the file's own name is left alone.

        Raises:
            InputError: if a track of something other than a file of objects is asked for.
        """
        path, mark, part = query.rpartition("#")
        if not mark or exists(to_location(query)):
            return cls(to_location(query))
        if part.isdecimal():
            return cls(to_location(path), number=int(part))
        name, equals, number = part.partition("=")
        if name == "track" and equals and number.isdecimal():
            if not is_stored(to_location(path)):
                raise InputError(f"'{path}' is not a file of tracks: give one that ssdir track wrote")
            return cls(to_location(path), track=int(number))
        return cls(to_location(query))


def encode_query(
    info: IndexInfo,
    query: Query,
    model: str | None = None,
    score_threshold: float | None = None,
    device: str | None = None,
) -> tuple[pa.Table, list[str]]:
    """Encodes the objects of an image by the model of an index.

    Returns:
        The objects by falling score, with the columns of stored ones, the absolute path of the image among them,
        and their `number`, from 0; and their names.

    Raises:
        InputError: if the image can't be read, it has no such object, or the model is gone or another.
    """
    path, number = query.path, query.number
    if not is_file(file_of(path)):
        problem = "is a folder: give one image of it" if is_folder(path) else "does not exist"
        raise InputError(f"image '{path}' {problem}")
    try:
        encoder = load_encoder(model or info.model, None, device)
    except InputError as error:
        raise InputError(
            f"the model of the index can't be loaded ({error}): say where it is with --model"
        ) from error
    check_comparable(encoder, f"'{model or info.model}'", info, "the index")
    (batch,) = encode_files(encoder, [absolute(path)], strict=True, score_threshold=score_threshold)
    table = checked_table(batch.objects, batch.paths, batch.sizes, encoder.class_names, info.latent_dim)
    objects = table.sort_by([("score", "descending")])
    objects = objects.append_column("number", pa.array(range(len(objects)), pa.int64()))
    if number is not None:
        if number >= len(objects):
            raise InputError(f"'{path}' has {len(objects)} objects, there is no #{number}")
        objects = objects.slice(number, 1)
    return objects, [f"#{each}" for each in objects["number"].to_pylist()]


def _records(table: pa.Table) -> list[dict[str, Any]]:
    """Returns the rows without embeddings and anchors."""
    kept = [field.name for field in table.schema if is_scalar(field.type) and field.name != "anchor_index"]
    return json_rows(table.select(kept))
