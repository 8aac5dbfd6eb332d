"""The header of an index, and the check that its files are those that were written.

Lance returns wrong results from damaged files, without an error.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ssdir.analysis.search.folders import IndexFolder
from ssdir.config import Record, parse
from ssdir.documents import json_text, parse_json
from ssdir.errors import InputError
from ssdir.identity import Identity

FORMAT = 4
READ_AT_OPENING = 1 << 26
"""Bytes of files, the smallest first, that are read whenever an index is opened: 64 MiB take 0.1 s."""

_Count = Annotated[int, Field(ge=0)]


class IndexFile(Record):
    """A file of an index as it was written; it never changes.

    Attributes:
        size: in bytes.
        stamp: what changes with the content: the time of the last change, or the storage's tag of the content.
        checksum: CRC-32 of the content; None where the storage guards the content itself.
    """

    size: _Count
    stamp: str
    checksum: int | None


class IndexInfo(Identity):
    """The content of the header; `Identity` gives the fields of the model.

    Attributes:
        entries: what a row of the index is: a single object, or a track, see `ssdir.analysis.tracks`.
        folder: folder that the images' relative paths start from.
        table: name of Lance's table.
        version: version of that table which is the index: rows that a command wrote before it was killed are not.
        partitioned: number of objects when the partitions were made; 0 if there are none.
        files: Lance's files by their paths in the index.
    """

    entries: Literal["objects", "tracks"]
    folder: str
    table: str
    version: _Count
    partitioned: _Count
    files: dict[str, IndexFile]


def write_header(folder: IndexFolder, info: IndexInfo) -> IndexInfo:
    """Writes the header with all files of its table, of which only those that changed are read."""
    files = {}
    for name, (size, stamp) in folder.files(info.table).items():
        known = info.files.get(name)
        if known is None or (known.size, known.stamp) != (size, stamp):
            known = IndexFile(size=size, stamp=stamp, checksum=folder.checksum(name))
        files[name] = known
    return _write(folder, info, files)


def renew_stamps(folder: IndexFolder, info: IndexInfo) -> IndexInfo:
    """Writes the header with the present stamps of its files, which were checked: they may have been copied."""
    present = folder.files(info.table)
    if all(present[name][1] == file.stamp for name, file in info.files.items()):
        return info
    files = {name: file.model_copy(update={"stamp": present[name][1]}) for name, file in info.files.items()}
    return _write(folder, info, files)


def _write(folder: IndexFolder, info: IndexInfo, files: dict[str, IndexFile]) -> IndexInfo:
    info = info.model_copy(update={"files": files})
    folder.write_header(json_text({"format": FORMAT, **info.model_dump()}).encode())
    return info


def read_header(folder: IndexFolder) -> IndexInfo:
    """Reads the header of an index.

    Raises:
        InputError: if there is no index, or its header is damaged or of another format.
    """
    content = folder.read_header()
    if content is None:
        raise InputError(
            f"there is no index in '{folder.name}': make one with ssdir index OBJECTS.parquet --out {folder.name}"
        )
    try:
        values = parse_json(content, "its header")
        if not isinstance(values, dict) or values.get("format") == FORMAT:
            return parse(IndexInfo, values, source="its header")
    except InputError as error:
        raise _damaged(folder, error) from None
    raise InputError(f"'{folder.name}' is of another ssdir: make it again with ssdir index --force")


def check_files(folder: IndexFolder, info: IndexInfo, read_all: bool = False) -> None:
    """Checks that the files of an index are those that were written.

    All must be there in their sizes. Their content is compared with its checksum where the stamp is another one,
    and for the smallest files up to `READ_AT_OPENING` in all.

    Args:
        folder: the index.
        info: its header.
        read_all: compare the content of every file.

    Raises:
        InputError: if a file is missing or has changed.
    """
    present, left = folder.files(info.table), READ_AT_OPENING
    for name, expected in sorted(info.files.items(), key=lambda item: item[1].size):
        if name not in present:
            raise _damaged(folder, f"'{name}' is missing")
        size, stamp = present[name]
        left -= size
        is_same = size == expected.size
        if is_same and (read_all or left >= 0 or stamp != expected.stamp):
            is_same = folder.checksum(name) == expected.checksum and (
                expected.checksum is not None or stamp == expected.stamp
            )
        if not is_same:
            raise _damaged(folder, f"'{name}' has changed")


def _damaged(folder: IndexFolder, problem: object) -> InputError:
    return InputError(f"'{folder.name}' is damaged: make it again with ssdir index --force ({problem})")
