"""Muon (Jordan et al. 2024), timm's, on any processor."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from timm.optim import Muon
from timm.optim import muon as timm_muon

from ssdir.ops.precision import multiplies_bf16


class PortableMuon(Muon):  # type: ignore[misc]  # timm has no types
    """timm's Muon, whose steps are made orthogonal in a precision that the processor multiplies in.

    timm always takes bfloat16. A CPU without instructions for it emulates these products, far slower than those in
    single precision, and would spend most of a training on them.
    """

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One step of all parameters."""
        if multiplies_bf16(self.param_groups[0]["params"][0].device.type):
            return super().step(closure)
        # The precision is an argument of the function that makes steps orthogonal, but none that timm passes on.
        orthogonalize = timm_muon.zeropower_via_newtonschulz
        timm_muon.zeropower_via_newtonschulz = functools.partial(orthogonalize, dtype=torch.float32)
        try:
            return super().step(closure)
        finally:
            timm_muon.zeropower_via_newtonschulz = orthogonalize
