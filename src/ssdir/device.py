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
    if not available.get(chosen.type):
        absence, best = _absence(chosen.type), choose_device()
        raise InputError(f"device '{device}' is not available: {absence}, or leave it out to use {best}")
    if chosen.type == "cuda" and (chosen.index or 0) >= (count := torch.cuda.device_count()):
        there = "cuda:0" if count == 1 else f"cuda:0 ... cuda:{count - 1}"
        raise InputError(f"device '{device}' is not available: this machine has {there}")
    return torch.device("cpu") if chosen.type == "cpu" else chosen  # There is one, whatever its number.


def _absence(kind: str) -> str:
    """Says why torch can't use a kind of device, and what to do, as a part of a sentence."""
    if kind == "cuda" and torch.version.cuda is None and torch.version.hip is None:
        return "this torch was built for CPUs, so install one for CUDA from pytorch.org"
    if kind == "cuda":
        return "torch finds no GPU, so check the driver with nvidia-smi"
    if kind == "mps":
        return "it needs macOS on Apple silicon"
    return f"use one of {', '.join(DEVICES)}"


def device_name(device: torch.device) -> str:
    """Names a device for a record: a GPU's product name, else its type."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Makes random numbers inside the block depend on `seed` alone; torch's generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
