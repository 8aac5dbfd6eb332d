"""Checks of stored objects: the types that other tools give their columns, and the values that they may have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ssdir.errors import InputError
from ssdir.formatting import first_line, quote
from ssdir.identity import Maker
from ssdir.object_table import BOX_COLUMNS, objects_schema

_SLACK = 1e-3
"""Tolerance in pixels for boxes that reach over the edge of their image: products are rounded."""


def check_columns(schema: pa.Schema, latent_dim: int, path: str | Path) -> None:
    """Checks that a file has the columns of `ObjectWriter`; `conform` checks their types as it reads them.

    Raises:
        InputError: if a column is missing, there are two of one name, or embeddings have another size.
    """
    for name in objects_schema(latent_dim).names:
        if name not in schema.names:
            raise InputError(f"'{path}' has no column '{name}', which ssdir encode writes")
    for name, number in Counter(schema.names).items():
        if number > 1:
            raise InputError(f"'{path}' has {number} columns called {quote(name)}: rename or remove all but one")
    kind = schema.field("z_what").type
    if pa.types.is_fixed_size_list(kind) and kind.list_size != latent_dim:
        raise InputError(
            f"'{path}' holds embeddings of {kind.list_size} numbers, those of its model have {latent_dim}"
        )


def conform(batch: pa.RecordBatch, maker: Maker, path: str | Path, first: int = 0) -> pa.RecordBatch:
    """Converts rows of a file to the columns of `ObjectWriter`, and checks their values.

    Other tools change types: pandas makes lists of any length of those of a fixed one, and a column of nulls loses
    its type.

    Args:
        batch: rows of a file that passed `check_columns`; further columns are left out.
        maker: the model that the file names.
        path: the file, for errors.
        first: number of the first row.

    Raises:
        InputError: if a value is missing, not finite, or outside its range; names the first such row.
    """
    schema = objects_schema(maker.latent_dim)
    columns = []
    for field in schema:
        column = batch.column(field.name)
        nulls = column.null_count
        if nulls and not (field.nullable and nulls == len(column)):
            row = first + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
            raise InputError(f"row {row} of '{path}' has no {field.name}, which other rows have: leave it out")
        try:
            empty = nulls == len(column)
            columns.append(pa.nulls(len(column), field.type) if empty else _cast(column, field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            kinds = f"holds {column.type}, expected {field.type}"
            raise InputError(f"the column '{field.name}' of '{path}' {kinds} ({first_line(error)})") from None
    conformed = pa.RecordBatch.from_arrays(columns, schema=schema)
    conformed.validate(full=True)
    check_values(conformed, list(maker.class_names), f" of '{path}'", first)
    return conformed


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if not pa.types.is_fixed_size_list(kind) or column.type == kind:
        return column.cast(kind)
    lengths = pc.list_value_length(column)
    if not pc.all(pc.equal(lengths, kind.list_size)).as_py():
        raise pa.ArrowInvalid(f"a row has {pc.min(lengths)} numbers, expected {kind.list_size}")
    return pa.FixedSizeListArray.from_arrays(column.flatten().cast(pa.float32()), type=kind)


def check_values(batch: pa.RecordBatch, class_names: list[str], source: str, first: int = 0) -> None:
    """Checks the values of rows with the columns of `ObjectWriter`.

    Raises:
        InputError: names the first row with a value that is not finite or outside its range.
    """
    for mask, problem in _problems(batch, class_names):
        wrong = np.flatnonzero(mask)
        if len(wrong):
            row = int(wrong[0])
            image = quote(batch.column("image")[row].as_py())
            raise InputError(f"row {first + row}{source} (image {image}) is wrong: {problem}")


def _problems(batch: pa.RecordBatch, class_names: list[str]) -> Iterator[tuple[NDArray[np.bool_], str]]:
    """Yields a mask of the rows that break a rule, and the problem, for each rule."""
    values: dict[str, NDArray[Any]] = {
        field.name: numbers(batch.column(field.name))
        for field in batch.schema
        if not pa.types.is_string(field.type) and not batch.column(field.name).null_count
    }
    for name, column in values.items():
        if column.dtype == np.float32:
            yield ~np.isfinite(column.reshape(len(batch), -1)).all(axis=1), f"{name} is not a finite number"
    # The length of an embedding must be finite too, for it is compared by its cosine.
    with np.errstate(over="ignore"):
        yield ~np.isfinite(np.square(values["z_what"]).sum(axis=1)), "z_what is too large"
    height, width = values["image_height"], values["image_width"]
    yield (height < 1) | (width < 1), "image_height and image_width must be at least 1"
    yield (values["score"] < 0) | (values["score"] > 1), "score must be within 0 ... 1"
    label = values["label"]
    unknown = (label < 0) | (label >= len(class_names))
    yield unknown, f"label must be within 0 ... {len(class_names) - 1}"
    named = pa.array(class_names, pa.string()).take(pa.array(np.where(unknown, 0, label)))
    same = pc.equal(named, batch.column("class")).to_numpy(zero_copy_only=False)
    yield ~same.astype(bool), "class is not the name of the label"
    x1, y1, x2, y2 = (values[name] for name in BOX_COLUMNS)
    yield (x2 < x1) | (y2 < y1), "the box has a negative size"
    outside = (np.minimum(x1, y1) < -_SLACK) | (x2 > width + _SLACK) | (y2 > height + _SLACK)
    yield outside, "the box reaches over the edge of its image"
    yield values["z_where"][:, 2:].min(axis=1) < 0, "z_where has a negative size"
    for name in ("image_index", "anchor_index"):
        yield values[name] < 0, f"{name} is negative"


_SCALARS = (
    pa.types.is_null,
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_decimal,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_date,
    pa.types.is_time,
    pa.types.is_timestamp,
    pa.types.is_duration,
)


def is_scalar(kind: pa.DataType) -> bool:
    """Returns whether a column holds numbers, text or dates, which text formats have: nothing nested or binary."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(check(kind) for check in _SCALARS)


def plain(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Returns a column of scalars with categories as their values, and text as `string`, which writers take."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    is_text = pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type)
    return column.cast(pa.string()) if is_text else column


def json_values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """Returns scalars as JSON has them: dates as text, and null for numbers that are not finite."""
    column = plain(column)
    if pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
        column = pc.if_else(pc.is_finite(column), column, None)
    elif not (pa.types.is_boolean(column.type) or pa.types.is_integer(column.type)):
        column = column.cast(pa.string())
    return list(column.to_pylist())


def json_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Returns the rows of a table of scalars, see `json_values`."""
    values = zip(*map(json_values, table.columns), strict=True)
    return [dict(zip(table.column_names, row, strict=True)) for row in values]


def numbers(column: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    """Returns a column of numbers, (M,), or of lists of a fixed length D, (M, D), without nulls, as an array."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if not pa.types.is_fixed_size_list(column.type):
        return np.asarray(column.to_numpy(zero_copy_only=False))
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat.reshape(len(column), column.type.list_size))
