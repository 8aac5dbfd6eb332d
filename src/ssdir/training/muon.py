"""Muon (Jordan et al. 2024), with orthogonal steps that take a CPU little of a training's time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.optim import Muon
from timm.optim import muon as timm_muon
from torch import Tensor
from torch.nn import functional as F

BLOCK = 128
"""Most rows, or columns where these are fewer, that are orthogonalised together."""


class BlockMuon(Muon):  # type: ignore[misc]  # timm has no types
    """timm's Muon, which orthogonalises large matrices in blocks, and in single precision.

    timm iterates on whole matrices in bfloat16. A CPU without instructions for it emulates these products; in
    single precision, those of a few wide linear layers take much of a training's time.
    """

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Takes one step of all parameters."""
        # timm calls the function by its name in the module.
        original = timm_muon.zeropower_via_newtonschulz
        timm_muon.zeropower_via_newtonschulz = orthogonalize
        try:
            return super().step(closure)
        finally:
            timm_muon.zeropower_via_newtonschulz = original


def orthogonalize(
    matrix: Tensor, steps: int, coefficients: Sequence[tuple[float, float, float]], eps: float = 1e-7, **_: Any
) -> Tensor:
    """Moves the singular values of a matrix towards 1, in blocks of at most `BLOCK` rows.

    Blocks are those of MuonBP (Khaled et al. 2025), which now and then orthogonalises whole matrices too. Each
    step of the iteration of Newton and Schulz multiplies X from the left with a polynomial of X Xᵀ. All of these
    are functions of the first X Xᵀ, so they are multiplied as small square matrices, and only their product with
    X itself.

    Args:
        matrix: float (m, n); taken by columns where these are fewer than rows.
        steps: steps of the iteration.
        coefficients: those (a, b, c) of the polynomial a + b A + c A² of each step.
        eps: least norm of a block that is scaled to 1.

    Returns:
        float32 (m, n).
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonalize(matrix.mT, steps, coefficients, eps).mT
    m, n = matrix.shape
    num_blocks = -(-m // BLOCK)
    rows = F.pad(matrix.float(), (0, 0, 0, -m % num_blocks)).view(num_blocks, -1, n)
    rows = rows / rows.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    gram: Tensor = rows @ rows.mT
    product: Tensor | None = None
    factor: Tensor | None = None
    for a, b, c in coefficients[:steps]:
        if factor is not None:
            gram = factor @ (gram @ factor)
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        product = factor if product is None else factor @ product
    assert product is not None
    orthogonal: Tensor = (product @ rows).view(-1, n)[:m]
    return orthogonal
