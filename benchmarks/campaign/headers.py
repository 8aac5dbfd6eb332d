"""Damage to binary files that keeps their frame whole: headers that lie, bombs, other columns and graphs."""

from __future__ import annotations

import gzip
import hashlib
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from campaign.damage import BYTES, EDITS, Damage, Document, Rng, choose

SIDES = (0, 1, 65_535, 2**31 - 1, 2**32 - 1, 14_000, 20_000)


# Pictures ---------------------------------------------------------------------------------------------------


def lying_png(path: Path, rng: Rng) -> None:
    """Another size, depth or colour type in the header, with its checksum corrected."""
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
    """An RGBA picture of nearly the largest permitted size, all zeros: a megabyte that becomes 800."""
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
    """Another number at one of some places of the header."""

    def damage(path: Path, rng: Rng) -> None:
        data = bytearray(path.read_bytes())
        start, limit = int(choose(rng, places)), 2 ** (8 * struct.calcsize(size))
        data[start : start + struct.calcsize(size)] = struct.pack(size, int(choose(rng, values)) % limit)
        path.write_bytes(data)

    return damage


def lying_jpeg(path: Path, rng: Rng) -> None:
    """Another height or width, or number of components, in the frame's header."""
    data = bytearray(path.read_bytes())
    start = data.index(b"\xff\xc0") + 5
    if rng.random() < 0.3:
        data[start + 4] = int(choose(rng, (0, 1, 2, 4, 200)))
    else:
        place = start + int(choose(rng, (0, 2)))
        data[place : place + 2] = struct.pack(">H", int(choose(rng, (0, 1, 65_535, 14_000))))
    path.write_bytes(data)


def lying_tiff(path: Path, rng: Rng) -> None:
    """Another type, count or value in one of the directory's entries."""
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
    """Four gigabytes of zeros: as many members of a gzip file, each of 64 MB."""
    header = choose(rng, (b"", path.read_bytes()))
    path.write_bytes(header + gzip.compress(bytes(1 << 26), 9) * 64)


def lying_idx(path: Path, rng: Rng) -> None:
    data = bytearray(gzip.decompress(path.read_bytes()))
    start = int(choose(rng, (0, *range(4, 4 * (data[3] + 1), 4))))
    struct.pack_into(">I", data, start, int(choose(rng, (*SIDES, 0x0D03, 0x0801))) % 2**32)
    path.write_bytes(gzip.compress(bytes(data)))


def lying_record(path: Path, rng: Rng) -> None:
    """Another length of the first record, or numbers of the message within, without or with its checksum."""
    data = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into("<Q", data, 0, int(choose(rng, (0, 1, 2**31, 2**40, 2**63, 100))))
    if rng.random() < 0.5:
        from ssdir.data.tfrecords import masked_crc32c

        struct.pack_into("<I", data, 8, masked_crc32c(bytes(data[:8])))
    path.write_bytes(gzip.compress(bytes(data)))


def flip_inside(path: Path, rng: Rng) -> None:
    """Bits flipped before compression, so that the compressed file's checksum holds."""
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


# Parquet ----------------------------------------------------------------------------------------------------


def in_table(change: Callable[[pa.Table, Rng], pa.Table]) -> Damage:
    def damage(path: Path, rng: Rng) -> None:
        pq.write_table(change(pq.ParquetFile(path).read(), rng), path)

    return damage


def _some_column(table: pa.Table, rng: Rng) -> tuple[int, str]:
    place = int(rng.integers(table.num_columns))
    return place, table.column_names[place]


def null_value(table: pa.Table, rng: Rng) -> pa.Table:
    place, name = _some_column(table, rng)
    values = table[name].to_pylist()
    row = int(rng.integers(len(values)))
    if isinstance(values[row], list) and rng.random() < 0.5:
        values[row][0] = None
    else:
        values[row] = None
    return table.set_column(place, pa.field(name, table[name].type), pa.array(values, table[name].type))


def odd_number(numbers: tuple[Any, ...]) -> Callable[[pa.Table, Rng], pa.Table]:
    """One number of one column is another."""

    def change(table: pa.Table, rng: Rng) -> pa.Table:
        flat = {
            field.name: field.type.value_type if _is_list(field.type) else field.type for field in table.schema
        }
        numeric = [name for name, kind in flat.items() if pa.types.is_floating(kind) or pa.types.is_integer(kind)]
        if numbers[0] != numbers[0]:
            numeric = [name for name in numeric if pa.types.is_floating(flat[name])]
        name = choose(rng, numeric)
        value = choose(rng, numbers)
        if pa.types.is_integer(flat[name]):
            value = int(choose(rng, (2**31 - 1, -1, -(2**31), 10**6)))
        values = table[name].to_pylist()
        row = int(rng.integers(len(values)))
        if isinstance(values[row], list):
            values[row][int(rng.integers(len(values[row])))] = float(value)
        else:
            values[row] = value
        column = pa.array(values, table[name].type)
        return table.set_column(table.column_names.index(name), table.schema.field(name), column)

    return change


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind))


def dropped_column(table: pa.Table, rng: Rng) -> pa.Table:
    return table.drop_columns([_some_column(table, rng)[1]])


def doubled_column(table: pa.Table, rng: Rng) -> pa.Table:
    _, name = _some_column(table, rng)
    return table.append_column(table.schema.field(name), table[name])


def other_type(table: pa.Table, rng: Rng) -> pa.Table:
    place, name = _some_column(table, rng)
    rows = len(table)
    values = choose(
        rng,
        (
            pa.array([str(value) for value in table[name].to_pylist()]),
            pa.array([1.5] * rows),
            pa.array([True] * rows),
            pa.array([[1]] * rows),
            pa.nulls(rows),
            pa.array([{"a": 1}] * rows),
            pa.array([b"\xff\xfe"] * rows),
        ),
    )
    return table.set_column(place, name, values)


def no_rows(table: pa.Table, rng: Rng) -> pa.Table:
    return table.slice(0, 0)


def odd_names(table: pa.Table, rng: Rng) -> pa.Table:
    """A text column whose values are odd names; half surrogates can't be in Parquet."""
    name = choose(rng, [field.name for field in table.schema if pa.types.is_string(field.type)])
    values = choose(rng, ("a\x00b", "\x1b[31m", "a\nb", "../../outside.png", "", "x" * 5000, "\u202eabc"))
    return table.set_column(
        table.column_names.index(name), table.schema.field(name), pa.array([values] * len(table))
    )


def other_metadata(path: Path, rng: Rng) -> None:
    """The JSON that ssdir keeps in the metadata, damaged as documents are; the rest of it stays."""
    table = pq.ParquetFile(path).read()
    known = dict(table.schema.metadata or {})
    own = next((key for key in sorted(known) if key.startswith(b"ssdir")), None)
    if own is None:
        table = table.replace_schema_metadata({b"ssdir": choose(rng, (b"{}", b"\xff", b"null", b'{"format": 1}'))})
    else:
        scratch = path.with_name("metadata.json")
        scratch.write_bytes(known[own])
        document = Document(scratch, as_yaml=False)
        EDITS[choose(rng, sorted(set(EDITS) - {"path outside", "many entries"}))](document, rng)
        document.save()
        table = table.replace_schema_metadata(
            {**known, own: choose(rng, (scratch.read_bytes(),) * 4 + (b"\xff",))}
        )
        scratch.unlink()
    pq.write_table(table, path)


PARQUET: dict[str, Damage] = {
    **BYTES,
    "null value": in_table(null_value),
    "not finite": in_table(odd_number((float("nan"), float("inf"), float("-inf")))),
    "huge number": in_table(odd_number((3e38, -3e38, 1e30, -1.0))),
    "field missing": in_table(dropped_column),
    "field doubled": in_table(doubled_column),
    "type swapped": in_table(other_type),
    "no rows": in_table(no_rows),
    "control characters": in_table(odd_names),
    "lying header": other_metadata,
}


# Models -----------------------------------------------------------------------------------------------------


def lying_safetensors(path: Path, rng: Rng) -> None:
    """The header of the weights with other shapes, types or places; or another length of the header."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    if rng.random() < 0.3:
        path.write_bytes(struct.pack("<Q", int(choose(rng, (0, 1, 2**40, 2**63, length + 8)))) + data[8:])
        return
    name = choose(rng, sorted(set(header) - {"__metadata__"}))
    change = choose(
        rng,
        (
            {"shape": [*header[name]["shape"], 1]},
            {"shape": [10**9, 10**9]},
            {"shape": [-1]},
            {"dtype": "F64"},
            {"dtype": "I32"},
            {"dtype": "XX"},
            {"data_offsets": [0, 2**40]},
            {"data_offsets": [4, 0]},
            {"shape": None},
        ),
    )
    if rng.random() < 0.3:
        header[name + "x"] = header.pop(name)
    else:
        header[name] |= change
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def odd_weights(path: Path, rng: Rng) -> None:
    """A tensor that holds NaN, infinity, or numbers far too large."""
    from safetensors.numpy import load_file, save_file

    weights = load_file(path)
    name = choose(rng, sorted(name for name, value in weights.items() if value.dtype.kind == "f" and value.size))
    weights[name] = weights[name].copy()
    weights[name].reshape(-1)[int(rng.integers(weights[name].size))] = choose(rng, (np.nan, np.inf, 6e4, -6e4))
    save_file(weights, path)


SAFETENSORS: dict[str, Damage] = {**BYTES, "lying header": lying_safetensors, "not finite": odd_weights}


def other_graph(path: Path, rng: Rng) -> None:
    """An ONNX file whose inputs, outputs, weights or metadata are others than ours."""
    import onnx
    from onnx import TensorProto, numpy_helper

    model = onnx.load(path)
    graph = model.graph
    way = choose(rng, ("input", "no output", "output", "metadata", "nan", "loop", "foreign", "huge", "types"))
    if way == "input":
        old = graph.input[0].name
        graph.input[0].name = "other"
        for node in graph.node:
            node.input[:] = ["other" if name == old else name for name in node.input]
    elif way == "no output":
        del graph.output[int(rng.integers(len(graph.output)))]
    elif way == "output":
        del graph.output[1:]
    elif way == "types":
        graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    elif way == "metadata":
        for entry in model.metadata_props:
            entry.value = choose(
                rng, ("{}", "null", "[1", '{"class_names": 3}', "x" * 5000, '"\\ud800"', "{" * 9999)
            )
    elif way == "nan":
        for tensor in graph.initializer:
            if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1:
                values = numpy_helper.to_array(tensor).copy()
                values[...] = choose(rng, (np.nan, np.inf))
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
                break
    else:
        model = _foreign_graph(way, model)
    path.write_bytes(model.SerializeToString())


def _foreign_graph(way: str, ours: Any) -> Any:
    """A graph that keeps our metadata: one that never ends, one of 40 GB, or one of another purpose."""
    from onnx import TensorProto, helper

    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", "height", "width", 3])
    if way == "loop":
        one = helper.make_tensor("one", TensorProto.INT64, [1], [2**62])
        true = helper.make_tensor("true", TensorProto.BOOL, [], [True])
        body = helper.make_graph(
            [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["x"], ["y"])],
            "body",
            [
                helper.make_tensor_value_info("i", TensorProto.INT64, []),
                helper.make_tensor_value_info("go", TensorProto.BOOL, []),
                helper.make_tensor_value_info("x", TensorProto.INT64, [1]),
            ],
            [
                helper.make_tensor_value_info("on", TensorProto.BOOL, []),
                helper.make_tensor_value_info("y", TensorProto.INT64, [1]),
            ],
        )
        nodes = [helper.make_node("Loop", ["", "true", "one"], ["boxes"], body=body)]
        outputs, weights = [helper.make_tensor_value_info("boxes", TensorProto.INT64, [1])], [one, true]
    elif way == "huge":
        shape = helper.make_tensor("shape", TensorProto.INT64, [2], [100_000, 100_000])
        nodes = [helper.make_node("ConstantOfShape", ["shape"], ["boxes"])]
        outputs, weights = [helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [None, None])], [shape]
    else:
        nodes = [helper.make_node("Cast", ["images"], ["boxes"], to=TensorProto.FLOAT)]
        outputs, weights = [helper.make_tensor_value_info("boxes", TensorProto.FLOAT, None)], []
    graph = helper.make_graph(nodes, "other", [images], outputs, weights)
    made = helper.make_model(graph, opset_imports=ours.opset_import)
    made.metadata_props.extend(ours.metadata_props)
    return made


ONNX: dict[str, Damage] = {**BYTES, "lying header": other_graph}


class _Harmful:
    """What runs a harmless command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("touch executed",)


def foreign_checkpoint(path: Path, rng: Rng) -> None:
    """A checkpoint of another program, one of which runs a command when it is unpickled."""
    import torch

    way = choose(rng, ("pickle", "harmful", "tensor", "zip"))
    if way == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": {}}))
    elif way == "harmful":
        torch.save({"state_dict": {}, "x": _Harmful()}, path)
    elif way == "tensor":
        torch.save(torch.zeros(3), path)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")


def in_checkpoint(change: Callable[[dict[str, Any], Rng, Path], None]) -> Damage:
    """Changes the tensors of a checkpoint of ours, and corrects its digest."""

    def damage(path: Path, rng: Rng) -> None:
        from safetensors.numpy import load, save

        raw = path.read_bytes()
        start = raw.index(b"\n") + 1
        tensors = load(raw[start + 32 :])
        change(tensors, rng, path)
        payload = save(tensors)
        path.write_bytes(raw[:start] + hashlib.sha256(payload).digest() + payload)

    return damage


def other_values(tensors: dict[str, Any], rng: Rng, path: Path) -> None:
    """What is no tensor, damaged as documents are."""
    scratch = path.with_name("values.json")
    scratch.write_bytes(tensors["values"].tobytes())
    document = Document(scratch, as_yaml=False)
    EDITS[choose(rng, ("field missing", "field doubled", "type swapped", "huge number", "not finite"))](
        document, rng
    )
    document.save()
    tensors["values"] = np.frombuffer(scratch.read_bytes(), np.uint8).copy()
    scratch.unlink()


def odd_tensors(tensors: dict[str, Any], rng: Rng, path: Path) -> None:
    name = choose(rng, sorted(name for name, value in tensors.items() if value.dtype.kind == "f" and value.size))
    tensors[name] = np.full_like(tensors[name], choose(rng, (np.nan, np.inf)))


CHECKPOINT: dict[str, Damage] = {
    **BYTES,
    "foreign content": foreign_checkpoint,
    "lying header": in_checkpoint(other_values),
    "not finite": in_checkpoint(odd_tensors),
}
