import gzip
import re
import struct
import tracemalloc
import zlib

import numpy as np
import pytest

from ssdir.data.readers.tfrecord.records import (
    MAX_RECORD_BYTES,
    masked_crc32c,
    parse_example,
    read_records,
)
from ssdir.errors import InputError

from .records import example, framed, write_records

RECORDS = [b"first", b"", bytes(range(256)) * 40]


@pytest.mark.parametrize("compressed", [True, False])
def test_records_come_back(tmp_path, compressed):
    path = tmp_path / "a.tfrecords"
    path.write_bytes(gzip.compress(framed(RECORDS)) if compressed else framed(RECORDS))
    assert list(read_records(path)) == RECORDS


def test_an_empty_file_has_no_records(tmp_path):
    assert list(read_records(write_records(tmp_path / "a.tfrecords", []))) == []


def test_records_are_read_one_at_a_time(tmp_path):
    """Damage further on does not matter to a reader that stops before it."""
    path = tmp_path / "a.tfrecords"
    path.write_bytes(framed(RECORDS)[:-1])
    assert next(read_records(path)) == b"first"


def flipped(data, position):
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


# The first record: 8 bytes of length, 4 of checksum, 5 of data, 4 of checksum; the second begins at 21.
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: flipped(data, 13), "record 0 is damaged (wrong checksum)"),
        (lambda data: flipped(data, 18), "record 0 is damaged (wrong checksum)"),
        (lambda data: flipped(data, 22), "record 1 is damaged (wrong checksum of its length)"),
        (lambda data: flipped(data, 0), "not a TFRecord file"),
        (lambda data: b"no records at all", "not a TFRecord file"),
        (lambda data: b"short", "not a TFRecord file"),
        (lambda data: data[:-1], "the file ends within record 2"),
        (lambda data: data[:25], "the file ends within record 1"),
        (lambda data: gzip.compress(data)[:-30], "the file ends within record"),
        (lambda data: flipped(gzip.compress(data), 60), "damaged"),
        (lambda data: b"\x1f\x8b but no gzip", "damaged from record 0 on"),
    ],
)
def test_broken_files_are_named(tmp_path, spoil, message):
    path = tmp_path / "a.tfrecords"
    path.write_bytes(spoil(framed(RECORDS)))
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        list(read_records(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_length_beyond_reason_is_refused(tmp_path):
    length = struct.pack("<Q", MAX_RECORD_BYTES + 1)
    path = tmp_path / "a.tfrecords"
    path.write_bytes(length + struct.pack("<I", masked_crc32c(length)))
    with pytest.raises(InputError, match="more than any that ssdir reads"):
        list(read_records(path))


def test_very_many_zeros_are_refused_at_its_first_bytes(tmp_path):
    path = tmp_path / "a.tfrecords"
    squeeze = zlib.compressobj(wbits=31)
    with path.open("wb") as stream:
        for _ in range(8):
            stream.write(squeeze.compress(bytes(1 << 24)))
        stream.write(squeeze.flush())
    tracemalloc.start()
    with pytest.raises(InputError, match="not a TFRecord file"):
        list(read_records(path))
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("value", [np.ones(11, dtype=np.int64), np.ones(11, dtype=np.float32), [b""] * 51])
def test_records_of_very_many_values_are_refused(monkeypatch, value):
    monkeypatch.setattr("ssdir.data.readers.tfrecord.records._MAX_NUMBERS", 10)
    monkeypatch.setattr("ssdir.data.readers.tfrecord.records._MAX_STRINGS_BYTES", 100)
    assert len(parse_example(example(a=value[1:] if len(value) < 50 else [b"x"] * 10), "record 0")["a"]) == 10
    with pytest.raises(InputError, match="record 0 has more values in one feature than any data set"):
        parse_example(example(a=value), "record 0")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.tfrecords' is not readable \(No such file"):
        list(read_records(tmp_path / "nowhere.tfrecords"))


def test_features_are_parsed_by_their_kind():
    record = example(pixels=b"\x00\x0a\x01\xff", whole=[b"abc", b"d"], x=[0.5, -2.0], n=[1, 300])
    parsed = parse_example(record, "record 0")
    assert {name: value.tolist() for name, value in parsed.items()} == {
        "pixels": [0, 10, 1, 255],
        "whole": [97, 98, 99, 100],
        "x": [0.5, -2.0],
        "n": [1, 300],
    }
    assert parsed["pixels"].dtype == np.uint8


def test_strings_that_look_like_single_bytes_are_not_taken_for_them():
    """In `c`, every third byte of the list is a tag, or has the value of one."""
    parsed = parse_example(
        example(a=[b"\x0a\x01\x07"], b=[b"\x07", b"\x0a\x01\x07\x0a"], c=[b"a\x0abc"]), "record 0"
    )
    assert parsed["c"].tobytes() == b"a\x0abc"
    assert parsed["a"].tolist() == [10, 1, 7]
    assert parsed["b"].tolist() == [7, 10, 1, 7, 10]


def test_features_without_values_are_left_out():
    assert parse_example(example(a=[], b=b"\x01"), "record 0").keys() == {"b"}
    assert parse_example(b"", "record 0") == {}


@pytest.mark.parametrize("record", [b"\x0a\xff", b"not a message", example(a=b"12")[:-1]])
def test_what_is_no_example_is_named(record):
    with pytest.raises(InputError, match=r"^record 7 is not a tf\.train\.Example$"):
        parse_example(record, "record 7")
