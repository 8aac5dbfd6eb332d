"""Scenes of decoded objects that have opacity, over a background."""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor

from ssdir.objects import Scene
from ssdir.ops.compositing import composite_alpha

Place: TypeAlias = tuple[Tensor, Tensor, Tensor, list[int], tuple[int, int]]
"""Boxes, depths, images of the objects, objects of each image and (H, W), as `composite_alpha` takes them."""


def composite_scene(appearances: Tensor, alpha: Tensor, place: Place, background: Tensor | None) -> Scene:
    """Composites decoded objects over a background float (B, 3, H, W), or over black; see `composite_alpha`."""
    reconstructions, coverage = composite_alpha(appearances, alpha, *place)
    if background is not None:
        reconstructions = reconstructions + (1 - coverage) * background
    return Scene(reconstructions, appearances, alpha, background)
