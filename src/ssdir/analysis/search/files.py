"""The files of an index: LanceDB's, plus checksums, because Lance returns wrong results from damaged files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock, Timeout

from ssdir.config import parse
from ssdir.documents import json_text, read_json
from ssdir.errors import InputError
from ssdir.formatting import first_line
from ssdir.identity import Identity
from ssdir.outputs import atomic_file, checksum

FORMAT = 2
FORMAT_FILE = "ssdir.json"
TABLE = "objects"

_LOCK = ".lock"
_HINT = "latest_version_hint.json"
"""Lance does without this file, and replaces it."""


class IndexInfo(Identity):
    """Metadata of an index; `Identity` gives the fields of its model.

    Attributes:
        folder: folder that the images' relative paths start from.
        checksums: checksum of each of Lance's files, by its path in the index. These never change once written.
    """

    folder: str
    checksums: dict[str, int]


def connect(folder: Path) -> Any:
    """Opens LanceDB in a folder; raises InputError if it is not installed."""
    try:
        import lancedb
    except ImportError as error:
        raise InputError("to search, LanceDB is needed: pip install 'ssdir[search]'") from error
    return lancedb.connect(folder)


def write_header(folder: Path, info: IndexInfo) -> IndexInfo:
    """Writes an index's metadata with the checksums of all its files, of which only new ones are read."""
    checksums = {name: info.checksums.get(name) or checksum(path) for name, path in _files(folder).items()}
    info = info.model_copy(update={"checksums": checksums})
    with atomic_file(folder / FORMAT_FILE, force=True) as temporary:
        temporary.write_text(json_text({"format": FORMAT, **info.model_dump()}), encoding="utf-8")
    return info


def read_header(folder: Path) -> IndexInfo:
    """Reads an index's metadata, and checks that its files are those that were written.

    Raises:
        InputError: if there is no index, or it is damaged or of another format.
    """
    file = folder / FORMAT_FILE
    if not file.is_file():
        problem = "is not an index" if folder.exists() else "does not exist"
        raise InputError(f"'{folder}' {problem}: make one with ssdir index OBJECTS.parquet --out {folder}")
    again = "make it again with ssdir index --force"
    try:
        values = read_json(file)
        if not isinstance(values, dict) or values.get("format") == FORMAT:
            return _checked(parse(IndexInfo, values, source=str(file)), folder)
    except InputError as error:
        raise InputError(f"'{folder}' is damaged: {again} ({error})") from None
    raise InputError(f"'{folder}' is of another ssdir: {again}")


def _checked(info: IndexInfo, folder: Path) -> IndexInfo:
    present = _files(folder)
    for name, expected in info.checksums.items():
        if name not in present:
            raise InputError(f"'{name}' is missing")
        if checksum(present[name]) != expected:
            raise InputError(f"'{name}' has changed")
    return info


def _files(folder: Path) -> dict[str, Path]:
    paths = sorted(path for path in folder.glob(f"{TABLE}.lance/**/*") if path.is_file() and path.name != _HINT)
    return {path.relative_to(folder).as_posix(): path for path in paths}


@contextmanager
def lance(folder: Path, doing: str) -> Iterator[None]:
    """Turns errors of Lance, which are built-in ones, into one sentence."""
    try:
        yield
    except InputError:
        raise
    except (RuntimeError, ValueError, OSError, pa.ArrowException) as error:
        raise InputError(f"'{folder}' can't be {doing}: {first_line(error)}") from error


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Keeps other commands from writing to an index.

    Raises:
        InputError: if another one is writing, or the folder can't be written to.
    """
    lock = FileLock(folder / _LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(f"another command is writing to '{folder}': wait until it has ended") from None
    except OSError as error:
        raise InputError(f"'{folder}' can't be written to ({error.strerror or error})") from None
    try:
        yield
    finally:
        lock.release()
