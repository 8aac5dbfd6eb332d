"""TFRecord files for tests, without the code under test: wire format by hand, framing by TensorBoard."""

import gzip
import io
import struct

import numpy as np
from tensorboard.summary.writer.record_writer import RecordWriter


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def nested(field, content):
    """Returns a field whose content is a string or a message."""
    return varint(field << 3 | 2) + varint(len(content)) + content


def feature(value):
    """Returns a feature of numbers, of a list of bytes, or of bytes (one string a byte, as in the data sets)."""
    if isinstance(value, bytes):
        value = [value[i : i + 1] for i in range(len(value))]
    if len(value) and isinstance(value[0], bytes):
        return nested(1, b"".join(nested(1, item) for item in value))
    numbers = np.asarray(value)
    if numbers.dtype.kind == "i":
        return nested(3, nested(1, b"".join(varint(int(v)) for v in numbers.ravel())))
    return nested(2, nested(1, struct.pack(f"<{numbers.size}f", *numbers.ravel().tolist())))


def example(**features):
    entries = (nested(1, key.encode()) + nested(2, feature(value)) for key, value in features.items())
    return nested(1, b"".join(nested(1, entry) for entry in entries))


def framed(records):
    stream = io.BytesIO()
    writer = RecordWriter(stream)
    for record in records:
        writer.write(record)
    return stream.getvalue()


def write_records(path, records):
    path.write_bytes(gzip.compress(framed(records), compresslevel=1))
    return path


def entity_masks(size, *boxes, background=1):
    """Returns masks (entities, H, W) of 0 and 255.

    Entities are the background, which is what the rectangles x1, y1, x2, y2 leave, and the rectangles; later ones
    are in front.
    """
    owner = np.zeros(size, dtype=int)
    for i, (x1, y1, x2, y2) in enumerate(boxes):
        owner[y1:y2, x1:x2] = background + i
    return np.stack([owner == i for i in range(background + len(boxes))]).astype(np.uint8) * 255
