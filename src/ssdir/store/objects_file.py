"""Reading of files of encoded objects: whole, in pieces, or back to `Objects`; and writing with more columns."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from ssdir.data.frame_names import file_of
from ssdir.documents import json_text
from ssdir.errors import InputError
from ssdir.identity import Identity
from ssdir.object_arrays import ObjectArrays
from ssdir.object_table import COLUMNS, TRACK, VISIBLE, objects_schema
from ssdir.outputs import atomic_file, claim
from ssdir.storage import Location, is_uri
from ssdir.store.columns import conform, is_scalar, json_rows, numbers, plain
from ssdir.store.info import StoreInfo, read_info
from ssdir.store.metadata import identity_metadata, open_parquet
from ssdir.store.skipped import read_skipped, skipped_metadata
from ssdir.store.track_columns import track_ids, visible_shares
from ssdir.store.writer import ROW_GROUP, RowGroupWriter

if TYPE_CHECKING:
    from ssdir.objects import Objects

TABLE_SUFFIXES = (".parquet", ".csv", ".json")
"""Files that `StoredObjects.write` writes."""

_EMBEDDINGS = ("z_where", "z_what", "z_what_scale", "anchor_index")


def read_objects(path: str | Path, identity: Identity | None = None) -> tuple[Objects, list[str]]:
    """Reads a file of objects, or a folder of parts, back, see `StoredObjects.to_objects`.

    Raises:
        InputError: as `read_stored`.
    """
    return read_stored(path, identity).to_objects()


def read_stored(path: str | Path, identity: Identity | None = None, at_least: int = 0) -> StoredObjects:
    """Reads a file of objects, or all parts of a folder, as a table, without torch; every value is checked.

    Args:
        path: the file or folder.
        identity: identity of the model that must have encoded the objects, see `read_info`.
        at_least: how many objects it must hold.

    Raises:
        InputError: as `read_info` and `stream_objects`; if there are fewer objects.
    """
    info = read_info(path, identity)
    if info.objects < at_least:
        raise InputError(f"'{path}' holds {info.objects} objects, at least {at_least} are needed")
    return StoredObjects(pa.Table.from_batches(stream_rows(info), rows_schema(info)), info)


def stream_objects(info: StoreInfo, rows: int = ROW_GROUP) -> Iterator[pa.RecordBatch]:
    """Reads a file of objects, or the parts of a folder one after the other, in pieces, in bounded memory.

    The columns are those of `ObjectWriter`, checked.

    Args:
        info: the metadata, see `read_info`.
        rows: most rows of a piece.

    Raises:
        InputError: if a file is damaged; names the row.
    """
    return _pieces(info, rows, objects_schema(info.latent_dim))


def stream_rows(info: StoreInfo) -> Iterator[pa.RecordBatch]:
    """Reads objects as `stream_objects` does, with the columns that were added, see `rows_schema`."""
    return _pieces(info, ROW_GROUP, rows_schema(info))


def rows_schema(info: StoreInfo) -> pa.Schema:
    """Returns the columns of `ObjectWriter`, then those added since."""
    return pa.schema([*objects_schema(info.latent_dim), *info.further])


def _pieces(info: StoreInfo, rows: int, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    empty = dict[str, bool]()
    for part in info.parts:
        first = 0
        with open_parquet(part.path) as file:
            for batch in file.iter_batches(rows, columns=schema.names):
                objects = conform(batch, info, part.path, first)
                for name in objects.schema.names:
                    is_empty = objects.column(name).null_count > 0
                    if empty.setdefault(name, is_empty) != is_empty:
                        some = "has no" if is_empty else "has a"
                        raise InputError(f"row {first} of '{part.path}' {some} {name}, unlike the rows before it")
                yield _with_further(_shifted(objects, part.shift), batch, schema)
                first += len(batch)
        if first != part.objects:
            raise InputError(f"'{part.path}' has changed while it was read: start the command again")


def _shifted(objects: pa.RecordBatch, shift: int) -> pa.RecordBatch:
    """Adds to the numbers of the images."""
    column = objects.schema.get_field_index("image_index")
    return objects.set_column(column, objects.schema.field(column), pc.add(objects.column(column), shift))


def _with_further(objects: pa.RecordBatch, batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Adds the columns of `schema` that only `batch` has."""
    columns = [(objects if name in COLUMNS else batch).column(name) for name in schema.names]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


@dataclass(frozen=True, eq=False)
class StoredObjects:
    """The objects of a file that `ssdir encode` wrote, or of a folder of parts.

    Attributes:
        table: a row per object, in the file's order: the columns of `ObjectWriter`, then those added since.
        info: the metadata.
    """

    table: pa.Table
    info: StoreInfo

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def z_what(self) -> NDArray[np.float32]:
        """The embeddings, float32 (M, D)."""
        return numbers(self.table["z_what"])

    def by_image(self) -> tuple[pa.Table, list[str]]:
        """Returns the rows, and the path of each image that their `image_index` then counts.

        The images are in the order of their numbers in the file, which those that could not be read leave out, and
        include those in which nothing was detected. Where another tool wrote the file again, these are not known:
        `image_index` then counts the images of the rows, in their order.

        Raises:
            InputError: if the rows and the metadata name different images.
        """
        table = self.table
        column = table.schema.get_field_index("image_index")
        if self.info.images_seen is None:
            coded = table["image"].combine_chunks().dictionary_encode()
            index = coded.indices.cast(pa.int64())
            return table.set_column(column, table.schema.field(column), index), coded.dictionary.to_pylist()
        pairs = table.group_by(["image_index", "image"]).aggregate([]).to_pydict()
        if len(set(pairs["image_index"])) < len(pairs["image_index"]):
            raise InputError(f"'{self.info.path}' is damaged (two images have the same image_index)")
        paths = self.info.images_without_objects | dict(zip(pairs["image_index"], pairs["image"], strict=True))
        if len(paths) != self.info.images_seen:
            seen = self.info.images_seen
            raise InputError(f"'{self.info.path}' is damaged (its metadata counts {seen} images, its rows others)")
        numbers_in_file = np.array(sorted(paths), dtype=np.int64)
        index = np.searchsorted(numbers_in_file, numbers(table["image_index"]))
        table = table.set_column(column, table.schema.field(column), pa.array(index, pa.int64()))
        return table, [paths[number] for number in numbers_in_file.tolist()]

    def to_objects(self) -> tuple[Objects, list[str]]:
        """Returns the objects as they were encoded, bit by bit, sorted stably by image, and the images' paths.

        Columns of nulls become fields that are None, as do `track_id` and `visible` where the file lacks them.

        Raises:
            InputError: as `by_image`.
        """
        table, images = self.by_image()
        order = np.argsort(numbers(table["image_index"]), kind="stable")
        table = table.take(order)

        def column(name: str, kind: type[np.generic] = np.float32) -> Any:
            return None if table[name].null_count else numbers(table[name]).astype(kind)

        arrays = ObjectArrays(
            image_index=column("image_index", np.int64),
            batch_size=len(images),
            z_where=column("z_where"),
            scores=column("score"),
            labels=column("label", np.int64),
            z_what=column("z_what"),
            z_what_scale=column("z_what_scale"),
            z_depth=column("z_depth"),
            anchor_index=column("anchor_index", np.int64),
            track_id=track_ids(table, self.info.path) if TRACK in table.column_names else None,
            visible=visible_shares(table, self.info.path) if VISIBLE in table.column_names else None,
        )
        from ssdir.objects import Objects

        return Objects.from_arrays(arrays, self.info.class_names), images

    def write(self, path: str | Path, added: Mapping[str, NDArray[np.generic]], force: bool = False) -> None:
        """Writes the objects with more columns: Parquet has everything, CSV and JSON no vectors, lists and bytes.

        Args:
            path: file to write; its suffix, one of `TABLE_SUFFIXES`, says how.
            added: the columns, row-aligned; they come first, after the number of the row, and replace those of
                the same names.
            force: replace an existing file.

        Raises:
            InputError: as `claim`.
        """
        path = Path(path)
        claim(path, force, TABLE_SUFFIXES)
        suffix = path.suffix.lower()
        kept = {name: self.table[name] for name in self.table.column_names}
        if suffix != ".parquet":
            kept = {
                name: plain(column)
                for name, column in kept.items()
                if name not in _EMBEDDINGS and is_scalar(column.type)
            }
        columns = {"row": pa.array(np.arange(len(self))), **{name: pa.array(each) for name, each in added.items()}}
        whole = pa.table(columns | {name: column for name, column in kept.items() if name not in columns})
        with atomic_file(path, force) as temporary:
            if suffix == ".parquet":
                whole = whole.replace_schema_metadata(identity_metadata(self.info.identity))
                with RowGroupWriter(temporary, whole.schema) as file:
                    file.write(whole)
                    skipped = read_skipped(self.info.path, self.info.identity)
                    file.add_metadata(self.info.images_metadata() | skipped_metadata(skipped))
            elif suffix == ".csv":
                pyarrow.csv.write_csv(whole, temporary)
            else:
                temporary.write_text(json_text(json_rows(whole)), encoding="utf-8")


def find_picture(image: str, *folders: str | Path, beside: str | Path | None = None) -> Location:
    """Returns where a stored image is.

    Args:
        image: path or URI as stored; a relative path may start from any of the folders.
        folders: where it may start from, the likeliest first.
        beside: a folder to which the images may have moved, alone or with the folders around them: it is searched
            for the longest ending of the path that is a file.

    Returns:
        The first of these that is a file; if none is, the path from the first folder. A URI is returned as it is.
    """
    if is_uri(image):
        return image
    tried = [Path(folder) / image for folder in folders]
    if beside is not None:
        parts = PurePath(image).parts
        tried += [Path(beside, *parts[first:]) for first in range(int(PurePath(image).is_absolute()), len(parts))]
    return next((path for path in tried if os.path.isfile(file_of(path))), tried[0])
