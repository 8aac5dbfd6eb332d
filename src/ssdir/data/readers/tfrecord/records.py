"""Reads TFRecord files of `tf.train.Example`s without TensorFlow.

A file is a sequence of records, usually compressed as a whole: the length (uint64, little-endian), its checksum,
the bytes, their checksum.
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

import google_crc32c
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from ssdir.console import refuse_pipe
from ssdir.errors import InputError

Example: TypeAlias = dict[str, "NDArray[np.uint8] | NDArray[np.float32] | NDArray[np.int64]"]
"""Flat arrays by feature name: bytes (one string after the other) as uint8, numbers as float32 or int64."""

MAX_RECORD_BYTES = 1 << 26
"""Longer records are refused: those of the data sets have up to 4 MB."""

_MAX_STRINGS_BYTES = 1 << 24
_MAX_NUMBERS = 1_000_000

_GZIP_MAGIC = b"\x1f\x8b"


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
    """Returns the features of a serialised `tf.train.Example`; those without values are left out.

    Raises:
        InputError: if the record is no such message; the error names `where`.
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
    """Returns the checksum of TFRecord files: a CRC-32C, rotated and shifted."""
    crc: int = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


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
    """Raised where a feature would take far more memory than its bytes."""


def _values(feature: Any) -> NDArray[np.uint8] | NDArray[np.float32] | NDArray[np.int64]:
    if feature.bytes_list:
        return _joined(feature.bytes_list)
    if max(len(feature.float_list.value), len(feature.int64_list.value)) > _MAX_NUMBERS:
        raise _TooManyValuesError
    if feature.float_list.value:
        return np.array(feature.float_list.value, dtype=np.float32)
    return np.array(feature.int64_list.value, dtype=np.int64)


def _joined(serialised: bytes) -> NDArray[np.uint8]:
    """Returns the strings of a BytesList, one after the other.

    The data sets hold a million pixels per record as strings of one byte, each a tag, the length 1 and the byte.
    These are read as one array, because a Python object for each of them would take seconds.
    """
    flat = np.frombuffer(serialised, dtype=np.uint8)
    if len(flat) % 3 == 0 and (flat[::3] == 0x0A).all() and (flat[1::3] == 1).all():
        return flat[2::3]
    if len(flat) > _MAX_STRINGS_BYTES:
        raise _TooManyValuesError
    return np.frombuffer(b"".join(_message("BytesList").FromString(serialised).value), dtype=np.uint8)


_SCHEMA = """
name: "ssdir/example.proto" package: "ssdir" syntax: "proto3"
message_type { name: "BytesList" field { name: "value" number: 1 type: TYPE_BYTES label: LABEL_REPEATED } }
message_type { name: "FloatList" field { name: "value" number: 1 type: TYPE_FLOAT label: LABEL_REPEATED } }
message_type { name: "Int64List" field { name: "value" number: 1 type: TYPE_INT64 label: LABEL_REPEATED } }
message_type {
  name: "Feature"
  field { name: "bytes_list" number: 1 type: TYPE_BYTES label: LABEL_OPTIONAL }
  field { name: "float_list" number: 2 type: TYPE_MESSAGE type_name: ".ssdir.FloatList" label: LABEL_OPTIONAL }
  field { name: "int64_list" number: 3 type: TYPE_MESSAGE type_name: ".ssdir.Int64List" label: LABEL_OPTIONAL }
}
message_type {
  name: "Entry"
  field { name: "key" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "value" number: 2 type: TYPE_MESSAGE type_name: ".ssdir.Feature" label: LABEL_OPTIONAL }
}
message_type {
  name: "Features"
  field { name: "feature" number: 1 type: TYPE_MESSAGE type_name: ".ssdir.Entry" label: LABEL_REPEATED }
}
message_type {
  name: "Example"
  field { name: "features" number: 1 type: TYPE_MESSAGE type_name: ".ssdir.Features" label: LABEL_OPTIONAL }
}
"""
"""The messages of a `tf.train.Example`, but `Feature` keeps its BytesList undecoded (see `_joined`)."""


@cache
def _message(name: str) -> Any:
    """Returns the class of a message of `_SCHEMA`."""
    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(_SCHEMA, descriptor_pb2.FileDescriptorProto()))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"ssdir.{name}"))
