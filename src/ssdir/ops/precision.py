"""Precision of operations: which need more than half precision, and which devices support bfloat16."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def at_least_single(tensor: Tensor) -> Tensor:
    """Converts a tensor of half precision (float16, bfloat16) to float32; returns any other as it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def widest(device: torch.device) -> torch.dtype:
    """Returns the most precise dtype of a device: double precision, except on Apple's GPUs."""
    return torch.float32 if device.type == "mps" else torch.float64


@functools.cache
def multiplies_bf16(device_type: str = "cpu") -> bool:
    """Returns whether a device has instructions for bfloat16 products; emulated, these are far slower."""
    if device_type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Torch lists the instructions since 2.10; before, single precision is the safe answer.
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def in_full_precision(operation: Callable[P, R]) -> Callable[P, R]:
    """Disables autocast in an operation, and converts arguments of half precision to single.

    Products with coordinates need it: bfloat16 has 8 bits, which is half a pixel of 128.
    """

    @functools.wraps(operation)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        single: Any = [at_least_single(value) if isinstance(value, Tensor) else value for value in args]
        named: Any = {
            name: at_least_single(value) if isinstance(value, Tensor) else value for name, value in kwargs.items()
        }
        device = tensors[0].device.type
        if device == "meta" or not torch.is_autocast_enabled(device):  # Autocast does not support meta tensors.
            return operation(*single, **named)
        with torch.autocast(device, enabled=False):
            return operation(*single, **named)

    return wrapped
