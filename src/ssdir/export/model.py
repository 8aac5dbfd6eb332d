"""An exported encoder as a model that can be evaluated."""

from __future__ import annotations

import numpy as np
from einops import rearrange
from torch import Tensor

from ssdir.data.letterbox import Resize
from ssdir.export.runtime import OnnxEncoder
from ssdir.objects import Objects


class OnnxModel:
    """An exported encoder with the interface of evaluation: float images in, `Objects` out.

    Args:
        encoder: the exported file.
    """

    def __init__(self, encoder: OnnxEncoder) -> None:
        self.encoder = encoder

    @property
    def image_size(self) -> int:
        """Side of the square images, in pixels."""
        return self.encoder.image_size

    @property
    def resize(self) -> Resize:
        """How images become square."""
        return self.encoder.resize

    @property
    def score_threshold(self) -> float:
        """Minimum score of an object where none is given."""
        return self.encoder.exported.score_threshold

    def encode(self, images: Tensor, score_threshold: float | None = None) -> Objects:
        """Encodes images float (B, 3, H, W) in [0, 1], rounded to 8 bits."""
        pixels = rearrange(images * 255, "b c h w -> b h w c").round().cpu().numpy().astype(np.uint8)
        arrays = self.encoder.encode_pixels(pixels, score_threshold)
        return Objects.from_arrays(arrays, self.encoder.class_names)
