"""TFRecord files of `tf.train.Example`s, without TensorFlow.

A file is a sequence of records, usually compressed as a whole: the length (uint64, little-endian), its checksum,
the bytes, their checksum. A checksum is CRC-32C, rotated and shifted so that checksums of checksums are safe.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from ssdir.console import refuse_pipe
from ssdir.errors import InputError

Example: TypeAlias = dict[str, "NDArray[np.uint8] | NDArray[np.float32] | NDArray[np.int64]"]
"""By name: bytes (one string after the other) as uint8, numbers as float32 or int64; flat."""

MAX_RECORD_BYTES = 1 << 26
"""Longer records are taken for nonsense: those of the data sets have up to 4 MB."""

_MAX_STRINGS_BYTES = 1 << 24
_MAX_NUMBERS = 1_000_000

_GZIP_MAGIC = b"\x1f\x8b"
_LANE_BYTES = 256


def read_records(path: str | Path) -> Iterator[bytes]:
    """Yields the records of a file, gzipped or not, one at a time, with their checksums verified.

    Raises:
        InputError: if the file is missing, not a TFRecord file, cut short or damaged.
    """
    path, number = Path(path), 0
    try:
        with _open(path) as stream:
            while header := stream.read(12):
                length = _length(header, f"{path}: record {number}", first=number == 0)
                body = stream.read(length + 4)
                if len(body) < length + 4:
                    raise EOFError
                if masked_crc32c(body[:length]) != struct.unpack("<I", body[length:])[0]:
                    raise InputError(f"{path}: record {number} is damaged (wrong checksum): fetch the file again")
                yield body[:length]
                number += 1
    except EOFError:
        raise InputError(f"{path}: the file ends within record {number}: fetch it again, whole") from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: damaged from record {number} on ({error}): fetch the file again") from None
    except OSError as error:
        raise InputError(f"'{path}' is not readable ({error.strerror or error})") from None


def parse_example(record: bytes, where: str) -> Example:
    """The features of a serialised `tf.train.Example`; those without values are left out.

    Raises:
        InputError: if it is none; it names `where`.
    """
    try:
        entries = _message("Example").FromString(record).features.feature
        values = {entry.key: _values(entry.value) for entry in entries}
    except (DecodeError, UnicodeDecodeError):
        raise InputError(f"{where} is not a tf.train.Example") from None
    except _TooManyValuesError:
        raise InputError(f"{where} has more values in one feature than any data set that ssdir reads") from None
    return {name: value for name, value in values.items() if value.size}


def masked_crc32c(data: bytes) -> int:
    """The checksum of TFRecord files."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), fast enough in NumPy for megabytes.

    The register after a message is linear in it. So the message is cut into lanes that go through the table side
    by side, each from an empty register, and further tables carry a lane's register over the lanes behind it.
    """
    if len(data) < _LANE_BYTES:
        return _register(0xFFFFFFFF, data) ^ 0xFFFFFFFF
    # Zeros in front leave an empty register empty; a register full of ones inverts the first four bytes.
    padded = np.zeros(-(-len(data) // _LANE_BYTES) * _LANE_BYTES, dtype=np.uint8)
    padded[-len(data) :] = np.frombuffer(data, dtype=np.uint8)
    padded[len(padded) - len(data) :][:4] ^= 0xFF
    table = _table()
    registers = np.zeros(len(padded) // _LANE_BYTES, dtype=np.uint32)
    for column in np.ascontiguousarray(padded.reshape(-1, _LANE_BYTES).T):
        registers = table[(registers ^ column) & 0xFF] ^ (registers >> np.uint32(8))
    carry = _carry_tables()
    crc = 0
    for register in registers.tolist():
        crc = (
            carry[0][crc & 0xFF] ^ carry[1][crc >> 8 & 0xFF] ^ carry[2][crc >> 16 & 0xFF] ^ carry[3][crc >> 24]
        ) ^ register
    return crc ^ 0xFFFFFFFF


def _register(register: int, data: bytes) -> int:
    table = _table().tolist()
    for byte in data:
        register = table[(register ^ byte) & 0xFF] ^ (register >> 8)
    return register


@cache
def _table() -> NDArray[np.uint32]:
    """What each byte makes of an empty register."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> np.uint32(1)) ^ np.where(table & 1, np.uint32(0x82F63B78), np.uint32(0))
    return table


@cache
def _carry_tables() -> list[list[int]]:
    """What a lane of zeros makes of a register, by each of its four bytes."""
    registers = np.arange(256, dtype=np.uint32) << (np.uint32(8) * np.arange(4, dtype=np.uint32)[:, None])
    for _ in range(_LANE_BYTES):
        registers = _table()[registers & 0xFF] ^ (registers >> np.uint32(8))
    return [[int(value) for value in row] for row in registers]


def _open(path: Path) -> gzip.GzipFile | BufferedReader:
    refuse_pipe(path)
    with path.open("rb") as file:
        compressed = file.read(2) == _GZIP_MAGIC
    return gzip.open(path, "rb") if compressed else path.open("rb")


def _length(header: bytes, where: str, first: bool) -> int:
    if len(header) < 12 and not first:
        raise EOFError
    if len(header) < 12 or masked_crc32c(header[:8]) != struct.unpack("<I", header[8:])[0]:
        if first:
            raise InputError(f"{where.rpartition(':')[0]}: not a TFRecord file: use one as it was published")
        raise InputError(f"{where} is damaged (wrong checksum of its length): fetch the file again")
    length: int = struct.unpack("<Q", header[:8])[0]
    if length > MAX_RECORD_BYTES:
        raise InputError(f"{where} has {length:,} bytes, more than any that ssdir reads ({MAX_RECORD_BYTES:,})")
    return length


# The messages of a tf.train.Example ------------------------------------------------------------------------


class _TooManyValuesError(Exception):
    """A feature would take far more memory than its bytes."""


def _values(feature: Any) -> NDArray[np.uint8] | NDArray[np.float32] | NDArray[np.int64]:
    if feature.bytes_list:
        return _joined(feature.bytes_list)
    if max(len(feature.float_list.value), len(feature.int64_list.value)) > _MAX_NUMBERS:
        raise _TooManyValuesError
    if feature.float_list.value:
        return np.array(feature.float_list.value, dtype=np.float32)
    return np.array(feature.int64_list.value, dtype=np.int64)


def _joined(serialised: bytes) -> NDArray[np.uint8]:
    """The strings of a BytesList, one after the other.

    The data sets hold a million pixels per record as strings of one byte, each a tag, the length 1 and the byte:
    no Python object is made for any of them.
    """
    flat = np.frombuffer(serialised, dtype=np.uint8)
    if len(flat) % 3 == 0 and (flat[::3] == 0x0A).all() and (flat[1::3] == 1).all():
        return flat[2::3]
    if len(flat) > _MAX_STRINGS_BYTES:
        raise _TooManyValuesError
    return np.frombuffer(b"".join(_message("BytesList").FromString(serialised).value), dtype=np.uint8)


@cache
def _message(name: str) -> Any:
    """The class of a message; `Feature` keeps its BytesList as it came (see `_joined`)."""
    field = descriptor_pb2.FieldDescriptorProto
    messages: dict[str, list[tuple[str, int, int | str, bool]]] = {
        "BytesList": [("value", 1, field.TYPE_BYTES, True)],
        "FloatList": [("value", 1, field.TYPE_FLOAT, True)],
        "Int64List": [("value", 1, field.TYPE_INT64, True)],
        "Feature": [
            ("bytes_list", 1, field.TYPE_BYTES, False),
            ("float_list", 2, "FloatList", False),
            ("int64_list", 3, "Int64List", False),
        ],
        "Entry": [("key", 1, field.TYPE_STRING, False), ("value", 2, "Feature", False)],
        "Features": [("feature", 1, "Entry", True)],
        "Example": [("features", 1, "Features", False)],
    }
    file = descriptor_pb2.FileDescriptorProto(name="ssdir/example.proto", package="ssdir", syntax="proto3")
    for message_name, fields in messages.items():
        message = file.message_type.add(name=message_name)
        for field_name, number, kind, repeated in fields:
            label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            added = message.field.add(name=field_name, number=number, label=label)
            if isinstance(kind, str):
                added.type, added.type_name = field.TYPE_MESSAGE, f".ssdir.{kind}"
            else:
                added.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"ssdir.{name}"))
