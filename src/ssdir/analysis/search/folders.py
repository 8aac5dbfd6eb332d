"""Where an index is: its header and LanceDB's files, written whole or not at all, by one command at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from filelock import FileLock, Timeout

from ssdir.documents import read_bytes
from ssdir.errors import InputError
from ssdir.formatting import first_line
from ssdir.outputs import atomic_dir, atomic_file, checksum

HEADER = "ssdir.json"

_LOCK = ".lock"
_HINT = "latest_version_hint.json"
"""Lance does without this file, and replaces it."""


class IndexFolder(Protocol):
    """A place with the files of an index."""

    @property
    def name(self) -> str:
        """Its path or URI."""

    def connect(self) -> Any:
        """Opens LanceDB; raises InputError if it is not installed."""

    def new_table(self) -> str:
        """Returns the name of the table of an index to make."""

    def read_header(self) -> bytes | None:
        """Reads the header; None if there is none."""

    def write_header(self, content: bytes) -> None:
        """Writes the header, or replaces it: what is not named in it is not part of the index."""

    def files(self, table: str) -> dict[str, tuple[int, str]]:
        """Lists the files of a table: size in bytes, and a stamp that changes with the content, by their paths."""

    def checksum(self, name: str) -> int | None:
        """Returns the checksum of a file; None where the storage guards the content itself."""

    def making(self, force: bool) -> AbstractContextManager[IndexFolder]:
        """Yields a place to write a new index to, which appears here at the end of the block, or not at all."""

    def sole_writer(self) -> AbstractContextManager[None]:
        """Keeps other commands from writing."""


class LocalFolder:
    """A folder on this machine or in a network file system."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        """Its path."""
        return str(self.path)

    def connect(self) -> Any:
        """Opens LanceDB; raises InputError if it is not installed."""
        return lancedb_module().connect(self.path)

    def new_table(self) -> str:
        """Returns the name of the table of an index to make."""
        return "objects"

    def read_header(self) -> bytes | None:
        """Reads the header; None if there is none."""
        return read_bytes(self.path / HEADER) if (self.path / HEADER).is_file() else None

    def write_header(self, content: bytes) -> None:
        """Writes the header, or replaces it."""
        with atomic_file(self.path / HEADER, force=True) as temporary:
            temporary.write_bytes(content)

    def files(self, table: str) -> dict[str, tuple[int, str]]:
        """Lists the files of a table, with the times at which they were changed as stamps."""
        paths = [path for path in self.path.glob(f"{table}.lance/**/*") if path.is_file() and path.name != _HINT]
        about = {path.relative_to(self.path).as_posix(): path.stat() for path in sorted(paths)}
        return {name: (each.st_size, str(each.st_mtime_ns)) for name, each in about.items()}

    def checksum(self, name: str) -> int | None:
        """Returns the CRC-32 of a file."""
        return checksum(self.path / name)

    @contextmanager
    def making(self, force: bool) -> Iterator[IndexFolder]:
        """Yields a folder beside this one, which takes its place at the end of the block; see `atomic_dir`."""
        replaced = self.sole_writer() if force and (self.path / HEADER).is_file() else nullcontext()
        with replaced, atomic_dir(self.path, force) as folder:
            yield LocalFolder(folder)

    @contextmanager
    def sole_writer(self) -> Iterator[None]:
        """Keeps other commands from writing to the index.

        Raises:
            InputError: if another one is writing, or the folder can't be written to.
        """
        lock = FileLock(self.path / _LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise InputError(f"another command is writing to '{self.path}': wait until it has ended") from None
        except OSError as error:
            raise InputError(f"'{self.path}' can't be written to ({error.strerror or error})") from None
        try:
            yield
        finally:
            lock.release()


@contextmanager
def lance(folder: IndexFolder, doing: str) -> Iterator[None]:
    """Turns errors of Lance, which are built-in ones, into one sentence."""
    try:
        yield
    except InputError:
        raise
    except (RuntimeError, ValueError, OSError, pa.ArrowException) as error:
        raise InputError(f"'{folder.name}' can't be {doing}: {first_line(error)}") from error


def lancedb_module() -> Any:
    """Returns LanceDB; raises InputError if it is not installed."""
    try:
        import lancedb
    except ImportError as error:
        raise InputError("to search, LanceDB is needed: pip install 'ssdir[search]'") from error
    return lancedb
