"""Files on this machine and elsewhere: local paths, and URIs of any file system that fsspec knows.

Settings of a file system (endpoint, credentials, public buckets) come from fsspec's own configuration, from its
`FSSPEC_…` variables, and from what the packages behind it read, such as `AWS_…`.
"""

from __future__ import annotations

import io
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, TypeAlias, cast
from urllib.parse import unquote, urlsplit

from ssdir.errors import InputError, UnreachableError
from ssdir.formatting import first_line
from ssdir.outputs import atomic_file
from ssdir.storage_errors import S3, WEB, explaining, may_pass, protocol_of

Location: TypeAlias = "Path | str"
"""A local file or folder as a `Path`; one elsewhere as its URI, which is text. A URI never becomes a `Path`."""

CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 10, 60, 3
"""How long a server may take to accept a connection and between two packets, and how often it is tried."""

_URI = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_PATTERN = re.compile(r"[*?[]")
_QUERY = re.compile(r"(\?|#(?!frame=\d+$)).*?(?=#frame=\d+$|$)", re.DOTALL)
_PACKAGES: Mapping[str, str] = {
    **dict.fromkeys(S3, "'ssdir[s3]'"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "adl"), "adlfs"),
    **dict.fromkeys(WEB, "aiohttp"),
}


# Names ----------------------------------------------------------------------------------------------------


def is_uri(text: str | Path) -> bool:
    """Returns whether text is a URI such as `s3://bucket/a.jpg`, `file:///a.jpg` among them."""
    return isinstance(text, str) and _URI.match(text) is not None


def to_location(given: str | Path) -> Location:
    """Returns where something is, as a user or a list names it; `file://…` is a local path.

    Raises:
        InputError: for a `file://` URI of another machine.
    """
    if isinstance(given, Path):
        return given
    if not is_uri(given):
        return Path(given)
    if protocol_of(given) not in ("file", "local"):
        return given
    parts = urlsplit(given)
    if parts.netloc not in ("", "localhost"):
        raise InputError(
            f"'{given}' names the machine '{parts.netloc}': write a local file as file:///folder/name"
        )
    path = unquote(given.partition("://")[2].removeprefix(parts.netloc))
    return Path(path[1:] if re.match(r"/[A-Za-z]:", path) else path)  # file:///C:/folder


def absolute(location: Location) -> Location:
    """Returns a location that means the same in any folder."""
    return location.absolute() if isinstance(location, Path) else location


def join(folder: Location, name: str) -> Location:
    """Returns the location of what has a name, or a path with slashes, in a folder."""
    return folder / name if isinstance(folder, Path) else f"{folder.rstrip('/')}/{name}"


def pure_path(location: Location) -> PurePosixPath | Path:
    """Returns a location as a path, to take its name, suffix and folders from.

    A web address loses its query, but keeps the number of a video's frame, `#frame=12`.
    """
    if isinstance(location, Path):
        return location
    rest = location.partition("://")[2]
    return PurePosixPath(_QUERY.sub("", rest) if is_web(location) else rest)


def is_web(location: Location) -> bool:
    """Returns whether a location is a web address."""
    return protocol_of(location) in WEB


# File systems ---------------------------------------------------------------------------------------------


def filesystem_of(location: Location) -> tuple[Any, str]:
    """Returns the fsspec file system of a location, shared by all threads, and the path in it.

    Raises:
        UnreachableError: if no package knows this kind of URI, or the package is not installed.
    """
    if isinstance(location, Path):
        return _filesystem("file", os.getpid()), str(location.absolute())
    try:
        filesystem = _filesystem(protocol_of(location), os.getpid())
    except UnreachableError as error:
        raise UnreachableError(f"'{location}' can't be opened: {error}") from None
    return filesystem, filesystem._strip_protocol(location)


@lru_cache
def _filesystem(protocol: str, process: int) -> Any:
    """Makes a file system, anew in a forked process; listings are not kept, because other processes write."""
    import fsspec
    from fsspec.config import apply_config

    try:
        kind = fsspec.get_filesystem_class(protocol)
        options = _timeouts(protocol) | apply_config(kind, {})
        # fsspec's own cache makes one per thread, each with its own connections.
        return kind(**{"use_listings_cache": False, "skip_instance_cache": True} | options)
    except ImportError as error:
        hint = f"pip install {package}" if (package := _PACKAGES.get(protocol)) else first_line(error)
        raise UnreachableError(f"{protocol}:// needs a package that is not installed ({hint})") from None
    except ValueError as error:
        if "not known" not in str(error):
            raise UnreachableError(f"{protocol}:// is not set up ({first_line(error)})") from None
        raise UnreachableError(
            f"{protocol}:// is no kind of storage that fsspec knows (such as s3, gs, abfs, https, file)"
        ) from None
    except Exception as error:
        raise UnreachableError(f"{protocol}:// is not set up ({first_line(error)})") from None


def _timeouts(protocol: str) -> dict[str, Any]:
    """Returns options with which a storage that does not answer ends in an error within a minute."""
    if protocol in S3:
        waits = {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS}
        retries = {"mode": "standard", "max_attempts": ATTEMPTS}
        # More than one request at once for a file would need its size first, by a request of its own.
        return {"config_kwargs": waits | {"retries": retries, "max_pool_connections": 32}, "max_concurrency": 1}
    if protocol in WEB:
        import aiohttp

        timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
        return {"client_kwargs": {"timeout": timeout, "trust_env": True}}
    return {}


# Reading and writing --------------------------------------------------------------------------------------


def read_bytes(location: Location) -> bytes:
    """Reads a file whole.

    Raises:
        InputError: if it is missing or may not be read.
        UnreachableError: if nothing of its storage can be read.
    """
    if isinstance(location, Path):
        with explaining(location):
            return location.read_bytes()
    filesystem, path = filesystem_of(location)
    for attempt in range(1, ATTEMPTS + 1):
        with explaining(location):
            try:
                return cast(bytes, filesystem.cat_file(path))
            except Exception as error:
                # The other packages try again themselves.
                if attempt == ATTEMPTS or not (is_web(location) and may_pass(error)):
                    raise
        time.sleep(2 ** (attempt - 1))
    raise AssertionError


def open_file(location: Location) -> BinaryIO:
    """Opens a file for reading from any place in it, as `pyarrow.parquet.ParquetFile` does.

    Raises:
        InputError: as `read_bytes`.
    """
    with explaining(location):
        if isinstance(location, Path):
            return location.open("rb")
        filesystem, path = filesystem_of(location)
        return io.BufferedReader(filesystem.open(path, "rb"))  # whose lines are read as those of any file


def exists(location: Location) -> bool:
    """Returns whether there is a file, a folder, or something whose URI begins with it and a slash.

    Raises:
        UnreachableError: as `read_bytes`.
    """
    return _kind(location) is not None


def is_file(location: Location) -> bool:
    """Returns whether there is a file; errors are those of `exists`."""
    return _kind(location) == "file"


def is_folder(location: Location) -> bool:
    """Returns whether there is a folder; errors are those of `exists`."""
    return _kind(location) == "directory"


def _kind(location: Location) -> str | None:
    """Returns `file`, `directory` or another kind; None where nothing is."""
    if isinstance(location, Path):
        if os.path.isfile(location):  # Path.is_file raises where a name is too long.
            return "file"
        return "directory" if os.path.isdir(location) else "other" if os.path.exists(location) else None
    filesystem, path = filesystem_of(location)
    with explaining(location):
        try:
            return str(filesystem.info(path)["type"])
        except FileNotFoundError:
            return None


def list_files(folder: Location) -> list[Location]:
    """Lists the files that are directly in a folder, sorted by name; none if there is no such folder.

    Raises:
        InputError: if the folder may not be read; for more see `exists`.
    """
    if isinstance(folder, Path):
        with explaining(folder):
            return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    return [*_files_in(folder, 1)]


def list_below(folder: str) -> list[str]:
    """Lists the files below the URI of a folder, as `list_files` does; for local ones see `files_below`."""
    return _files_in(folder, None)


def _files_in(folder: str, depth: int | None) -> list[str]:
    filesystem, path = filesystem_of(folder)
    with explaining(folder):
        try:
            infos = filesystem.find(path, maxdepth=depth, detail=True)
        except FileNotFoundError:
            return []
    # An empty object may stand for the folder itself.
    names = [name for name, info in infos.items() if info["type"] == "file" and not name.endswith("/")]
    return [_uri_in(folder, path, name) for name in sorted(names, key=lambda name: name.split("/"))]


def matches(pattern: str) -> list[tuple[str, bool]]:
    """Lists what matches the URI of a glob pattern, sorted by path: the URI, and whether it is a folder.

    Raises:
        InputError: as `list_files`.
    """
    filesystem, path = filesystem_of(pattern)
    with explaining(pattern):
        try:
            infos = filesystem.glob(path, detail=True)
        except FileNotFoundError:
            return []
    names = sorted(infos, key=lambda name: name.split("/"))
    return [(_uri_in(pattern, path, name), infos[name]["type"] == "directory") for name in names]


def write_bytes(location: Location, data: bytes) -> None:
    """Writes a file, or replaces one, whole or not at all; errors are those of `new_file`."""
    with new_file(location) as temporary:
        temporary.write_bytes(data)


@contextmanager
def new_file(location: Location) -> Iterator[Path]:
    """Writes a file, or replaces one, whole or not at all: by a rename, or in one request.

    Yields:
        The path of a local file to write to, of the same suffix; it goes to its place when the block ends.

    Raises:
        InputError: if it can't be written, or its URI may be a pattern; for more see `exists`.
    """
    if isinstance(location, Path):
        with atomic_file(location, force=True) as temporary:
            yield temporary
        return
    _check_no_pattern(location, "written")
    filesystem, path = filesystem_of(location)
    with TemporaryDirectory(prefix="ssdir-") as folder:
        temporary = Path(folder, pure_path(location).name)
        yield temporary
        with explaining(location, "written"), _appearing_whole(filesystem, path) as target:
            filesystem.put_file(str(temporary), target)


@contextmanager
def _appearing_whole(filesystem: Any, path: str) -> Iterator[str]:
    """Yields where to write a file: under another name, unless one request writes all of it."""
    from fsspec.asyn import AsyncFileSystem

    if isinstance(filesystem, AsyncFileSystem):  # S3, Google, Azure
        yield path
        return
    folder, slash, name = path.rpartition("/")
    temporary = f"{folder}{slash}.{secrets.token_hex(4)}-{name}"
    try:
        yield temporary
        filesystem.mv(temporary, path)
    except BaseException:
        with suppress(Exception):
            filesystem.rm_file(temporary)
        raise


def remove(locations: Sequence[Location]) -> None:
    """Removes files, and folders with all that is in them, of one storage; what is not there is passed over.

    Raises:
        InputError: if one can't be removed, or its URI may be a pattern; for more see `exists`.
    """
    for path in locations:
        if isinstance(path, str):
            _check_no_pattern(path, "removed")
        else:
            with explaining(path, "removed"):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    if elsewhere := [filesystem_of(location) for location in locations if isinstance(location, str)]:
        with explaining(locations[0], "removed"), suppress(FileNotFoundError):
            elsewhere[0][0].rm([path for _, path in elsewhere], recursive=True)


def _check_no_pattern(uri: str, change: str) -> None:
    """Refuses a URI that fsspec would take for a pattern, so that it moved or removed files that match it."""
    if _PATTERN.search(uri):
        raise InputError(f"'{uri}' can't be {change}: choose a name without *, ? and [, which make it a pattern")


def _uri_in(uri: str, path: str, name: str) -> str:
    """Returns the URI of a name that a file system lists, given the URI and path that were listed."""
    uri = uri.rstrip("/")
    return uri.removesuffix(path.rstrip("/")) + name
