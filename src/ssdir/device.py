"""Choosing the device to run on, and seeding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ssdir.errors import InputError

DEVICES = ("cpu", "cuda", "mps")


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """The device asked for, or else the best there is: CUDA, MPS, CPU.

    Raises:
        InputError: if it isn't there.
    """
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device is None:
        return torch.device(next(name for name, available in found.items() if available))
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise InputError(f"unknown device '{device}': expected one of {', '.join(DEVICES)}") from None
    many = torch.cuda.device_count() if chosen.type == "cuda" else 1
    if not found.get(chosen.type) or (chosen.index or 0) >= many:
        raise InputError(f"device '{device}' is not available here: leave it out, or use cpu")
    return chosen


def device_name(device: torch.device) -> str:
    """What to call a device in a record: a GPU's product, else its type."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draws inside the block depend on `seed` alone, and leave torch's generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
