"""Damage to Parquet: values, columns, types, and what the metadata say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from campaign.damage import BYTES, Damage, Rng, choose
from campaign.documents import EDITS, Document


def in_table(change: Callable[[pa.Table, Rng], pa.Table]) -> Damage:
    def damage(path: Path, rng: Rng) -> None:
        pq.write_table(change(pq.ParquetFile(path).read(), rng), path)

    return damage


def _some_column(table: pa.Table, rng: Rng) -> tuple[int, str]:
    place = int(rng.integers(table.num_columns))
    return place, table.column_names[place]


def null_value(table: pa.Table, rng: Rng) -> pa.Table:
    place, name = _some_column(table, rng)
    values = table[name].to_pylist()
    row = int(rng.integers(len(values)))
    if isinstance(values[row], list) and rng.random() < 0.5:
        values[row][0] = None
    else:
        values[row] = None
    return table.set_column(place, pa.field(name, table[name].type), pa.array(values, table[name].type))


def odd_number(numbers: tuple[Any, ...]) -> Callable[[pa.Table, Rng], pa.Table]:
    """Changes one number of one column."""

    def change(table: pa.Table, rng: Rng) -> pa.Table:
        flat = {
            field.name: field.type.value_type if _is_list(field.type) else field.type for field in table.schema
        }
        numeric = [name for name, kind in flat.items() if pa.types.is_floating(kind) or pa.types.is_integer(kind)]
        if numbers[0] != numbers[0]:
            numeric = [name for name in numeric if pa.types.is_floating(flat[name])]
        name = choose(rng, numeric)
        value = choose(rng, numbers)
        if pa.types.is_integer(flat[name]):
            value = int(choose(rng, (2**31 - 1, -1, -(2**31), 10**6)))
        values = table[name].to_pylist()
        row = int(rng.integers(len(values)))
        if isinstance(values[row], list):
            values[row][int(rng.integers(len(values[row])))] = float(value)
        else:
            values[row] = value
        column = pa.array(values, table[name].type)
        return table.set_column(table.column_names.index(name), table.schema.field(name), column)

    return change


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind))


def dropped_column(table: pa.Table, rng: Rng) -> pa.Table:
    return table.drop_columns([_some_column(table, rng)[1]])


def doubled_column(table: pa.Table, rng: Rng) -> pa.Table:
    _, name = _some_column(table, rng)
    return table.append_column(table.schema.field(name), table[name])


def other_type(table: pa.Table, rng: Rng) -> pa.Table:
    place, name = _some_column(table, rng)
    rows = len(table)
    values = choose(
        rng,
        (
            pa.array([str(value) for value in table[name].to_pylist()]),
            pa.array([1.5] * rows),
            pa.array([True] * rows),
            pa.array([[1]] * rows),
            pa.nulls(rows),
            pa.array([{"a": 1}] * rows),
            pa.array([b"\xff\xfe"] * rows),
        ),
    )
    return table.set_column(place, name, values)


def no_rows(table: pa.Table, rng: Rng) -> pa.Table:
    return table.slice(0, 0)


def odd_names(table: pa.Table, rng: Rng) -> pa.Table:
    """Fills a text column with unusual names; half surrogates can't be in Parquet."""
    name = choose(rng, [field.name for field in table.schema if pa.types.is_string(field.type)])
    values = choose(rng, ("a\x00b", "\x1b[31m", "a\nb", "../../outside.png", "", "x" * 5000, "\u202eabc"))
    return table.set_column(
        table.column_names.index(name), table.schema.field(name), pa.array([values] * len(table))
    )


def other_metadata(path: Path, rng: Rng) -> None:
    """Damages the JSON that ssdir keeps in the metadata, as documents are damaged."""
    table = pq.ParquetFile(path).read()
    known = dict(table.schema.metadata or {})
    own = next((key for key in sorted(known) if key.startswith(b"ssdir")), None)
    if own is None:
        table = table.replace_schema_metadata({b"ssdir": choose(rng, (b"{}", b"\xff", b"null", b'{"format": 1}'))})
    else:
        scratch = path.with_name("metadata.json")
        scratch.write_bytes(known[own])
        document = Document(scratch, as_yaml=False)
        EDITS[choose(rng, sorted(set(EDITS) - {"path outside", "many entries"}))](document, rng)
        document.save()
        table = table.replace_schema_metadata(
            {**known, own: choose(rng, (scratch.read_bytes(),) * 4 + (b"\xff",))}
        )
        scratch.unlink()
    pq.write_table(table, path)


PARQUET: dict[str, Damage] = {
    **BYTES,
    "null value": in_table(null_value),
    "not finite": in_table(odd_number((float("nan"), float("inf"), float("-inf")))),
    "huge number": in_table(odd_number((3e38, -3e38, 1e30, -1.0))),
    "field missing": in_table(dropped_column),
    "field doubled": in_table(doubled_column),
    "type swapped": in_table(other_type),
    "no rows": in_table(no_rows),
    "control characters": in_table(odd_names),
    "lying header": other_metadata,
}
