"""Square crops of images at boxes, the input of networks for whole images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ssdir.data.images import Image8, resize, to_tensor
from ssdir.objects import Objects


def crop_boxes(images: Sequence[Image8], boxes: Objects, side: int) -> Tensor:
    """Cuts out each box, rounded outwards to whole pixels, and stretches it to a square.

    Args:
        images: B photographs, each uint8 (H, W, 3).
        boxes: M objects of these images.
        side: side of the squares, in pixels.

    Returns:
        float (M, 3, side, side) in [0, 1].
    """
    crops = [torch.zeros(0, 3, side, side)]
    for corners, number in zip(boxes.boxes.numpy(), boxes.image_index.tolist(), strict=True):
        image = images[number]
        height, width = image.shape[:2]
        left, top = np.floor(corners[:2] * (width, height) + 1e-3).astype(int).clip(0, (width - 1, height - 1))
        right, bottom = np.ceil(corners[2:] * (width, height) - 1e-3).astype(int).clip((left + 1, top + 1))
        crops.append(to_tensor(resize(image[top:bottom, left:right], side, side))[None])
    return torch.cat(crops)
