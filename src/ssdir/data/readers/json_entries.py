"""Decodes large JSON documents entry by entry, and reports all that is wrong with them at once."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import msgspec
from msgspec import Raw, Struct

from ssdir.console import watched
from ssdir.data.readers.faults import Faults
from ssdir.documents import read_bytes
from ssdir.errors import InputError
from ssdir.formatting import quote

Id: TypeAlias = int | float | str

T = TypeVar("T")

MAX_BYTES = 1 << 32
"""The largest file that is read: reading takes the file's size in memory, and a few hundred bytes per entry."""

_CHUNK = 1 << 20
_MOST_DIGITS = 20
_NOT_FINITE = re.compile(rb"NaN|-?Infinity")
_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_TYPES = {
    "array": "a list",
    "bool": "true or false",
    "float": "a number",
    "int": "a number",
    "object": "an object",
    "str": "text",
}
"""The names of JSON's types in messages."""


def read_raw_json(path: Path) -> bytes:
    """Reads a JSON file as UTF-8, without a byte order mark.

    Raises:
        InputError: as `read_bytes`; if it is not UTF-8 or UTF-16.
    """
    raw = read_bytes(path, MAX_BYTES)
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            raw = raw.decode("utf-16").encode()
        except UnicodeError:
            raise InputError(f"'{path}' is not UTF-8 text: save it as UTF-8") from None
    _check_utf8(raw, path)
    return raw.removeprefix(codecs.BOM_UTF8)


def _check_utf8(raw: bytes, path: Path) -> None:
    """Checks the text in chunks, because decoding all of it at once would take too much memory."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(raw), _CHUNK):
        part = raw[start : start + _CHUNK]
        try:
            decoder.decode(part, final=start + _CHUNK >= len(raw))
        except UnicodeDecodeError as error:
            # The decoder may hold bytes of the part before.
            at = start + len(part) - len(error.object) + error.start
            raise InputError(f"'{path}' is not UTF-8 text (line {_line(raw, at)}): save it as UTF-8") from None


def _line(raw: bytes, position: int) -> int:
    return raw.count(b"\n", 0, position) + 1


def decode_value(raw: Raw) -> Any:
    """Decodes any value; None if it contains half of a surrogate pair, which is not valid text."""
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return None


def decode_document(raw: bytes, kind: type[T], path: Path, what: str) -> T:
    """Decodes a document, but not its entries, which are of type `Raw`. NaN and infinity become null.

    Raises:
        InputError: if it is not JSON (names the line), nested too deep, or of another kind.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except RecursionError:
        raise InputError(f"{path}: not {what} (lists within lists, too deep to read)") from None
    except msgspec.ValidationError as error:
        raise InputError(f"{path}: not {what} (it {_reason(error, raw)})") from None
    except msgspec.DecodeError as error:
        finite = _without_not_finite(raw)
        if finite != raw:
            return decode_document(finite, kind, path, what)
        at = re.search(r"\(byte (\d+)\)", str(error))
        line = _line(raw, int(at[1]) if at else len(raw))
        short = "it is cut short, or has half of a surrogate pair" if b"\\ud" in raw.lower() else "it is cut short"
        problem = "an invalid character" if at else short if raw.strip() else "it is empty"
        raise InputError(f"{path}: not valid JSON at line {line} ({problem})") from None


def _without_not_finite(raw: bytes) -> bytes:
    """Replaces NaN and infinity, which are no JSON though some tools write them, by null; text stays as it is."""
    parts, start, in_text = list[bytes](), 0, False
    for match in _NOT_FINITE.finditer(raw):
        before = raw[start : match.start()]
        in_text ^= _ESCAPED.sub(b"", before).count(b'"') % 2 == 1
        parts += [before, match[0] if in_text else b"null"]
        start = match.end()
    return b"".join([*parts, raw[start:]])


def decode_entries(raws: Sequence[Raw], kind: type[T], what: str, faults: Faults) -> Iterator[tuple[int, T]]:
    """Decodes entries, yields position and value of the valid ones, and adds the others to the faults."""
    decode = msgspec.json.Decoder(kind).decode
    for position, raw in enumerate(watched(raws, f"reading {what} entries")):
        try:
            value = decode(raw)
        except msgspec.ValidationError as error:
            faults.add(f"{_name_of(raw, what, position)} {_reason(error, raw)}")
        except msgspec.DecodeError:
            faults.add(f"{_name_of(raw, what, position)} has half of a surrogate pair (\\ud…), which is no text")
        else:
            yield position, value


def as_other_type(identity: Id) -> Id:
    """Returns the text of an id that is a number, and the number that a text writes; else the id."""
    if not isinstance(identity, str):
        return str(identity)
    is_number = identity.isdecimal() and len(identity) < _MOST_DIGITS and str(int(identity)) == identity
    return int(identity) if is_number else identity


def entry_name(what: str, identity: Any, position: int) -> str:
    """Returns the name of an entry: its id or, where it has none, its place in the list."""
    return f"{what} number {position} (from 0)" if identity is None else f"{what} {quote(identity)}"


class _Named(Struct):
    id: Id | None = None


def _name_of(raw: Raw, what: str, position: int) -> str:
    try:
        identity = msgspec.json.decode(raw, type=_Named).id
    except msgspec.DecodeError:
        identity = None
    return entry_name(what, identity, position)


def _reason(error: msgspec.ValidationError, raw: Raw | bytes) -> str:
    """Puts msgspec's error in words, such as "has iscrowd '0', expected number or null"."""
    message, _, where = str(error).partition(" - at `$")
    quoted = re.findall("`([^`]+)`", message)
    keys = re.findall(r"[^.\[\]`]+", where)
    if "missing required field" in message:
        return f"has no {'.'.join([*keys, quoted[-1]])}"
    if not message.startswith("Expected") or not quoted:
        return f"has a value that can't be read ({message})"
    types = dict.fromkeys(_TYPES.get(name, name) for name in quoted[0].split(" | "))
    expected = " or ".join(types)
    if not keys:
        return f"is {_TYPES.get(quoted[-1], quoted[-1])}, expected {expected}"
    if not isinstance(raw, Raw):  # The whole document: its entries are not decoded for an error.
        return f"has {_TYPES.get(quoted[-1], quoted[-1])} as {'.'.join(keys)}, expected {expected}"
    value = decode_value(raw)
    if value is None:
        return f"has a value as {where.strip('.`')} that is not {expected}"
    for key in keys:
        value = value[int(key) if isinstance(value, list) else key]
    return f"has {where.strip('.`')} {quote(value)}, expected {expected}"
