"""Checkpoints of a stage: tensors and plain values, written whole, and checked before they are used.

torch's own are pickles, and whoever loads a pickle runs what it says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ssdir.console import refuse_pipe
from ssdir.documents import parse_json
from ssdir.errors import InputError
from ssdir.outputs import atomic_file
from ssdir.training.recipe import NOT_DECIDING, Recipe

_MAGIC = b"ssdir checkpoint 1\n"
_DIGEST = hashlib.sha256
_VALUES = "values"


def run_key(recipe: Recipe, data_hash: str | None, stage: str) -> str:
    """Returns a digest that names the stage of a run that a checkpoint belongs to."""
    settings = recipe.model_dump_json(exclude=NOT_DECIDING, exclude_defaults=True)
    return _DIGEST(f"{settings}\0{data_hash}\0{stage}".encode()).hexdigest()


def write_checkpoint(path: Path, checkpoint: Mapping[str, Any], key: str) -> None:
    """Writes nested dictionaries, lists and tuples of tensors and plain values.

    The file is a header, the SHA-256 of the rest, and the rest in the format of safetensors: tensors by number,
    and under `values` all else as JSON, which refers to tensors.

    Args:
        path: the file, which is replaced.
        checkpoint: the values.
        key: names what it belongs to, see `run_key`.

    Raises:
        TypeError: if a value is neither plain nor a tensor.
        InputError: if the disk is full, or the folder not writable.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps({"key": key, "checkpoint": _pack(checkpoint, tensors)})
    payload = save({**tensors, _VALUES: torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)})
    with atomic_file(path, force=True) as temporary, temporary.open("wb") as file:
        file.write(_MAGIC + _DIGEST(payload).digest())
        file.write(payload)


def read_checkpoint(path: Path, key: str) -> dict[str, Any]:
    """Reads a file that `write_checkpoint` wrote.

    Raises:
        InputError: if the file is cut, damaged, of another run, or no such checkpoint.
    """
    try:
        refuse_pipe(path)
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"'{path}' can't be read ({(error.strerror or str(error)).lower()})") from None
    advice = f"delete the folder '{path.parent.parent}' to train this stage anew with --resume"
    if not raw.startswith(_MAGIC):
        raise InputError(f"'{path}' is not a checkpoint that this version of ssdir wrote: {advice}")
    start = len(_MAGIC) + _DIGEST().digest_size
    payload = raw[start:]
    if _DIGEST(payload).digest() != raw[len(_MAGIC) : start]:
        raise InputError(f"'{path}' is cut short or damaged: {advice}")
    try:
        tensors = load(payload)
        values = parse_json(tensors[_VALUES].numpy().tobytes(), f"'{path}'")
        if values["key"] != key:
            raise InputError(f"'{path}' is a checkpoint of another run: {advice}")
        checkpoint: dict[str, Any] = _unpack(values["checkpoint"], tensors)
    except (SafetensorError, KeyError, TypeError) as error:
        raise InputError(f"'{path}' is damaged ({error}): {advice}") from None
    return checkpoint


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Turns values into JSON's; dictionaries, whose keys may be numbers, tuples and tensors are marked."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous().clone()  # safetensors refuses memory that is shared
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"items": [[key, _pack(item, tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        items = [_pack(item, tensors) for item in value]
        return {"tuple": items} if isinstance(value, tuple) else items
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a checkpoint holds tensors and plain values, got a {type(value).__name__}")


def _unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "tuple" in value:
        return tuple(_unpack(item, tensors) for item in value["tuple"])
    return {key: _unpack(item, tensors) for key, item in value["items"]}
