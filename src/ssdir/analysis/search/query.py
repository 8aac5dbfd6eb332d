"""Queries to an index: by the objects of an image, or by one of its own objects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ssdir.analysis.crops import crop_grid, read_crops
from ssdir.analysis.search.filters import ObjectFilter
from ssdir.analysis.search.header import IndexInfo
from ssdir.analysis.search.index import Neighbours, ObjectIndex
from ssdir.errors import InputError
from ssdir.identity import check_comparable
from ssdir.inference.engines import load_encoder
from ssdir.inference.files import encode_files
from ssdir.outputs import atomic_file
from ssdir.plots.image_grids import to_png
from ssdir.storage import Location, exists, is_file, is_folder, to_location
from ssdir.store.columns import numbers
from ssdir.store.writer import checked_table


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The query objects, and the nearest objects of the index to each.

    Attributes:
        index: the index.
        queries: a table with a row for each query object, with the columns of stored objects.
        names: name of each query: `#0`, `#1`, … in an image, or its row in the index.
        neighbours: the nearest objects of each query.
    """

    index: ObjectIndex
    queries: pa.Table
    names: list[str]
    neighbours: list[Neighbours]

    def records(self) -> list[dict[str, Any]]:
        """Returns, for each query, its columns as `query` and those of its neighbours as `nearest`."""
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

        Raises:
            InputError: as `atomic_file`.
        """
        rows = []
        for crop, neighbours in zip(
            read_crops(self.queries, self.names, self.index.image_path), self.neighbours, strict=True
        ):
            near = zip(neighbours.similarity.tolist(), neighbours.rows.tolist(), strict=True)
            captions = [f"{similarity:.3f}  row {row}" for similarity, row in near]
            rows.append([crop, *read_crops(neighbours.table, captions, self.index.image_path, group=1)])
        with atomic_file(path, force) as temporary:
            temporary.write_bytes(to_png(crop_grid(rows, ["query", "nearest"])))


def search_row(index: ObjectIndex, row: int, k: int = 5, where: ObjectFilter | None = None) -> SearchResult:
    """Searches for the objects nearest to an object of the index, except itself; see `ObjectIndex.nearest`."""
    query = index.rows([row])
    neighbours = index.nearest(numbers(query["z_what"]), k + 1, where)
    return SearchResult(index, query, [f"row {row}"], [each[each.rows != row][:k] for each in neighbours])


def search_image(
    index: ObjectIndex,
    image: str,
    k: int = 5,
    where: ObjectFilter | None = None,
    model: str | None = None,
    score_threshold: float | None = None,
    device: str | None = None,
) -> SearchResult:
    """Searches for the objects nearest to each object of an image.

    Args:
        index: the index.
        image: path or URI of the image; `#K` at its end takes the Kth object only, from 0.
        k: number of neighbours, see `ObjectIndex.nearest`.
        where: filter of the objects to search; None for all.
        model: the model's present folder; None if it is still where the index says.
        score_threshold: least score of the image's objects; None takes the model's.
        device: see `load_encoder`.

    Raises:
        InputError: as `encode_query` and `ObjectIndex.nearest`.
    """
    if where is not None:  # A wrong class is an error before a model is loaded.
        where.sql(index.info.class_names)
    queries = encode_query(index.info, image, model, score_threshold, device)
    neighbours = index.nearest(numbers(queries["z_what"]), k, where)
    return SearchResult(index, queries, [f"#{number}" for number in queries["number"].to_pylist()], neighbours)


def encode_query(
    info: IndexInfo,
    image: str,
    model: str | None = None,
    score_threshold: float | None = None,
    device: str | None = None,
) -> pa.Table:
    """Encodes the objects of an image by the model of an index.

    Returns:
        The objects by falling score, with the columns of stored ones and their `number`, from 0.

    Raises:
        InputError: if the image can't be read, it has no such object, or the model is gone or another.
    """
    path, number = split_query(image)
    if not is_file(path):
        problem = "is a folder: give one picture of it" if is_folder(path) else "does not exist"
        raise InputError(f"picture '{path}' {problem}")
    try:
        encoder = load_encoder(model or info.model, None, device)
    except InputError as error:
        raise InputError(
            f"the model of the index can't be loaded ({error}): say where it is with --model"
        ) from error
    check_comparable(encoder, f"'{model or info.model}'", info, "the index")
    (batch,) = encode_files(encoder, [path], strict=True, score_threshold=score_threshold)
    table = checked_table(batch.objects, batch.paths, batch.sizes, encoder.class_names, info.latent_dim)
    objects = table.sort_by([("score", "descending")])
    objects = objects.append_column("number", pa.array(range(len(objects)), pa.int64()))
    if number is None:
        return objects
    if number >= len(objects):
        raise InputError(f"'{path}' has {len(objects)} objects, there is no #{number}")
    return objects.slice(number, 1)


def split_query(image: str) -> tuple[Location, int | None]:
    """Splits `IMAGE#K` into path or URI and number; a `#` of the file's own name is left alone."""
    path, mark, number = image.rpartition("#")
    if mark and number.isdecimal() and not exists(to_location(image)):
        return to_location(path), int(number)
    return to_location(image), None


def _records(table: pa.Table) -> list[dict[str, Any]]:
    """Returns the rows without embeddings and anchors."""
    kept = [name for name in table.column_names if not name.startswith(("z_w", "anchor"))]
    records: list[dict[str, Any]] = table.select(kept).to_pylist()
    return records
