"""What a model makes of one picture: what it finds, draws and is unsure of, as the studio shows it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ssdir.data.images import Image8, image_size, read_image, shrink
from ssdir.errors import InputError
from ssdir.inference.predictor import Predictor
from ssdir.objects import Objects, Scene

MAX_PIXELS = 50_000_000
"""Larger pictures are refused: a browser's tab should not take a gigabyte for one."""

SHOWN_SIDE = 1024
"""Longest side, in pixels, in which pictures are shown; models are given the whole picture."""

NUM_SAMPLES = 8


@dataclass(frozen=True, eq=False)
class Look:
    """One picture, seen by a model.

    Attributes:
        name: of the picture.
        picture: uint8 (H, W, 3), whole.
        image: the same as it is shown, at most `SHOWN_SIDE` a side.
        seen: float (3, S, S) in [0, 1], what the model saw of it.
        objects: by falling score, batch size 1.
        scene: what the model draws for them.
    """

    name: str
    picture: Image8
    image: Image8
    seen: Tensor
    objects: Objects
    scene: Scene

    @property
    def error(self) -> float:
        """Mean squared error of the reconstruction, intensities in [0, 1]."""
        return float((self.scene.reconstructions[0] - self.seen).square().mean())


def look(predictor: Predictor, picture: Image8, name: str) -> Look:
    """Encodes and decodes one picture, uint8 (H, W, 3)."""
    seen = predictor.prepare(picture)
    objects = predictor.encode_batch(seen)
    if objects.scores is not None:
        objects = objects[objects.scores.argsort(descending=True, stable=True)]
    return Look(name, picture, shrink(picture, SHOWN_SIDE), seen[0], objects, predictor.decode(objects))


def open_picture(path: str | Path) -> Image8:
    """Reads a picture that a user handed over.

    Raises:
        InputError: if it is none, or has more than `MAX_PIXELS`; the sentence names the file, not its folder.
    """
    path = Path(path)
    try:
        height, width = image_size(path)
        if height * width > MAX_PIXELS:
            raise InputError(f"'{path}' has {width} x {height} pixels: at most {MAX_PIXELS:,} are taken")
        return read_image(path)
    except InputError as error:
        raise InputError(str(error).replace(str(path), path.name)) from None


def appearance_spread(predictor: Predictor, objects: Objects, seed: int = 0) -> Tensor:
    """How much an object's picture changes when its code is drawn again from the posterior.

    Args:
        predictor: the model.
        objects: M objects, with z_what and, where the model has one, its scale.
        seed: of the draws.

    Returns:
        float (M, S, S), the standard deviation of each pixel over the draws, averaged over the colours; zeros
        where the model has no scale.
    """
    if objects.z_what is None or objects.z_what_scale is None or not len(objects):
        return predictor.decode(objects).appearances.mean(dim=1) * 0
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(NUM_SAMPLES, *objects.z_what.shape, generator=generator)
    draws = [objects.replace(z_what=objects.z_what + objects.z_what_scale * each) for each in noise]
    appearances = predictor.decode(Objects.cat(draws)).appearances
    M, S = len(objects), appearances.shape[-1]
    return appearances.reshape(NUM_SAMPLES, M, -1, S, S).std(dim=0).mean(dim=1)


def depth_ranks(objects: Objects) -> list[int]:
    """Each object's place in its picture from the nearest, 1, to the farthest; batch size 1."""
    if objects.z_depth is None:
        return []
    order = objects.z_depth.argsort(descending=True, stable=True)
    return (order.argsort() + 1).tolist()
