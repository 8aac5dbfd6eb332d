"""Resizes an image of any shape to the model's square input, and converts boxes between the two.

Images are stretched or letterboxed. A letterboxed image keeps its proportions and lies at the top left of the
square; the rest of the square is grey. Boxes relative to the square are therefore boxes relative to the image,
multiplied by the shares of the square's width and height that the image covers. Exported graphs compute the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from ssdir.data.images import Image8, ImageSource, read_image, resize
from ssdir.data.pixel_budget import DECODING

if TYPE_CHECKING:
    from torch import Tensor

    from ssdir.object_arrays import ObjectArrays
    from ssdir.objects import Objects

Resize: TypeAlias = Literal["stretch", "letterbox"]
ObjectsT = TypeVar("ObjectsT", bound="Objects | ObjectArrays")

PADDING = 128
"""Grey of the padding, in 8 bits: networks normalise intensities by a mean near it, so it becomes nearly zero."""


def fitted_size(size: tuple[int, int], side: int, how: Resize) -> tuple[int, int]:
    """Returns the (height, width), in pixels, of the part of a square that a resized image covers.

    Args:
        size: height and width of the image, in pixels.
        side: side of the square, in pixels.
        how: whether images are stretched or letterboxed.
    """
    if how == "stretch":
        return side, side
    longer = max(size)
    # Halves are rounded up, in integers, as in an exported graph.
    height, width = (max(1, (2 * length * side + longer) // (2 * longer)) for length in size)
    return height, width


def fit_image(image: Image8, side: int, how: Resize) -> Image8:
    """Resizes an image uint8 (H, W, C) to its part of a square of `side` pixels, without padding."""
    return resize(image, *fitted_size((image.shape[0], image.shape[1]), side, how))


def pad_image(image: Image8, side: int) -> Image8:
    """Pads an image uint8 (h, w, C) at its right and bottom to a square of `side` pixels."""
    height, width, channels = image.shape
    if (height, width) == (side, side):
        return image
    square = np.full((side, side, channels), PADDING, dtype=np.uint8)
    square[:height, :width] = image
    return square


def read_square(source: ImageSource, side: int, how: Resize = "stretch") -> tuple[tuple[int, int], Image8]:
    """Reads an image and resizes it to the square input of a model.

    Args:
        source: see `read_image`.
        side: side of the square, in pixels.
        how: whether images are stretched or letterboxed.

    Returns:
        The (height, width) of the image as shown, in pixels, and uint8 (side, side, 3), RGB.

    Raises:
        InputError: as `read_image`.
    """
    with DECODING.until_the_end():
        image = read_image(source)
        return (image.shape[0], image.shape[1]), pad_image(fit_image(image, side, how), side)


@dataclass(frozen=True, eq=False)
class Letterbox:
    """The part of the square model input that each image of a batch covers, from the top left on.

    The rest of the square is padding.
    The methods take `Objects` or `ObjectArrays`. If all images fill their squares, they return objects unchanged.

    Attributes:
        shares: float64 (B, 2), the shares of the square's width and height that each image covers, in (0, 1].
    """

    shares: NDArray[np.float64]

    @classmethod
    def of(cls, sizes: Sequence[tuple[int, int]] | NDArray[np.int64], side: int, how: Resize) -> Self:
        """Makes the letterbox of images that are resized to a square.

        Args:
            sizes: height and width of each of the B images, in pixels.
            side: side of the square, in pixels.
            how: whether images are stretched or letterboxed.
        """
        if how == "stretch":
            return cls(np.ones((len(sizes), 2)))
        fitted = [fitted_size((int(height), int(width)), side, how) for height, width in sizes]
        return cls(np.array(fitted, dtype=np.float64).reshape(-1, 2)[:, ::-1] / side)

    @cached_property
    def is_full(self) -> bool:
        """Whether all images fill their squares."""
        return bool((self.shares == 1).all())

    def to_square(self, objects: ObjectsT) -> ObjectsT:
        """Converts boxes relative to their image to boxes relative to the square."""
        return objects if self.is_full else replace(objects, z_where=objects.z_where * self._scale(objects))

    def to_image(self, objects: ObjectsT) -> ObjectsT:
        """Converts boxes relative to the square to boxes relative to the image.

        Objects outside the image are left out (see `inside`), and boxes are clipped to the image.
        """
        if self.is_full:
            return objects
        objects = self.inside(objects)
        z_where: Any = objects.z_where / self._scale(objects)
        low, high = ((z_where[:, :2] + sign * z_where[:, 2:] / 2).clip(0, 1) for sign in (-1, 1))
        z_where[:, :2], z_where[:, 2:] = (low + high) / 2, high - low
        return replace(objects, z_where=z_where)

    def inside(self, objects: ObjectsT) -> ObjectsT:
        """Leaves out objects whose centre lies in the padding; boxes are relative to the square."""
        if self.is_full:
            return objects
        center, end = objects.z_where[:, :2], self._scale(objects)[:, :2]
        chosen: Any = objects[(center[:, 0] < end[:, 0]) & (center[:, 1] < end[:, 1])]
        return chosen  # type: ignore[no-any-return]  # of the objects' own type

    def unpad(self, images: Tensor) -> Tensor:
        """Cuts the padding off images float (B, C, S, S), and stretches the rest to the whole square."""
        if self.is_full:
            return images
        import torch
        from torch.nn.functional import interpolate

        side = images.shape[-1]
        ends = (self.shares * side).round().astype(int).tolist()
        parts = [image[None, :, :bottom, :right] for image, (right, bottom) in zip(images, ends, strict=True)]
        return torch.cat([interpolate(part, (side, side), mode="bilinear", antialias=True) for part in parts])

    def _scale(self, objects: Objects | ObjectArrays) -> Any:
        """Returns the factors (M, 4) from boxes relative to an image to boxes relative to its square.

        They are a tensor or an array, as the objects are.
        """
        if objects.batch_size != len(self.shares):
            raise ValueError(f"objects must be of {len(self.shares)} images, got {objects.batch_size}")
        factors = np.tile(self.shares, 2).astype(np.float32)
        if isinstance(objects.z_where, np.ndarray):
            return factors[objects.image_index]
        return objects.z_where.new_tensor(factors)[objects.image_index]
