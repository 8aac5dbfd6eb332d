"""Writing of encoded objects to Parquet: a row per object, readable by pandas, DuckDB, Polars, Spark, …."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ssdir.identity import Identity
from ssdir.object_arrays import ObjectArrays
from ssdir.object_table import objects_schema, objects_table, utf8
from ssdir.store.columns import check_values
from ssdir.store.metadata import identity_metadata, images_metadata

if TYPE_CHECKING:
    from ssdir.objects import Objects

ROW_GROUP = 8192
"""Number of rows of a group of the file, and of a piece that is read at once."""

_REQUIRED = ("scores", "labels", "z_what", "anchor_index")


class ObjectWriter:
    """Streams objects to a Parquet file, to be used in a `with` block.

    The columns are those of `OBJECT_COLUMNS`, in this order; the metadata are those of `FILE_METADATA`.

    Args:
        path: the file to write; see `atomic_file`.
        model: name of the model.
        class_names: its classes.
        latent_dim: size D of its `z_what`.
        fingerprint: digest of its weights, see `Encoder`.
        given: further columns, which each batch with objects then brings; names must not be among `COLUMNS`.
        encoding: for a part of a folder, the digest of its manifest.
    """

    def __init__(
        self,
        path: str | Path,
        model: str,
        class_names: Sequence[str],
        latent_dim: int,
        fingerprint: str,
        given: pa.Schema | None = None,
        encoding: str | None = None,
    ) -> None:
        self.model, self.class_names, self.latent_dim = model, list(class_names), latent_dim
        identity = Identity(
            model=model, class_names=self.class_names, latent_dim=latent_dim, fingerprint=fingerprint
        )
        self.images_seen = self.objects_written = self._next_image = 0
        self._without_objects: dict[int, str] = {}
        self._encoding = encoding
        columns = pa.schema([*objects_schema(latent_dim), *(given or ())])
        self._file = RowGroupWriter(path, columns.with_metadata(identity_metadata(identity)))

    def write(
        self,
        objects: Objects | ObjectArrays,
        images: Sequence[str | Path],
        sizes: Sequence[tuple[int, int]],
        given: pa.Table | None = None,
        numbers: Sequence[int] | None = None,
    ) -> None:
        """Adds a batch.

        Args:
            objects: with scores, labels, z_what and anchors.
            images: path of each image of the batch.
            sizes: (height, width) of each, in pixels.
            given: the further columns, row-aligned with the objects.
            numbers: `image_index` of each image, rising within and between batches; by default they count on.

        Raises:
            ValueError: if the batch's parts don't fit each other, or the objects lack a field.
            InputError: if a value is not finite, or outside its range.
        """
        first = self._next_image
        numbers = list(range(first, first + len(images)) if numbers is None else map(int, numbers))
        if (np.diff([first - 1, *numbers]) < 1).any():
            raise ValueError(f"numbers of images must increase from {first}, got {numbers}")
        found = objects if isinstance(objects, ObjectArrays) else objects.to_arrays()
        table = checked_table(found, images, sizes, self.class_names, self.latent_dim, numbers)
        for index in np.flatnonzero(found.counts == 0).tolist():
            self._without_objects[numbers[index]] = utf8(images[index])
        if len(table):
            if given is not None:
                table = pa.table(
                    [*table.columns, *given.columns], schema=pa.schema([*table.schema, *given.schema])
                )
            self._file.write(table)
        self.images_seen += len(images)
        self._next_image = max([first, *(number + 1 for number in numbers)])
        self.objects_written += len(table)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        images = self.objects_written, self.images_seen, self._without_objects
        self._file.add_metadata(images_metadata(*images, self._encoding))
        self._file.__exit__(kind, error, trace)


class RowGroupWriter:
    """Writes tables to a Parquet file in groups of `ROW_GROUP` rows, regardless of the tables' lengths.

    To be used in a `with` block, at whose end the file is complete.

    Args:
        path: the file.
        schema: the columns, and metadata.
    """

    def __init__(self, path: str | Path, schema: pa.Schema) -> None:
        self._file = pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True)
        self._buffer, self._rows = list[pa.Table](), 0

    def write(self, table: pa.Table) -> None:
        """Adds rows."""
        self._buffer.append(table)
        self._rows += len(table)
        if self._rows >= ROW_GROUP:
            whole, written = pa.concat_tables(self._buffer), self._rows - self._rows % ROW_GROUP
            self._file.write_table(whole[:written], ROW_GROUP)
            self._buffer, self._rows = [whole[written:]], self._rows - written

    def add_metadata(self, metadata: Mapping[bytes, bytes]) -> None:
        """Adds metadata to those of the schema."""
        self._file.add_key_value_metadata(metadata)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            with suppress(OSError):
                self._file.close()
            return
        if self._rows:
            self._file.write_table(pa.concat_tables(self._buffer), ROW_GROUP)
        self._file.close()


def checked_table(
    objects: Objects | ObjectArrays,
    images: Sequence[str | Path],
    sizes: Sequence[tuple[int, int]],
    class_names: Sequence[str],
    latent_dim: int,
    numbers: Sequence[int] | None = None,
) -> pa.Table:
    """Converts the objects of a batch of images to a table of `OBJECT_COLUMNS`, and checks every value.

    Args:
        objects: with scores, labels, z_what and anchors.
        images: path of each image of the batch.
        sizes: (height, width) of each, in pixels.
        class_names: the model's classes.
        latent_dim: size D of its `z_what`.
        numbers: `image_index` of each image; by default from 0.

    Raises:
        ValueError: if the batch's parts don't fit each other, or the objects lack a field.
        InputError: if a value is not finite, or outside its range.
    """
    arrays = objects if isinstance(objects, ObjectArrays) else objects.to_arrays()
    if len(arrays):
        if missing := [name for name in _REQUIRED if getattr(arrays, name) is None]:
            raise ValueError(f"objects to store need {', '.join(missing)}")
        assert arrays.z_what is not None
        if arrays.z_what.shape[1] != latent_dim:
            raise ValueError(f"z_what must be (M, {latent_dim}), got {tuple(arrays.z_what.shape)}")
    schema, table = objects_schema(latent_dim), objects_table(arrays, images, sizes, class_names, numbers)
    if not len(arrays):  # whose embeddings may have no size
        return schema.empty_table()
    table = table.select(schema.names)
    for batch in table.to_batches():
        check_values(batch, list(class_names), " as the model encoded it")
    return table.cast(schema)
