"""Choosing the device to run on, and seeding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ssdir.errors import InputError

DEVICES = ("cpu", "cuda", "mps")


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """Returns the requested device, or the best available: CUDA, MPS, CPU.

    Raises:
        InputError: if it is not available.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device is None:
        return torch.device(next(name for name, is_there in available.items() if is_there))
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise InputError(f"unknown device '{device}': expected one of {', '.join(DEVICES)}") from None
    count = torch.cuda.device_count() if chosen.type == "cuda" else 1
    if not available.get(chosen.type) or (chosen.index or 0) >= count:
        raise InputError(f"device '{device}' is not available here: leave it out, or use cpu")
    return chosen


def device_name(device: torch.device) -> str:
    """Names a device for a record: a GPU's product name, else its type."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Makes random numbers inside the block depend on `seed` alone; torch's generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
