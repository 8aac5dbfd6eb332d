"""Whether an image is like those that a model was trained on, by how well its decoded objects look like it.

A model decodes objects like those of its training: of another kind of image, it detects something and decodes it
wrongly. Training stores the error that 99 % of its validation images stay below, and larger ones are reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from ssdir.data.dataset import ObjectDataset
from ssdir.inference.files import chunks, read_image_batches
from ssdir.inference.predictor import Predictor
from ssdir.inference.sources import Images
from ssdir.models.base import GenerativeModel, ObjectModel
from ssdir.objects import Objects, Scene
from ssdir.ops.glimpses import crop_glimpses
from ssdir.ops.precision import widest
from ssdir.storage import Location

FAMILIAR_QUANTILE = 0.99
"""Share of validation images whose error is at most `ObjectModel.familiar_error`."""
UNLIKE_SHARE = 0.25
"""Least share of unlike images from which on a set of images is reported as unlike the training data."""
MAX_VALIDATION_IMAGES = 200
"""Maximum number of validation images that the stored error is measured on."""
CHECKED_FILES = 32
"""Maximum number of files that `check_files` reads, so that it takes little time beside encoding thousands."""
BATCH_SIZE = 32


@dataclass(frozen=True)
class DomainCheck:
    """How well the objects of some images are decoded, beside the model's validation images.

    Attributes:
        errors: float64 (B,), see `image_errors`; NaN for images without objects, which say nothing.
        limit: the model's `familiar_error`.
    """

    errors: NDArray[np.float64]
    limit: float

    @property
    def unlike(self) -> NDArray[np.bool_]:
        """Bool (B,): images whose error is above the limit."""
        return self.errors > self.limit

    def sentence(self, model: str) -> str | None:
        """Says that the images are unlike the training data; None if fewer than `UNLIKE_SHARE` of them are.

        One of several images is too few: of four of the model's own kind, one is above the limit in 4 % of cases.

        Args:
            model: the model's name in the sentence.
        """
        unlike, compared = int(self.unlike.sum()), int(np.isfinite(self.errors).sum())
        if unlike < max(1, min(2, compared), UNLIKE_SHARE * compared):
            return None
        looked_at = f"{unlike} of {compared} images checked are"
        if compared == 1:
            looked_at = "the image is" if len(self.errors) == 1 else "the only image with objects is"
        return (
            f"{looked_at} unlike those that '{model}' was trained on: decoded objects are farther from the image "
            f"than in {FAMILIAR_QUANTILE:.0%} of its validation images, so boxes and embeddings may mean little "
            "(ssdir models lists what each model is for)"
        )


def object_errors(images: Tensor, objects: Objects, scene: Scene) -> Tensor:
    """Mean squared error of each decoded object against the image inside its box, float64 (M,), on the host.

    Args:
        images: float (B, 3, H, W) in [0, 1].
        objects: the M objects that were decoded.
        scene: what the model decoded from them; appearances (M, 3, S, S) are over black.
    """
    glimpses = crop_glimpses(images, objects.boxes, objects.image_index, scene.appearances.shape[-1])
    squares = (scene.appearances - glimpses).square().flatten(1)
    return squares.mean(dim=1, dtype=widest(images.device)).cpu().double()


def image_errors(images: Tensor, objects: Objects, scene: Scene) -> Tensor:
    """Mean of `object_errors` over the objects of each image, float64 (B,); NaN for images without objects."""
    errors = object_errors(images, objects, scene)
    index = objects.image_index.cpu()
    sums = torch.zeros(len(images), dtype=torch.float64).index_add_(0, index, errors)
    return sums / torch.bincount(index, minlength=len(images))


def familiar_error(model: ObjectModel, dataset: ObjectDataset) -> float | None:
    """Measures the error that `FAMILIAR_QUANTILE` of the images of a data set stay below.

    Args:
        model: the trained model, in evaluation mode.
        dataset: images like those of training, on which it was not trained; of these, `validation_indices`.

    Returns:
        None for a model without a decoder, or where no object is detected.
    """
    if not isinstance(model, GenerativeModel):
        return None
    indices = chunks(validation_indices(len(dataset)), BATCH_SIZE)
    errors = _errors(model, (torch.stack([dataset.image(index) for index in chunk]) for chunk in indices))
    measured = errors[np.isfinite(errors)]
    return float(np.quantile(measured, FAMILIAR_QUANTILE)) if len(measured) else None


def validation_indices(number: int) -> list[int]:
    """Indices of the images of a validation split of `number` images on which `familiar_error` is measured."""
    return spread(number, MAX_VALIDATION_IMAGES)


def check_domain(predictor: Predictor, images: Images) -> DomainCheck | None:
    """Compares images with the model's validation images.

    Args:
        predictor: the model.
        images: see `Predictor.encode`.

    Returns:
        None if the model has no decoder, or was stored without the error of its validation images.

    Raises:
        InputError: if an image cannot be read, or there is none.
    """
    return _check(predictor, [predictor.prepare(images)])


def check_files(predictor: Predictor, paths: Sequence[Location]) -> DomainCheck | None:
    """Compares up to `CHECKED_FILES` files, evenly spread, as `check_domain` does; leaves out unreadable ones."""
    chosen = [paths[index] for index in spread(len(paths), CHECKED_FILES)]
    read = read_image_batches(chosen, predictor.image_size, predictor.resize, BATCH_SIZE)
    return _check(predictor, (rearrange(torch.from_numpy(batch.pixels), "b h w c -> b c h w") for batch in read))


def check_decoded(model: ObjectModel, images: Tensor, objects: Objects, scene: Scene) -> DomainCheck | None:
    """Compares images that are decoded already, as `check_domain` does; for the arguments see `image_errors`."""
    if model.familiar_error is None:
        return None
    return DomainCheck(image_errors(images, objects, scene).numpy(), model.familiar_error)


def _check(predictor: Predictor, squares: Iterable[Tensor]) -> DomainCheck | None:
    model = predictor.model
    if not isinstance(model, GenerativeModel) or model.familiar_error is None:
        return None
    return DomainCheck(_errors(model, squares), model.familiar_error)


def spread(number: int, most: int) -> list[int]:
    """Returns at most `most` indices below `number`, evenly spread."""
    return np.unique(np.linspace(0, number - 1, min(number, most)).round().astype(int)).tolist() if number else []


@torch.no_grad()
def _errors(model: GenerativeModel, squares: Iterable[Tensor]) -> NDArray[np.float64]:
    """Encodes and decodes batches of the model's input, uint8 or float (B, 3, side, side), to `image_errors`."""
    errors = []
    for batch in squares:
        images = batch.to(model.device)
        images = images if images.is_floating_point() else images.float() / 255
        objects = model.encode(images)
        errors.append(image_errors(images, objects, model.decode(objects)))
    return torch.cat(errors).numpy() if errors else np.zeros(0)
