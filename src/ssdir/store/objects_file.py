"""Encoded objects in a Parquet file: a row per object, readable by pandas, DuckDB, Polars, Spark, …."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ssdir.errors import InputError
from ssdir.identity import Identity
from ssdir.object_arrays import ObjectArrays
from ssdir.outputs import atomic_file, claim
from ssdir.store.columns import BOX_COLUMNS, COLUMNS, check_values, conform, numbers, objects_schema, to_array
from ssdir.store.info import (
    StoreInfo,
    damaged,
    identity_metadata,
    images_metadata,
    open_parquet,
    read_info,
)

if TYPE_CHECKING:
    from ssdir.objects import Objects

ROW_GROUP = 8192

TABLE_SUFFIXES = (".parquet", ".csv", ".json")
"""Files that `StoredObjects.write` writes."""

_EMBEDDINGS = ("z_where", "z_what", "z_what_scale", "anchor_index")
_REQUIRED = ("scores", "labels", "z_what", "anchor_index")


class ObjectWriter:
    """Streams objects to a Parquet file, to be used in a `with` block.

    Columns: `image` (path), `image_index`, `image_height`, `image_width` (px, of the upright original),
    `box_x1` … `box_y2` (float32, px of the original), `class`, `label`, `score`, `z_where` (4 float32, cxcywh
    relative to the image), `z_what` and `z_what_scale` (D float32), `z_depth`, `anchor_index`. `z_what_scale` and
    `z_depth` are null where the model has none. The schema's metadata names the model, see `METADATA_KEY`.

    Args:
        path: the file to write; see `atomic_file`.
        model: name of the model.
        class_names: its classes.
        latent_dim: size D of its `z_what`.
        fingerprint: digest of its weights, see `Encoder`.
        given: further columns, which each batch with objects then brings; names must not be among `COLUMNS`.
    """

    def __init__(
        self,
        path: str | Path,
        model: str,
        class_names: Sequence[str],
        latent_dim: int,
        fingerprint: str,
        given: pa.Schema | None = None,
    ) -> None:
        self.model, self.class_names, self.latent_dim = model, list(class_names), latent_dim
        identity = Identity(
            model=model, class_names=self.class_names, latent_dim=latent_dim, fingerprint=fingerprint
        )
        self.images_seen = self.objects_written = 0
        self._without_objects: dict[int, str] = {}
        self._buffer: list[pa.Table] = []
        whole = pa.schema([*objects_schema(latent_dim), *(given or ())], metadata=identity_metadata(identity))
        self._file = pq.ParquetWriter(path, whole, compression="zstd", write_page_checksum=True)

    def write(
        self,
        objects: Objects | ObjectArrays,
        images: Sequence[str | Path],
        sizes: Sequence[tuple[int, int]],
        given: pa.Table | None = None,
    ) -> None:
        """Adds a batch.

        Args:
            objects: with scores, labels, z_what and anchors.
            images: path of each image of the batch.
            sizes: (height, width) of each, in pixels.
            given: the further columns, row-aligned with the objects.

        Raises:
            ValueError: if the batch's parts don't fit each other, or the objects lack a field.
            InputError: if a value is not finite, or outside its range.
        """
        found = objects if isinstance(objects, ObjectArrays) else ObjectArrays.of(objects)
        table = objects_table(found, images, sizes, self.class_names, self.latent_dim, self.images_seen)
        for index in np.flatnonzero(found.counts == 0).tolist():
            self._without_objects[self.images_seen + index] = _utf8(images[index])
        if len(table):
            if given is not None:
                table = pa.table(
                    [*table.columns, *given.columns], schema=pa.schema([*table.schema, *given.schema])
                )
            self._buffer.append(table)
        self.images_seen += len(images)
        self.objects_written += len(table)
        if sum(table.num_rows for table in self._buffer) >= ROW_GROUP:
            self._flush()

    def close(self) -> None:
        """Writes what is left, and the metadata."""
        self._flush()
        self._file.add_key_value_metadata(
            images_metadata(self.objects_written, self.images_seen, self._without_objects)
        )
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            with suppress(OSError):
                self._file.close()

    def _flush(self) -> None:
        if self._buffer:
            self._file.write_table(pa.concat_tables(self._buffer))
            self._buffer.clear()


def objects_table(
    objects: Objects | ObjectArrays,
    images: Sequence[str | Path],
    sizes: Sequence[tuple[int, int]],
    class_names: Sequence[str],
    latent_dim: int,
    first_image: int = 0,
) -> pa.Table:
    """Converts the objects of a batch of images to a table with the columns of `ObjectWriter`, checked.

    Args:
        objects: with scores, labels, z_what and anchors.
        images: path of each image of the batch.
        sizes: (height, width) of each, in pixels.
        class_names: the model's classes.
        latent_dim: size D of its `z_what`.
        first_image: number of the first image.

    Raises:
        ValueError: if the batch's parts don't fit each other, or the objects lack a field.
        InputError: if a value is not finite, or outside its range.
    """
    if not objects.batch_size == len(images) == len(sizes):
        raise ValueError(
            f"objects of {objects.batch_size} images need as many paths and sizes, "
            f"got {len(images)} and {len(sizes)}"
        )
    schema = objects_schema(latent_dim)
    if not len(objects):
        return schema.empty_table()
    arrays = objects if isinstance(objects, ObjectArrays) else ObjectArrays.of(objects)
    if missing := [name for name in _REQUIRED if getattr(arrays, name) is None]:
        raise ValueError(f"objects to store need {', '.join(missing)}")
    assert arrays.labels is not None
    assert arrays.z_what is not None
    if arrays.z_what.shape[1] != latent_dim:
        raise ValueError(f"z_what must be (M, {latent_dim}), got {tuple(arrays.z_what.shape)}")
    index = arrays.image_index
    height_width = np.asarray(sizes, dtype=np.int32)[index]
    boxes_px = arrays.boxes * height_width[:, [1, 0, 1, 0]].astype(np.float32)
    columns: dict[str, Any] = {
        "image": np.asarray([_utf8(image) for image in images], dtype=object)[index],
        "image_index": index + first_image,
        "image_height": height_width[:, 0],
        "image_width": height_width[:, 1],
        **dict(zip(BOX_COLUMNS, boxes_px.T, strict=True)),
        "class": np.asarray(class_names, dtype=object)[arrays.labels],
        "label": arrays.labels,
        "score": arrays.scores,
        "z_where": arrays.z_where,
        "z_what": arrays.z_what,
        "z_what_scale": arrays.z_what_scale,
        "z_depth": arrays.z_depth,
        "anchor_index": arrays.anchor_index,
    }
    values = [
        pa.nulls(len(arrays), field.type)
        if columns[field.name] is None
        else to_array(columns[field.name], field.type)
        for field in schema
    ]
    batch = pa.RecordBatch.from_arrays(values, schema=schema)
    check_values(batch, list(class_names), " as the model encoded it")
    return pa.Table.from_batches([batch])


def _utf8(image: str | Path) -> str:
    """Returns a path in UTF-8, as Parquet holds it: file names may be any bytes."""
    return os.fsencode(image).decode("utf-8", "backslashreplace")


def read_objects(path: str | Path, identity: Identity | None = None) -> tuple[Objects, list[str]]:
    """Reads a file of objects back, see `StoredObjects.to_objects`.

    Raises:
        InputError: as `read_stored`.
    """
    return read_stored(path, identity).to_objects()


def read_stored(path: str | Path, identity: Identity | None = None, at_least: int = 0) -> StoredObjects:
    """Reads a file of objects as a table, without torch; every value is checked.

    Args:
        path: the file.
        identity: of the model that the objects are to go with, see `read_info`.
        at_least: how many objects it must hold.

    Raises:
        InputError: if the file is missing, damaged, something else's or of another model, or holds fewer objects.
    """
    info = read_info(path, identity)
    if info.objects < at_least:
        raise InputError(f"'{path}' holds {info.objects} objects, at least {at_least} are needed")
    conformed, further = [], []
    for batch, columns in _pieces(info, ROW_GROUP, None):
        conformed.append(columns)
        # pandas keeps the numbers of rows that it has selected in a column of its own.
        own = [name not in COLUMNS and "__index_level_" not in name for name in batch.schema.names]
        further.append(batch.select(np.flatnonzero(own).tolist()))
    table = pa.Table.from_batches(conformed, objects_schema(info.latent_dim))
    for field in table.schema:
        if nulls := table[field.name].null_count % max(1, len(table)):
            raise InputError(f"'{path}' is damaged ({nulls} of {len(table)} values of '{field.name}' are null)")
    if further:
        added = pa.Table.from_batches(further)
        table = pa.table([*table.columns, *added.columns], schema=pa.schema([*table.schema, *added.schema]))
    return StoredObjects(table, info)


def stream_objects(info: StoreInfo, rows: int = ROW_GROUP) -> Iterator[pa.RecordBatch]:
    """Reads a file of objects in pieces, with the columns of `ObjectWriter`, checked, in bounded memory.

    Args:
        info: the file's metadata, see `read_info`.
        rows: most rows of a piece.

    Raises:
        InputError: if the file is damaged; names the row.
    """
    return (conformed for _, conformed in _pieces(info, rows, list(COLUMNS)))


def _pieces(
    info: StoreInfo, rows: int, columns: list[str] | None
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """Yields pieces as they are in the file, and as `ObjectWriter` writes them."""
    first = 0
    with damaged(info.path), open_parquet(info.path, info.footer) as file:
        for batch in file.iter_batches(rows, columns=columns):
            yield batch, conform(batch, info, info.path, first)
            first += len(batch)


@dataclass(frozen=True, eq=False)
class StoredObjects:
    """The objects of a file that `ssdir encode` wrote.

    Attributes:
        table: a row per object, in the file's order: the columns of `ObjectWriter`, then those added since.
        info: the file's metadata.
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
        """Returns the columns of `ObjectWriter`, and the path of each image that `image_index` counts.

        The images include those in which nothing was detected. Where rows were left out or added since the images
        were encoded, these are not known: `image_index` then counts the images of the rows, in their order.

        Raises:
            InputError: if the rows and the metadata name different images.
        """
        table = self.table.select(objects_schema(1).names)
        if self.info.images_seen is None:
            coded = table["image"].combine_chunks().dictionary_encode()
            column = table.schema.get_field_index("image_index")
            index = coded.indices.cast(pa.int64())
            return table.set_column(column, table.schema.field(column), index), coded.dictionary.to_pylist()
        pairs = table.group_by(["image_index", "image"]).aggregate([]).to_pydict()
        if len(set(pairs["image_index"])) < len(pairs["image_index"]):
            raise InputError(f"'{self.info.path}' is damaged (two images have the same image_index)")
        paths = self.info.images_without_objects | dict(zip(pairs["image_index"], pairs["image"], strict=True))
        if paths.keys() != set(range(self.info.images_seen)):
            seen = self.info.images_seen
            raise InputError(f"'{self.info.path}' is damaged (its metadata counts {seen} images, its rows others)")
        return table, [paths[index] for index in range(len(paths))]

    def to_objects(self) -> tuple[Objects, list[str]]:
        """Returns the objects as they were encoded, bit by bit, sorted stably by image, and the images' paths.

        Columns of nulls become fields that are None.

        Raises:
            InputError: as `by_image`.
        """
        table, images = self.by_image()
        table = table.take(np.argsort(numbers(table["image_index"]), kind="stable"))

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
        )
        return arrays.to_objects(), images

    def write(self, path: str | Path, added: Mapping[str, NDArray[np.generic]], force: bool = False) -> None:
        """Writes the objects with more columns: Parquet has everything, CSV and JSON no embeddings and lists.

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
        kept = {
            field.name: self.table[field.name]
            for field in self.table.schema
            if suffix == ".parquet" or not (field.name in _EMBEDDINGS or pa.types.is_nested(field.type))
        }
        columns = {"row": pa.array(np.arange(len(self))), **{name: pa.array(each) for name, each in added.items()}}
        whole = pa.table(columns | {name: column for name, column in kept.items() if name not in columns})
        with atomic_file(path, force) as temporary:
            if suffix == ".parquet":
                pq.write_table(whole.replace_schema_metadata(self.info.metadata()), temporary, compression="zstd")
            elif suffix == ".csv":
                pyarrow.csv.write_csv(whole, temporary)
            else:  # Where a further column has no number, there is a null.
                whole.to_pandas().to_json(temporary, orient="records", indent=2)


def find_picture(image: str, *folders: str | Path, beside: str | Path | None = None) -> Path:
    """Returns where a stored image is.

    Args:
        image: path as stored; a relative one may start from any of the folders.
        folders: where it may start from, the likeliest first.
        beside: a folder that may hold the picture itself, wherever it was before.

    Returns:
        The first of these that is a file; if none is, the path from the first folder.
    """
    tried = [Path(folder) / image for folder in folders]
    if beside is not None:
        tried.append(Path(beside) / Path(image).name)
    return next((path for path in tried if os.path.isfile(path)), tried[0])
