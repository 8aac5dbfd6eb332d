"""Files of encoded objects as tables: read with their codes, written with a column or two more."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ssdir.errors import InputError
from ssdir.inference.store import open_parquet, read_info
from ssdir.outputs import atomic_file, claim

SUFFIXES = (".parquet", ".csv", ".json")
_CODES = ("z_where", "z_what", "z_what_scale", "anchor_index")


def read_stored(path: str | Path, least: int = 1) -> tuple[pa.Table, NDArray[np.float32]]:
    """Reads a file that `ssdir encode` wrote, with whatever columns were added since.

    Args:
        path: the file.
        least: how many objects it must hold.

    Returns:
        The table, and its codes, float32 (M, D).

    Raises:
        InputError: if the file is missing, damaged, something else's, or holds fewer objects.
    """
    info = read_info(path)
    try:
        table = open_parquet(path).read()
        codes = table["z_what"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise InputError(f"'{path}' is damaged: encode the images again") from error
    if len(table) < least:
        raise InputError(f"'{path}' holds {len(table)} objects, at least {least} are needed")
    return table, codes.reshape(len(table), info.latent_dim)


def check_writable(path: Path, force: bool) -> None:
    """Raises InputError, before any work is done, if a table can't be written there."""
    claim(path, force, SUFFIXES)


def write_stored(
    path: Path, table: pa.Table, added: Mapping[str, NDArray[np.generic]], force: bool = False
) -> None:
    """Writes a table with more columns: as Parquet with everything, as CSV or JSON without the codes.

    Raises:
        InputError: as `check_writable`.
    """
    check_writable(path, force)
    rows = pa.array(np.arange(len(table)))
    kept = [name for name in table.column_names if name not in added and name != "row"]
    if path.suffix.lower() != ".parquet":
        kept = [name for name in kept if name not in _CODES]
    columns = {"row": rows, **{name: pa.array(values) for name, values in added.items()}}
    whole = pa.table({**columns, **{name: table[name] for name in kept}})
    with atomic_file(path, force) as temporary:
        if path.suffix.lower() == ".parquet":
            pq.write_table(whole.replace_schema_metadata(table.schema.metadata), temporary, compression="zstd")
        elif path.suffix.lower() == ".csv":
            pyarrow.csv.write_csv(whole, temporary)
        else:
            whole.to_pandas().to_json(temporary, orient="records", indent=2)
