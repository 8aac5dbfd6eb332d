"""Encoded objects in a Parquet file: a row per object, readable by pandas, DuckDB, Polars, Spark, …."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ssdir.errors import InputError
from ssdir.identity import Identity
from ssdir.object_arrays import ObjectArrays
from ssdir.store.columns import BOX_COLUMNS, COLUMNS, check_values, conform, numbers, objects_schema, to_array
from ssdir.store.info import (
    METADATA_KEY,
    StoreInfo,
    damaged,
    identity_metadata,
    images_metadata,
    open_parquet,
    read_info,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ssdir.objects import Objects

ROW_GROUP = 8192

_REQUIRED = ("scores", "labels", "z_what", "anchor_index")


class ObjectWriter:
    """Streams objects to a Parquet file, to be used in a `with` block.

    Columns: `image` (path), `image_index`, `image_height`, `image_width` (px, of the upright original),
    `box_x1` … `box_y2` (float32, px of the original), `class`, `label`, `score`, `z_where` (4 float32, cxcywh
    relative to the image), `z_what` and `z_what_scale` (D float32), `z_depth`, `anchor_index`. `z_what_scale` and
    `z_depth` are null where the model has none. The schema's metadata tells the model, see `METADATA_KEY`.

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
        self._schema = objects_schema(latent_dim)
        whole = pa.schema([*self._schema, *(given or ())], metadata=identity_metadata(identity))
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
        if not objects.batch_size == len(images) == len(sizes):
            raise ValueError(
                f"objects of {objects.batch_size} images need as many paths and sizes, "
                f"got {len(images)} and {len(sizes)}"
            )
        # Parquet holds UTF-8 only; file names may be any bytes.
        paths = [os.fsencode(image).decode("utf-8", "backslashreplace") for image in images]
        found = objects if isinstance(objects, ObjectArrays) else ObjectArrays.of(objects)
        for index in np.flatnonzero(found.counts == 0).tolist():
            self._without_objects[self.images_seen + index] = paths[index]
        if len(found):
            table = self._table(found, paths, sizes)
            if given is not None:
                table = pa.table(
                    [*table.columns, *given.columns], schema=pa.schema([*table.schema, *given.schema])
                )
            self._buffer.append(table)
        self.images_seen += len(paths)
        self.objects_written += len(found)
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

    def _table(self, objects: ObjectArrays, paths: list[str], sizes: Sequence[tuple[int, int]]) -> pa.Table:
        missing = [name for name in _REQUIRED if getattr(objects, name) is None]
        if missing:
            raise ValueError(f"objects to store need {', '.join(missing)}")
        assert objects.labels is not None
        assert objects.z_what is not None
        if objects.z_what.shape[1] != self.latent_dim:
            raise ValueError(f"z_what must be (M, {self.latent_dim}), got {tuple(objects.z_what.shape)}")
        index = objects.image_index
        height_width = np.asarray(sizes, dtype=np.int32)[index]
        boxes_px = objects.boxes * height_width[:, [1, 0, 1, 0]].astype(np.float32)
        columns: dict[str, Any] = {
            "image": np.asarray(paths, dtype=object)[index],
            "image_index": index + self.images_seen,
            "image_height": height_width[:, 0],
            "image_width": height_width[:, 1],
            **dict(zip(BOX_COLUMNS, boxes_px.T, strict=True)),
            "class": np.asarray(self.class_names, dtype=object)[objects.labels],
            "label": objects.labels,
            "score": objects.scores,
            "z_where": objects.z_where,
            "z_what": objects.z_what,
            "z_what_scale": objects.z_what_scale,
            "z_depth": objects.z_depth,
            "anchor_index": objects.anchor_index,
        }
        arrays = [
            pa.nulls(len(objects), field.type)
            if columns[field.name] is None
            else to_array(columns[field.name], field.type)
            for field in self._schema
        ]
        batch = pa.RecordBatch.from_arrays(arrays, schema=self._schema)
        check_values(batch, self.class_names, " as the model encoded it")
        return pa.Table.from_batches([batch])


def read_objects(path: str | Path, identity: Identity | None = None) -> tuple[Objects, list[str]]:
    """Reads a file of objects back.

    Args:
        path: the file.
        identity: of the model that the objects are to go with, see `read_info`.

    Returns:
        The objects as they were encoded, bit by bit, and the path of each image of the batch, with those in
        which nothing was detected; see `read_table`. Rows are sorted by image. Columns of nulls are fields that
        are None.

    Raises:
        InputError: if the file is missing, damaged, something else's, or of another model.
    """
    return to_objects(*read_table(path, identity))


def to_objects(table: pa.Table, info: StoreInfo) -> tuple[Objects, list[str]]:
    """The objects of a table that `read_table` has read, sorted by image (stably), and the path of each image."""
    images = image_paths(table, info)
    order = np.argsort(numbers(table["image_index"]), kind="stable")
    return _objects(table.take(order), len(images)), images


def read_table(path: str | Path, identity: Identity | None = None) -> tuple[pa.Table, StoreInfo]:
    """Reads a file of objects without torch: the columns of `ObjectWriter`, checked.

    Where rows were left out or added since the images were encoded, images without objects are not known: images
    are then those of the rows, and `image_index` counts them in the order in which they come.

    Args:
        path: the file.
        identity: see `read_info`.

    Raises:
        InputError: as `read_objects`.
    """
    info = read_info(path, identity)
    schema = objects_schema(info.latent_dim)
    batches = [conformed for _, conformed in _batches(path, info, ROW_GROUP)]
    table = pa.Table.from_batches(batches, schema)
    for field in schema:
        if nulls := table[field.name].null_count % max(1, len(table)):
            raise InputError(f"'{path}' is damaged ({nulls} of {len(table)} values of '{field.name}' are null)")
    if info.images_seen is None:
        return _renumbered(table, info)
    _check_images(table, info, path)
    return table, info


def read_rows(path: str | Path, identity: Identity | None = None) -> tuple[pa.Table, StoreInfo]:
    """Reads the rows of a file as they are, with all columns: those of `ObjectWriter`, checked, come first.

    Args:
        path: the file.
        identity: see `read_info`.

    Raises:
        InputError: as `read_objects`.
    """
    info = read_info(path, identity)
    schema = objects_schema(info.latent_dim)
    read = list(_batches(path, info, ROW_GROUP, columns=None))
    table = pa.Table.from_batches([conformed for _, conformed in read], schema)
    if read:
        whole = pa.Table.from_batches([batch for batch, _ in read])
        # Where pandas keeps the numbers of rows that it has selected.
        further = [name for name in whole.column_names if name not in COLUMNS and "__index_level_" not in name]
        for name in further:
            table = table.append_column(whole.schema.field(name), whole[name])
    return table, info


def read_batches(
    path: str | Path, rows: int = ROW_GROUP, identity: Identity | None = None
) -> Iterator[pa.RecordBatch]:
    """Reads a file of objects in pieces, with the columns of `ObjectWriter`, checked, in bounded memory.

    Raises:
        InputError: as `read_objects`.
    """
    info = read_info(path, identity)
    for _, conformed in _batches(path, info, rows):
        yield conformed


def _batches(
    path: str | Path, info: StoreInfo, rows: int, columns: Sequence[str] | None = tuple(COLUMNS)
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """Pieces as they are in the file, and as `ObjectWriter` has them."""
    first = 0
    with damaged(path):
        # Not read_table: it would add columns for folders named like partitions (`year=2024`).
        for batch in open_parquet(path).iter_batches(rows, columns=columns):
            yield batch, conform(batch, info, path, first)
            first += len(batch)


def _renumbered(table: pa.Table, info: StoreInfo) -> tuple[pa.Table, StoreInfo]:
    """The images of the rows alone, counted as they come."""
    coded = table["image"].combine_chunks().dictionary_encode()
    column = table.schema.get_field_index("image_index")
    index = coded.indices.cast(pa.int64())
    return table.set_column(column, table.schema.field(column), index), replace(
        info, images_seen=len(coded.dictionary), images_without_objects={}
    )


def _check_images(table: pa.Table, info: StoreInfo, path: str | Path) -> None:
    """Checks that each image of a file has one index and one path, and none is missing."""
    pairs = table.group_by(["image_index", "image"]).aggregate([])
    indices = set(pairs["image_index"].to_pylist())
    if len(indices) < len(pairs):
        raise InputError(f"'{path}' is damaged (two images have the same image_index)")
    named = indices | set(info.images_without_objects)
    if named != set(range(info.images_seen or 0)):
        raise InputError(f"'{path}' is damaged (it tells of {info.images_seen} images, and names others)")


def _objects(table: pa.Table, batch_size: int) -> Objects:
    import torch

    from ssdir.objects import Objects

    def tensor(name: str, dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(numbers(table[name]).copy()).to(dtype)

    def nullable(name: str) -> Tensor | None:
        return None if table[name].null_count else tensor(name, torch.float32)

    return Objects(
        image_index=tensor("image_index", torch.int64),
        batch_size=batch_size,
        z_where=tensor("z_where", torch.float32),
        scores=tensor("score", torch.float32),
        labels=tensor("label", torch.int64),
        z_what=tensor("z_what", torch.float32),
        z_what_scale=nullable("z_what_scale"),
        z_depth=nullable("z_depth"),
        anchor_index=tensor("anchor_index", torch.int64),
    )


def image_paths(table: pa.Table, info: StoreInfo) -> list[str]:
    """Path of each image by its image_index, with those in which nothing was detected.

    Args:
        table: see `read_table`.
        info: what `read_table` returned with it.
    """
    pairs = table.group_by(["image_index", "image"]).aggregate([])
    paths = dict(info.images_without_objects)
    paths.update(zip(pairs["image_index"].to_pylist(), pairs["image"].to_pylist(), strict=True))
    return [paths[index] for index in range(len(paths))]


def find_picture(image: str, *folders: str | Path, beside: str | Path | None = None) -> Path:
    """Where a stored image is.

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


__all__ = [
    "BOX_COLUMNS",
    "COLUMNS",
    "METADATA_KEY",
    "ObjectWriter",
    "StoreInfo",
    "find_picture",
    "image_paths",
    "open_parquet",
    "read_batches",
    "read_info",
    "read_objects",
    "read_rows",
    "read_table",
    "to_objects",
]
