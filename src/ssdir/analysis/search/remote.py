"""Indexes in object storage: `s3://`, `gs://` and `az://`, whose files LanceDB itself reads and writes.

There are no locks and no renames, so the header decides: each index has a table of its own name, and the header
names the table and its version. It is written last, and only if nobody has written it since it was read.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ssdir.analysis.search.folders import HEADER, IndexFolder, lance, lancedb_module
from ssdir.errors import InputError
from ssdir.storage import CONNECT_SECONDS, READ_SECONDS, filesystem_of, is_file, join, read_bytes, write_bytes

SCHEMES = ("s3", "gs", "az")
_STARTED = ".ssdir-output"
_CHANGED = ("PreconditionFailed", "ConditionalRequestConflict")


class RemoteFolder:
    """The URI of an index in object storage.

    Raises:
        InputError: if LanceDB does not know this kind of storage; as `filesystem_of`.
    """

    def __init__(self, uri: str) -> None:
        self._scheme = uri.partition("://")[0].lower()
        if self._scheme not in SCHEMES:
            raise InputError(f"'{uri}' can't hold an index: give a local folder or one in s3://, gs:// or az://")
        self._uri, self._header = uri.rstrip("/"), join(uri, HEADER)
        self._filesystem, self._path = filesystem_of(self._uri)
        self._read: bytes | None = None
        self._tag: str | None = None

    @property
    def name(self) -> str:
        """Its URI."""
        return self._uri

    def connect(self) -> Any:
        """Opens LanceDB; raises InputError if it is not installed."""
        return lancedb_module().connect(self._uri, storage_options=self._options())

    def new_table(self) -> str:
        """Returns the name of the table of an index to make, which no other index has."""
        return f"objects-{secrets.token_hex(4)}"

    def read_header(self) -> bytes | None:
        """Reads the header; None if there is none."""
        self._read = self._tag = None
        if is_file(self._header):
            with lance(self, "read"):
                self._tag = self._filesystem.info(self._header).get("ETag")
            self._read = read_bytes(self._header)
        return self._read

    def write_header(self, content: bytes) -> None:
        """Writes the header, or replaces it, unless another command has written it since it was read here.

        S3 compares and writes in one request. In other storages, a moment lies between the two.

        Raises:
            InputError: if another command has.
        """
        before, tag = self._read, self._tag
        if self.read_header() != before:
            raise self._changed()
        if self._scheme != "s3":
            write_bytes(self._header, content)
            return
        condition = {"mode": "create"} if before is None else {"IfMatch": tag}
        try:
            self._filesystem.pipe_file(self._header, content, **condition)
        except OSError as error:
            if isinstance(error, FileExistsError) or _code(error) in _CHANGED:
                raise self._changed() from None
            raise

    def files(self, table: str) -> dict[str, tuple[int, str]]:
        """Lists the files of a table, with the storage's tags of their content as stamps."""
        with lance(self, "read"):
            found = self._filesystem.find(f"{self._path}/{table}.lance", detail=True)
        prefix = f"{self._path}/"
        return {name.removeprefix(prefix): (int(about["size"]), _tag_of(about)) for name, about in found.items()}

    def checksum(self, name: str) -> None:
        """Returns None: the storage keeps checksums of its objects, and a tag tells whether one was replaced."""
        return

    @contextmanager
    def making(self, force: bool) -> Iterator[IndexFolder]:
        """Yields itself, and removes at the end of the block what is not the index: an old table or a new one.

        Raises:
            InputError: if there is an index, without `force`; if nothing can be written there.
        """
        if self.read_header() is not None and not force:
            raise InputError(f"output '{self._uri}' exists already: choose another, or replace it with --force")
        started = join(self._uri, _STARTED)
        write_bytes(started, b"")
        try:
            yield self
        finally:
            self._remove_others()

    @contextmanager
    def sole_writer(self) -> Iterator[None]:
        """Keeps nobody from writing: of two commands, the one that ends later is refused, see `write_header`."""
        yield

    def _remove_others(self) -> None:
        with suppress(OSError, InputError):
            content = self.read_header() or b""
            for path in self._filesystem.ls(self._path, detail=False):
                table = path.rstrip("/").rpartition("/")[2].removesuffix(".lance")
                if table.startswith("objects-") and table.encode() not in content:
                    self._filesystem.rm(path, recursive=True)
            if not content:
                self._filesystem.rm_file(f"{self._path}/{_STARTED}")

    def _options(self) -> dict[str, str]:
        """Returns settings for LanceDB: timeouts, and what fsspec was given for this storage."""
        options = {
            "connect_timeout": f"{CONNECT_SECONDS}s",
            "timeout": f"{READ_SECONDS}s",
            "client_max_retries": "3",
            "client_retry_timeout": str(READ_SECONDS),
        }
        if self._scheme != "s3":
            return options
        given = {
            "aws_endpoint": getattr(self._filesystem, "endpoint_url", None) or os.environ.get("AWS_ENDPOINT_URL"),
            "aws_access_key_id": getattr(self._filesystem, "key", None),
            "aws_secret_access_key": getattr(self._filesystem, "secret", None),
            "aws_session_token": getattr(self._filesystem, "token", None),
        }
        options |= {name: value for name, value in given.items() if value}
        if options.get("aws_endpoint", "").startswith("http://"):
            options["allow_http"] = "true"
        if getattr(self._filesystem, "anon", False):
            options["aws_skip_signature"] = "true"
        return options

    def _changed(self) -> InputError:
        return InputError(f"another command has written to '{self._uri}' in the meantime: run this one again")


def _tag_of(about: dict[str, Any]) -> str:
    tag = next((about[name] for name in ("ETag", "etag", "content_md5") if about.get(name)), "")
    return str(tag).strip('"')


def _code(error: BaseException) -> str:
    response = getattr(error.__cause__, "response", None)
    return str(response["Error"].get("Code", "")) if isinstance(response, dict) and "Error" in response else ""
