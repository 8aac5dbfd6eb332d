"""Images of a data set beside their reconstruction, as a grid."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ssdir.data.dataset import ObjectDataset, collate
from ssdir.data.images import Image8
from ssdir.models.base import GenerativeModel
from ssdir.plots import reconstruction_grid


@torch.no_grad()
def sample_grid(model: GenerativeModel, dataset: ObjectDataset, indices: Sequence[int], cell: int = 160) -> Image8:
    """Shows images, what a model detects in them, and what it reconstructs, in the proportions of the images.

    Args:
        model: a model in evaluation mode, which runs where its parameters are.
        dataset: without transform, with images of the model's size.
        indices: numbers of the images.
        cell: see `reconstruction_grid`.
    """
    images, _ = collate([dataset[index] for index in indices])
    letterbox = dataset.letterbox(indices)
    pixels = images.to(model.device)
    objects = letterbox.to_image(model.encode(pixels))
    scene = model.reconstruct(pixels, objects).to("cpu")
    sizes = [(height, width) for height, width in dataset.image_sizes[list(indices)].tolist()]
    return reconstruction_grid(
        letterbox.unpad(images), objects.to("cpu"), scene, model.class_names, cell=cell, sizes=sizes
    )
