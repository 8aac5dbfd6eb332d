"""Builds Fabric for a recipe: devices, processes and precision of a training; how CPUs round."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.strategies.ddp import DDPStrategy

from ssdir.device import choose_device
from ssdir.errors import InputError
from ssdir.models.detected.model import DetectedConfig
from ssdir.ops.precision import multiplies_bf16
from ssdir.training.recipe import Recipe


def make_fabric(recipe: Recipe, device: str | None = None) -> Fabric:
    """Makes what runs a training on the recipe's devices.

    Args:
        recipe: says how many devices and nodes, and the precision.
        device: see `choose_device`; with a number, such as `cuda:1`, for one device alone.

    Raises:
        InputError: if there is no such device, or it is one while the recipe asks for several.
    """
    for name in ("lightning.fabric", "lightning.pytorch"):  # Fabric logs under whichever was imported last.
        logging.getLogger(name).setLevel(logging.WARNING)
    chosen, processes = choose_device(device), recipe.devices * recipe.nodes
    if processes > 1 and chosen.index is not None:
        raise InputError(f"device '{device}' is one, but the recipe asks for devices={recipe.devices}")
    return Fabric(
        accelerator=chosen.type,
        devices=recipe.devices if chosen.index is None else [chosen.index],
        num_nodes=recipe.nodes,
        # Where a process has no objects, some of its parameters get no gradient.
        strategy=DDPStrategy(find_unused_parameters=True) if processes > 1 else "auto",
        precision=fabric_precision(recipe, chosen),
        plugins=[LightningEnvironment()],  # Whoever started the processes, see `ssdir.training.processes`.
    )


def fabric_precision(recipe: Recipe, device: torch.device) -> Literal["32-true", "bf16-mixed"]:
    """The recipe's precision on a device, by Fabric's name.

    SPACE and SPAIR are always trained in single precision: the likelihoods that they compare are of small standard
    deviations, and so large.
    """
    asked = recipe.precision if isinstance(recipe.model, DetectedConfig) else "single"
    if asked == "auto":
        asked = "bf16" if multiplies_bf16(device.type) else "single"
    return "bf16-mixed" if asked == "bf16" else "32-true"


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Rounds denormal numbers to zero: opacities make many, and CPUs are slow on them; afterwards as before."""
    flushed_before = sys.float_info.min / 2 == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed_before)
