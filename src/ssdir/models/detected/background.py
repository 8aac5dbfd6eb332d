"""A learned background of scenes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# The optimiser moves a parameter by about its learning rate per step, whatever the gradient: the gain lets a
# background change from grey to black or white within some hundred steps.
_BACKGROUND_GAIN = 8.0


class LearnedBackground(nn.Module):
    """One coarse background image that all scenes share, for a fixed camera or a common mean colour.

    Args:
        cells: side of the background in pixels, before it is enlarged bilinearly.
    """

    def __init__(self, cells: int = 32) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(1, 3, cells, cells))

    def forward(self, batch_size: int, size: tuple[int, int]) -> Tensor:
        """Computes the background float (B, 3, H, W) in [0, 1]."""
        enlarged = F.interpolate(_BACKGROUND_GAIN * self.logits, size=size, mode="bilinear", align_corners=False)
        return enlarged.sigmoid().expand(batch_size, -1, -1, -1)
