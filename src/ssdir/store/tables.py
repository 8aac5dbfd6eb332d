"""Files of encoded objects as tables: read with their embeddings, written with a column or two more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ssdir.errors import InputError
from ssdir.identity import Identity
from ssdir.outputs import atomic_file, claim
from ssdir.store.columns import numbers
from ssdir.store.objects_file import StoreInfo, read_rows

SUFFIXES = (".parquet", ".csv", ".json")
_EMBEDDINGS = ("z_where", "z_what", "z_what_scale", "anchor_index")


@dataclass(frozen=True, eq=False)
class Stored:
    """A file that `ssdir encode` wrote, with whatever columns were added since.

    Attributes:
        table: its rows.
        info: what it says of itself.
    """

    table: pa.Table
    info: StoreInfo

    @property
    def z_what(self) -> NDArray[np.float32]:
        """The embeddings, float32 (M, D)."""
        return numbers(self.table["z_what"])


def read_stored(path: str | Path, least: int = 1, identity: Identity | None = None) -> Stored:
    """Reads a file that `ssdir encode` wrote.

    Args:
        path: the file.
        least: how many objects it must hold.
        identity: of the model that the objects are to go with, see `read_info`.

    Raises:
        InputError: if the file is missing, damaged, something else's or of another model, or holds fewer objects.
    """
    table, info = read_rows(path, identity)
    if len(table) < least:
        raise InputError(f"'{path}' holds {len(table)} objects, at least {least} are needed")
    return Stored(table, info)


def check_writable(path: Path, force: bool) -> None:
    """Raises InputError, before any work is done, if a table can't be written there."""
    claim(path, force, SUFFIXES)


def write_stored(
    path: Path, stored: Stored, added: Mapping[str, NDArray[np.generic]], force: bool = False
) -> None:
    """Writes objects with more columns: as Parquet with everything, as CSV or JSON without embeddings and lists.

    Raises:
        InputError: as `check_writable`.
    """
    check_writable(path, force)
    table, suffix = stored.table, path.suffix.lower()
    rows = pa.array(np.arange(len(table)))
    kept = [name for name in table.column_names if name not in added and name != "row"]
    if suffix != ".parquet":
        kept = [
            name
            for name in kept
            if name not in _EMBEDDINGS and not pa.types.is_nested(table.schema.field(name).type)
        ]
    columns = {"row": rows, **{name: pa.array(values) for name, values in added.items()}}
    whole = pa.table({**columns, **{name: table[name] for name in kept}})
    with atomic_file(path, force) as temporary:
        if suffix == ".parquet":
            pq.write_table(whole.replace_schema_metadata(stored.info.metadata()), temporary, compression="zstd")
        elif suffix == ".csv":
            pyarrow.csv.write_csv(whole, temporary)
        else:  # Where a further column has no number, there is a null.
            whole.to_pandas().to_json(temporary, orient="records", indent=2)
