"""Images beside their reconstruction, as a grid in a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ssdir.data.image_files import find_images
from ssdir.data.letterbox import Letterbox
from ssdir.errors import InputError
from ssdir.formatting import counted
from ssdir.inference.files import none_readable, read_image_batches
from ssdir.inference.predictor import as_generative, load
from ssdir.objects import Objects
from ssdir.outputs import atomic_file, claim
from ssdir.plots import reconstruction_grid

GRID_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")

MAX_IMAGES = 64
"""Maximum rows of a grid: more would not be looked at, and not every format holds larger pictures."""


@dataclass(frozen=True)
class ReconstructedFile:
    """The content of a grid of reconstructions.

    Attributes:
        images: number of images.
        given: number of images that were given, of which the former were chosen evenly, or skipped.
        objects: number of their objects.
        skipped: why each image that was skipped couldn't be read, a sentence with its path.
    """

    images: int
    given: int
    objects: int
    skipped: list[str]

    def summary(self) -> str:
        """Returns the numbers, as part of a sentence."""
        chosen = self.images + len(self.skipped) < self.given
        of = f" of {self.given}, evenly chosen" if chosen else ""
        left_out = f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"{counted(self.images, 'image')}{of}, {counted(self.objects, 'object')}{left_out}"


def reconstruct_to_file(
    model: str,
    paths: Sequence[str],
    out: str | Path,
    score_threshold: float | None = None,
    strict: bool = False,
    device: str | None = None,
    force: bool = False,
) -> ReconstructedFile:
    """Writes a grid of images, at most `MAX_IMAGES`, with their boxes, reconstruction and single objects.

    Args:
        model: see `ssdir.load`.
        paths: images, folders and patterns, see `find_images`.
        out: picture to write, with one of `GRID_SUFFIXES`.
        score_threshold: least score of an object; None takes the model's.
        strict: stop at the first unreadable image, instead of skipping it.
        device: where to run; None takes the best there is.
        force: replace an existing file.

    Raises:
        InputError: if the output can't be written, the model has no decoder, or no image can be read.
    """
    claim(out, force, GRID_SUFFIXES)
    found = find_images(paths)
    files = found[:: -(-len(found) // MAX_IMAGES)]
    predictor = load(model, device)
    as_generative(predictor.model)
    how = predictor.image_size, predictor.resize, predictor.batch_size
    batches = list(read_image_batches(files, *how, strict))
    skipped = [image for batch in batches for image in batch.skipped]
    if len(skipped) == len(files):
        raise InputError(none_readable(len(skipped), skipped[0].reason))
    encoded = [
        batch.letterbox.to_image(predictor.encode_pixels(batch.pixels, score_threshold)) for batch in batches
    ]
    objects = Objects.cat(encoded)
    inputs = predictor.prepare(np.concatenate([batch.pixels for batch in batches]))
    images = Letterbox(np.concatenate([batch.letterbox.shares for batch in batches])).unpad(inputs)
    sizes = [size for batch in batches for size in batch.sizes]
    scene = predictor.reconstruct(inputs, objects)
    grid = reconstruction_grid(images, objects, scene, predictor.class_names, sizes=sizes)
    with atomic_file(out, force) as temporary:
        Image.fromarray(grid).save(temporary)
    return ReconstructedFile(len(images), len(found), len(objects), [str(image) for image in skipped])
