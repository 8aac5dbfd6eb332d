"""Encoded objects in a Parquet file: a row per object, readable by pandas, DuckDB, Polars, Spark, …."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ssdir.errors import InputError
from ssdir.inference.arrays import ObjectArrays

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ssdir.objects import Objects

FORMAT = 1
METADATA_KEY = b"ssdir"
ROW_GROUP = 8192
_FOOTER_LIMIT = 2**31 - 1
"""Most bytes of the metadata, where the images without objects are named: Arrow's own is 100 MB."""

_REQUIRED = ("scores", "labels", "z_what", "anchor_index")
_NULLABLE = ("z_what_scale", "z_depth")
"""Columns of nulls where the model that encoded has no such thing."""

BOX_COLUMNS = ("box_x1", "box_y1", "box_x2", "box_y2")


@dataclass(frozen=True)
class StoreInfo:
    """What a file of objects says of itself.

    Attributes:
        model: the model, as `ssdir.load` takes it: a shipped one's name, or a folder or file.
        objects: rows of the file.
        class_names: the classes that the column `label` indexes.
        latent_dim: size D of `z_what`.
        fingerprint: digest of the model's weights; empty where it isn't known.
        ssdir_version: what wrote the file.
        images_seen: number of images, with those in which nothing was found.
        images_without_objects: path of each of the latter, by its image_index.
    """

    model: str
    objects: int
    class_names: list[str]
    latent_dim: int
    fingerprint: str
    ssdir_version: str
    images_seen: int
    images_without_objects: dict[int, str]


class CodeMaker(Protocol):
    """A model, or what was made by one, as far as it tells whose codes they are."""

    @property
    def class_names(self) -> list[str]:
        """The model's classes."""

    @property
    def latent_dim(self) -> int:
        """Size D of its `z_what`."""

    @property
    def fingerprint(self) -> str:
        """Digest of its weights; empty where it isn't known."""


def comparable(one: CodeMaker, other: CodeMaker) -> bool:
    """Whether codes are of one model: of others, even of the same sizes, they mean nothing to each other.

    Where a digest isn't known, as in files of an earlier ssdir, classes and sizes decide. Where it is, classes
    don't count: boxes of another detector bring their own.
    """
    if one.fingerprint and other.fingerprint:
        return one.fingerprint == other.fingerprint
    return (list(one.class_names), one.latent_dim) == (list(other.class_names), other.latent_dim)


class ObjectWriter:
    """Streams objects to a Parquet file, to be used in a `with` block.

    Columns: `image` (path), `image_index`, `image_height`, `image_width` (px, of the upright original),
    `box_x1` … `box_y2` (float32, px of the original), `class`, `label`, `score`, `z_where` (4 float32, cxcywh
    relative to the image), `z_what` and `z_what_scale` (D float32), `z_depth`, `anchor_index`. `z_what_scale` and
    `z_depth` are null where the model has none. The metadata key `ssdir` holds `StoreInfo` as JSON.

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
        fingerprint: str = "",
        given: pa.Schema | None = None,
    ) -> None:
        self.model, self.class_names, self.latent_dim = model, list(class_names), latent_dim
        self.fingerprint = fingerprint
        self.images_seen = self.objects_written = 0
        self._without_objects: dict[int, str] = {}
        self._buffer: list[pa.Table] = []
        self._schema = _schema(latent_dim)
        whole = self._schema if given is None else pa.schema([*self._schema, *given])
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
        header = {
            "format": FORMAT,
            "model": self.model,
            "class_names": self.class_names,
            "latent_dim": self.latent_dim,
            "fingerprint": self.fingerprint,
            "ssdir_version": metadata.version("ssdir"),
            "images_seen": self.images_seen,
            "images_without_objects": self._without_objects,
        }
        self._file.add_key_value_metadata({METADATA_KEY: json.dumps(header).encode()})
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
            else _array(columns[field.name], field.type)
            for field in self._schema
        ]
        return pa.table(arrays, schema=self._schema)


def read_objects(path: str | Path) -> tuple[Objects, list[str]]:
    """Reads a file of objects back.

    Returns:
        The objects as they were encoded, bit by bit, and the path of each image of the batch, with those in
        which nothing was found. Columns of nulls are fields that are None.

    Raises:
        InputError: if the file is missing, damaged, or something else's.
    """
    table, info = read_table(path)
    with _damaged(path):
        return _objects(table, info), image_paths(table, info)


def read_table(path: str | Path) -> tuple[pa.Table, StoreInfo]:
    """Reads a file of objects as it is: the columns of `ObjectWriter`, without torch.

    Raises:
        InputError: as `read_objects`.
    """
    info = read_info(path)
    with _damaged(path):
        # Not read_table: it would add columns for folders named like partitions (`year=2024`).
        names = _schema(info.latent_dim).names
        return _open(path, info).read(names).select(names), info


@contextmanager
def _damaged(path: str | Path) -> Iterator[None]:
    """What can't be read becomes one sentence."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, IndexError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"'{path}' is damaged ({_first_line(error)})") from error


def read_batches(path: str | Path, rows: int = ROW_GROUP) -> Iterator[pa.RecordBatch]:
    """Reads a file of objects in pieces, with the columns of `ObjectWriter`, in bounded memory.

    Raises:
        InputError: as `read_objects`.
    """
    info = read_info(path)
    with _damaged(path):
        yield from _open(path, info).iter_batches(rows, columns=_schema(info.latent_dim).names)


def _open(path: str | Path, info: StoreInfo) -> pq.ParquetFile:
    """A file that has all columns of `ObjectWriter`, and maybe more, such as a class that was predicted since."""
    file = open_parquet(path)
    kinds = _columns(file.schema_arrow)
    # Types of lists may be equal and have other hashes, so that sets of them don't compare.
    if any(kinds.get(name) != kind for name, kind in _columns(_schema(info.latent_dim)).items()):
        raise InputError(f"'{path}' has other columns than ssdir writes")
    return file


def open_parquet(path: str | Path) -> pq.ParquetFile:
    """A file whose pages are checked when they are read, and whose metadata may be as long as ours."""
    return pq.ParquetFile(path, page_checksum_verification=True, thrift_string_size_limit=_FOOTER_LIMIT)


def read_info(path: str | Path) -> StoreInfo:
    """What a file of objects says of itself, without reading the objects.

    Raises:
        InputError: as `read_objects`.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"'{path}' is a folder, not a file" if path.is_dir() else f"'{path}' does not exist")
    try:
        with open_parquet(path) as file:
            footer = file.metadata
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"'{path}' is damaged or not a Parquet file ({_first_line(error)})") from error
    raw = (footer.metadata or {}).get(METADATA_KEY)
    if raw is None:
        raise InputError(f"'{path}' is a Parquet file that ssdir did not write")
    try:
        return _info(json.loads(raw), footer.num_rows, path)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"'{path}' is damaged: its metadata can't be read") from error


def _info(header: Mapping[str, Any], objects: int, path: Path) -> StoreInfo:
    if header["format"] != FORMAT:
        raise InputError(f"'{path}' has format {header['format']}, this ssdir reads {FORMAT}: update ssdir")
    return StoreInfo(
        model=str(header["model"]),
        objects=objects,
        class_names=[str(name) for name in header["class_names"]],
        latent_dim=int(header["latent_dim"]),
        fingerprint=str(header.get("fingerprint", "")),
        ssdir_version=str(header["ssdir_version"]),
        images_seen=int(header["images_seen"]),
        images_without_objects={int(i): str(image) for i, image in header["images_without_objects"].items()},
    )


def _schema(latent_dim: int) -> pa.Schema:
    latent = pa.list_(pa.float32(), latent_dim)
    columns: dict[str, pa.DataType] = {
        "image": pa.string(),
        "image_index": pa.int64(),
        "image_height": pa.int32(),
        "image_width": pa.int32(),
        **dict.fromkeys(BOX_COLUMNS, pa.float32()),
        "class": pa.string(),
        "label": pa.int32(),
        "score": pa.float32(),
        "z_where": pa.list_(pa.float32(), 4),
        "z_what": latent,
        "z_what_scale": latent,
        "z_depth": pa.float32(),
        "anchor_index": pa.int32(),
    }
    return pa.schema([pa.field(name, kind, nullable=name in _NULLABLE) for name, kind in columns.items()])


COLUMNS = frozenset(_schema(1).names)
"""What `ObjectWriter` names its columns."""


def _columns(schema: pa.Schema) -> dict[str, pa.DataType]:
    """Names and types: which columns may be null has changed over time."""
    return {field.name: field.type for field in schema}


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    """Numbers, names, or vectors (M, D) as an Arrow array."""
    if not pa.types.is_fixed_size_list(kind):
        return pa.array(values, type=kind) if values.dtype == object else pa.array(values).cast(kind)
    flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, type=kind)


def _objects(table: pa.Table, info: StoreInfo) -> Objects:
    import torch

    from ssdir.objects import Objects

    def numbers(name: str, dtype: torch.dtype) -> Tensor:
        column = table[name].combine_chunks()
        if not pa.types.is_fixed_size_list(column.type):
            return torch.from_numpy(column.to_numpy(zero_copy_only=False).copy()).to(dtype)
        flat = column.flatten().to_numpy(zero_copy_only=False).copy()
        return torch.from_numpy(flat).to(dtype).reshape(len(table), column.type.list_size)

    def nullable(name: str) -> Tensor | None:
        nulls = table[name].null_count
        if nulls not in (0, len(table)):
            raise ValueError(f"{nulls} of {len(table)} values of '{name}' are null")
        return None if nulls else numbers(name, torch.float32)

    return Objects(
        image_index=numbers("image_index", torch.int64),
        batch_size=info.images_seen,
        z_where=numbers("z_where", torch.float32),
        scores=numbers("score", torch.float32),
        labels=numbers("label", torch.int64),
        z_what=numbers("z_what", torch.float32),
        z_what_scale=nullable("z_what_scale"),
        z_depth=nullable("z_depth"),
        anchor_index=numbers("anchor_index", torch.int64),
    )


def image_paths(table: pa.Table, info: StoreInfo) -> list[str]:
    """Path of each image by its image_index, with those in which nothing was found.

    Raises:
        ValueError: if the file lacks an image.
    """
    paths = dict(info.images_without_objects)
    paths.update(zip(table["image_index"].to_pylist(), table["image"].to_pylist(), strict=True))
    if sorted(paths) != list(range(info.images_seen)):
        raise ValueError(f"it has {len(paths)} of {info.images_seen} images")
    return [paths[index] for index in range(info.images_seen)]


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__


__all__ = [
    "COLUMNS",
    "ObjectWriter",
    "StoreInfo",
    "image_paths",
    "read_batches",
    "read_info",
    "read_objects",
    "read_table",
]
