"""Writing of encoded objects to Parquet: a row per object, readable by pandas, DuckDB, Polars, Spark, …."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ssdir.identity import Identity
from ssdir.object_arrays import ObjectArrays
from ssdir.store.columns import BOX_COLUMNS, check_values, objects_schema, to_array
from ssdir.store.info import identity_metadata, images_metadata

if TYPE_CHECKING:
    from ssdir.objects import Objects

ROW_GROUP = 8192
"""Rows of a group of the file, and of a piece that is read at once."""

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
