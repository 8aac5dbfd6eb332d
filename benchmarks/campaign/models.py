"""Damage to models: safetensors, ONNX files and checkpoints whose frame is whole and whose contents are others."""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from campaign.damage import BYTES, Damage, Rng, choose
from campaign.documents import EDITS, Document


def lying_safetensors(path: Path, rng: Rng) -> None:
    """Writes other shapes, types or places into the header of the weights, or another length of the header."""
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
    """Fills a tensor with NaN, infinity, or numbers far too large."""
    from safetensors.numpy import load_file, save_file

    weights = load_file(path)
    name = choose(rng, sorted(name for name, value in weights.items() if value.dtype.kind == "f" and value.size))
    weights[name] = weights[name].copy()
    weights[name].reshape(-1)[int(rng.integers(weights[name].size))] = choose(rng, (np.nan, np.inf, 6e4, -6e4))
    save_file(weights, path)


SAFETENSORS: dict[str, Damage] = {**BYTES, "lying header": lying_safetensors, "not finite": odd_weights}


def other_graph(path: Path, rng: Rng) -> None:
    """Changes inputs, outputs, weights or metadata of an ONNX file."""
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
    """Writes a graph that keeps our metadata: one that never ends, one of 40 GB, or one of another purpose."""
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
    """An object that runs a harmless command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("touch executed",)


def foreign_checkpoint(path: Path, rng: Rng) -> None:
    """Writes a checkpoint of another program, one of which runs a command when it is unpickled."""
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
    """Damages what is no tensor as documents are damaged."""
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
