"""Damage to pictures and compressed files that keeps their frame whole: headers that lie, and bombs."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

from campaign.damage import BYTES, Damage, Rng, choose

SIDES = (0, 1, 65_535, 2**31 - 1, 2**32 - 1, 14_000, 20_000)


# Pictures ---------------------------------------------------------------------------------------------------


def lying_png(path: Path, rng: Rng) -> None:
    """Writes another size, depth or colour type into the header, with its checksum corrected."""
    data = bytearray(path.read_bytes())
    field = choose(rng, ("width", "height", "depth"))
    if field == "depth":
        data[24], data[25] = int(choose(rng, (1, 2, 8, 16, 77))), int(choose(rng, (0, 2, 3, 4, 6, 9)))
    else:
        start = 16 if field == "width" else 20
        data[start : start + 4] = struct.pack(">I", choose(rng, SIDES))
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)


def png_bomb(path: Path, rng: Rng) -> None:
    """Writes an RGBA picture of nearly the largest permitted size, all zeros: a megabyte that becomes 800."""
    side = int(choose(rng, (14_000, 30_000)))
    packer = zlib.compressobj(1)
    row = bytes(1 + 4 * side)
    packed = b"".join(packer.compress(row) for _ in range(min(side, 14_000))) + packer.flush()

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)
    frame = chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + frame)


def lying_field(places: tuple[int, ...], size: str, values: tuple[int, ...] = SIDES) -> Damage:
    """Writes another number at one of several places of the header."""

    def damage(path: Path, rng: Rng) -> None:
        data = bytearray(path.read_bytes())
        start, limit = int(choose(rng, places)), 2 ** (8 * struct.calcsize(size))
        data[start : start + struct.calcsize(size)] = struct.pack(size, int(choose(rng, values)) % limit)
        path.write_bytes(data)

    return damage


def lying_jpeg(path: Path, rng: Rng) -> None:
    """Writes another height, width or number of components into the frame's header."""
    data = bytearray(path.read_bytes())
    start = data.index(b"\xff\xc0") + 5
    if rng.random() < 0.3:
        data[start + 4] = int(choose(rng, (0, 1, 2, 4, 200)))
    else:
        place = start + int(choose(rng, (0, 2)))
        data[place : place + 2] = struct.pack(">H", int(choose(rng, (0, 1, 65_535, 14_000))))
    path.write_bytes(data)


def lying_tiff(path: Path, rng: Rng) -> None:
    """Writes another type, count or value into one of the directory's entries."""
    data = bytearray(path.read_bytes())
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    entry = first + 2 + 12 * int(rng.integers(count))
    field, form, limit = choose(rng, ((2, "<H", 2**16), (4, "<I", 2**32), (8, "<I", 2**32)))
    struct.pack_into(form, data, entry + field, int(choose(rng, SIDES)) % limit)
    path.write_bytes(data)


PNG: dict[str, Damage] = {**BYTES, "lying header": lying_png, "bomb": png_bomb}
JPEG: dict[str, Damage] = {**BYTES, "lying header": lying_jpeg}
TIFF: dict[str, Damage] = {**BYTES, "lying header": lying_tiff}
GIF: dict[str, Damage] = {**BYTES, "lying header": lying_field((6, 8, 10), "<H")}
BMP: dict[str, Damage] = {**BYTES, "lying header": lying_field((10, 14, 18, 22, 28, 30, 46), "<I")}
WEBP: dict[str, Damage] = {**BYTES, "lying header": lying_field((4, 12, 16, 20, 24, 26), "<H")}


# Compressed files -------------------------------------------------------------------------------------------


def gzip_bomb(path: Path, rng: Rng) -> None:
    """Writes four gigabytes of zeros, as members of a gzip file of 64 MB each."""
    header = choose(rng, (b"", path.read_bytes()))
    path.write_bytes(header + gzip.compress(bytes(1 << 26), 9) * 64)


def lying_idx(path: Path, rng: Rng) -> None:
    data = bytearray(gzip.decompress(path.read_bytes()))
    start = int(choose(rng, (0, *range(4, 4 * (data[3] + 1), 4))))
    struct.pack_into(">I", data, start, int(choose(rng, (*SIDES, 0x0D03, 0x0801))) % 2**32)
    path.write_bytes(gzip.compress(bytes(data)))


def lying_record(path: Path, rng: Rng) -> None:
    """Changes the length of the first record, or numbers of the message within, with or without its checksum."""
    data = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into("<Q", data, 0, int(choose(rng, (0, 1, 2**31, 2**40, 2**63, 100))))
    if rng.random() < 0.5:
        from ssdir.data.readers.tfrecord.records import masked_crc32c

        struct.pack_into("<I", data, 8, masked_crc32c(bytes(data[:8])))
    path.write_bytes(gzip.compress(bytes(data)))


def flip_inside(path: Path, rng: Rng) -> None:
    """Flips bits before compression, so that the compressed file's checksum holds."""
    data = bytearray(gzip.decompress(path.read_bytes()))
    for place in rng.integers(0, len(data), 3):
        data[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(gzip.compress(bytes(data)))


IDX: dict[str, Damage] = {
    **BYTES,
    "lying header": lying_idx,
    "bomb": gzip_bomb,
    "flipped inside": flip_inside,
}
RECORDS: dict[str, Damage] = {
    **BYTES,
    "lying header": lying_record,
    "bomb": gzip_bomb,
    "flipped inside": flip_inside,
}
