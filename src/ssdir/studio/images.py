"""The studio's images: samples, uploads, and what a model detects and reconstructs in one image."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from ssdir.data.image_files import images_in
from ssdir.data.images import Image8, image_size, read_image, shrink
from ssdir.data.samples import NamedImage, sample_images, sample_photographs
from ssdir.errors import InputError, InputWarning
from ssdir.formatting import counted
from ssdir.inference.domain import DomainCheck, check_decoded
from ssdir.inference.predictor import Predictor
from ssdir.models.backbones.timm_net import knows_photographs
from ssdir.objects import Objects, Scene
from ssdir.storage import Location

MAX_UPLOAD_PIXELS = 50_000_000
"""Larger uploads are refused: a single browser tab should not take a gigabyte of memory."""

SHOWN_SIDE = 1024
"""Maximum side, in pixels, at which images are shown; the model gets the whole image, which is not kept."""


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """An image, its objects and their reconstruction.

    Attributes:
        named: the image.
        size: its (height, width) in pixels.
        shown: the image, reduced to at most `SHOWN_SIDE` a side.
        square: float (3, S, S) in [0, 1], the image stretched, as `scene` reconstructs it.
        objects: the detected objects by falling score, batch size 1.
        scene: the reconstruction, over the background for models that infer one.
        domain: whether the image is like the model's training data; None where the model doesn't know.
    """

    named: NamedImage
    size: tuple[int, int]
    shown: Image8
    square: Tensor
    objects: Objects
    scene: Scene
    domain: DomainCheck | None

    @property
    def name(self) -> str:
        """Name of the image."""
        return self.named.name

    @property
    def error(self) -> float:
        """Mean squared error of the reconstruction, intensities in [0, 1]."""
        return float((self.scene.reconstructions[0] - self.square).square().mean())


@dataclass(frozen=True)
class Samples:
    """Images to start with, and a sentence that says where they come from."""

    images: Sequence[NamedImage]
    about: str


def samples_for(predictor: Predictor, name: str, count: int) -> Samples:
    """Chooses samples that a model may know: photographs for timm's networks, digits for others.

    Args:
        predictor: the model.
        name: its name, as `ssdir.load` takes it.
        count: number of images.
    """
    if knows_photographs(predictor.model.config):
        about = "The images above come with scikit-learn and matplotlib."
        if name == "photos":
            about += " The model's embeddings are made for search: they decode to grey blurs."
        return Samples(sample_photographs(count), about)
    if name == "tiny-digits":
        return Samples(sample_images(count), "The images above have digits that it never saw in training.")
    about = (
        "The images above are scattered digits of scikit-learn, which need not look like its training images: "
        "drop one of those, or show a folder of them with --images."
    )
    return Samples(sample_images(count), about)


def samples_of_folder(folder: Path, count: int) -> Samples:
    """Reads images of a folder, evenly spaced in the order of their names; their names begin at the folder.

    Images that can't be read are left out, with an `InputWarning`.

    Raises:
        InputError: as `find_images`, and if none of the images can be read.
    """
    files = images_in(folder)
    chosen = np.unique(np.linspace(0, len(files) - 1, count).astype(int)).tolist()
    images, unreadable = list[NamedImage](), list[str]()
    for file in (files[row] for row in chosen):
        try:
            images.append(read_shown(file, str(file.relative_to(folder))))
        except InputError as error:
            unreadable.append(str(error))
    if not images:
        raise InputError(f"none of the images in '{folder}' can be read; the first: {unreadable[0]}")
    if unreadable:
        skipped = f"{counted(len(unreadable), 'image')} of '{folder}' skipped"
        warnings.warn(f"{skipped}; the first: {unreadable[0]}", InputWarning, stacklevel=2)
    return Samples(images, f"The images above are from {folder}.")


def read_shown(file: Location, name: str) -> NamedImage:
    """Reads an image to be shown, at most `SHOWN_SIDE` a side.

    Raises:
        InputError: as `read_image`.
    """
    return NamedImage(name, shrink(read_image(file), SHOWN_SIDE), file)


def read_upload(path: str | Path) -> NamedImage:
    """Reads an uploaded image.

    Raises:
        InputError: if the file is no image, or has more than `MAX_UPLOAD_PIXELS`. It doesn't name the folder.
    """
    path = Path(path)
    try:
        height, width = image_size(path)
        if height * width > MAX_UPLOAD_PIXELS:
            raise InputError(f"'{path}' has {width} x {height} pixels: the limit is {MAX_UPLOAD_PIXELS:,}")
        return read_shown(path, path.name)
    except InputError as error:
        raise InputError(str(error).replace(str(path), path.name)) from None


def encode_image(predictor: Predictor, named: NamedImage) -> EncodedImage:
    """Encodes and decodes an image.

    Raises:
        InputError: if its file can't be read.
    """
    image = read_image(named.source)
    objects = predictor.encode(image)
    if objects.scores is not None:
        objects = objects[objects.scores.argsort(descending=True, stable=True)]
    squares = predictor.prepare(image, "stretch")
    scene = predictor.reconstruct(squares, objects)
    domain = check_decoded(predictor.model, squares, objects, predictor.decode(objects))
    height, width = image.shape[:2]
    shown = shrink(named.image, SHOWN_SIDE)
    return EncodedImage(named, (height, width), shown, squares[0], objects, scene, domain)


def depth_ranks(objects: Objects) -> list[int]:
    """Returns each object's rank in its image, from the nearest, 1, to the farthest; batch size 1."""
    if objects.z_depth is None:
        return []
    order = objects.z_depth.argsort(descending=True, stable=True)
    return (order.argsort() + 1).tolist()
