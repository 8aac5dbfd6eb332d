"""Weights in a safetensors file, whose header is compared with the model before any are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from ssdir.errors import InputError
from ssdir.formatting import first_line, quote

_FLOATS = ("F16", "BF16", "F32", "F64")
_WHOLE = {torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL"}


def check_header(file: Path, expected: Mapping[str, Tensor], config_file: str) -> None:
    """Compares the names, shapes and types in a file's header with those that a model has.

    Args:
        file: the weights.
        expected: the model's, by name; they may be on the meta device, without memory.
        config_file: name of the file beside it that `expected` follows from.

    Raises:
        InputError: if the file is damaged, or has other tensors.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            stored = {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
    except (SafetensorError, OSError) as error:
        raise _damaged(file, error) from None
    problem = _difference(stored, expected)
    if problem:
        raise InputError(f"'{file}' does not fit '{config_file}' beside it: {problem}")


def load_weights(file: Path) -> dict[str, Tensor]:
    """Reads all tensors of a file.

    Raises:
        InputError: if the file is damaged, or a tensor holds NaN or infinity.
    """
    try:
        weights = load_file(file)
    except (SafetensorError, OSError) as error:
        raise _damaged(file, error) from None
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise InputError(
                f"'{file}' holds NaN or infinity (in tensor {quote(name)}): "
                "its training has diverged, or the file is damaged"
            )
    return weights


def _difference(stored: Mapping[str, tuple[tuple[int, ...], str]], expected: Mapping[str, Tensor]) -> str | None:
    for name, tensor in expected.items():
        if name not in stored:
            return f"tensor '{name}' is missing"
        shape, kind = stored[name]
        if shape != tuple(tensor.shape):
            return f"tensor '{name}' has the shape {quote(shape)}, expected {tuple(tensor.shape)}"
        allowed = _FLOATS if tensor.is_floating_point() else (_WHOLE[tensor.dtype],)
        if kind not in allowed:
            return f"tensor '{name}' is of type {kind}, expected {' or '.join(allowed)}"
    foreign = sorted(stored.keys() - expected.keys())
    return f"tensor {quote(foreign[0])} is not of the model" if foreign else None


def _damaged(file: Path, error: Exception) -> InputError:
    return InputError(f"'{file}' is damaged or not a safetensors file ({first_line(error)})")
