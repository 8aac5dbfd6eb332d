"""Reading images: whatever a user hands over becomes 8-bit RGB, or one sentence saying why not."""

from __future__ import annotations

import glob
import struct
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from ssdir.data.folders import files_below
from ssdir.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

Image8: TypeAlias = NDArray[np.uint8]
ImageSource: TypeAlias = "str | Path | Image.Image | NDArray[np.generic] | Tensor"

MAX_PIXELS = 200_000_000
"""Larger images are refused: decoding one takes up to about 10 bytes per pixel."""

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)

# What Pillow's decoders raise for damaged files, besides OSError.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error)
_WIDE_MODES = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})
_PIXEL_LIMIT_LOCK = threading.Lock()


def read_image(source: ImageSource, max_side: int | None = None) -> Image8:
    """Reads an image as 8-bit RGB.

    Files and PIL images may be grey, palette, RGB, CMYK, 16-bit (divided by 257) or animated (the first
    frame counts), and are turned upright as their EXIF orientation says. Transparent pixels are composited
    over black, the background of all our data.

    Args:
        source: a file's path; a PIL image; an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8,
            uint16, bool, or floats in [0, 1]; or a tensor (1 | 3 | 4, H, W) of the same.
        max_side: if given, the image is reduced until its longer side is at most this many pixels; JPEGs
            are already decoded at a smaller scale, which saves time and memory.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        InputError: if the file is missing, empty, damaged, no image, or has more than `MAX_PIXELS`, or
            the array's or tensor's shape, dtype or range, or the source itself, is none of the above.
    """
    image = read_channels(source, max_side)
    if image.shape[2] == 3:
        return image
    rgb: Image8 = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    return rgb


def read_channels(source: ImageSource, max_side: int | None = None) -> Image8:
    """Like `read_image`, but grey images stay one channel: uint8 (H, W, 1) or (H, W, 3)."""
    if isinstance(source, np.ndarray):
        image = _shrink(_from_array(source, "array"), max_side)
    elif isinstance(source, Image.Image):
        _check_size(source, "PIL image")
        image = _decode(source, "PIL image", max_side)
    elif isinstance(source, (str, Path)):
        with open_image(source) as opened:
            _decode_smaller(opened, max_side)
            image = _decode(opened, str(source), max_side)
    elif hasattr(source, "detach"):  # A tensor, told without importing torch.
        image = _shrink(_from_tensor(source), max_side)
    else:
        raise InputError(f"an image must be a path, PIL image, array or tensor, got {type(source).__name__}")
    return np.require(image, requirements=["C", "W"])


def resize_nearest(mask: NDArray[np.int64], height: int, width: int) -> NDArray[np.int64]:
    """Resizes (H, W) in the geometry of `resize`: each pixel gets the value at its centre."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64)
        for new, old in zip((height, width), mask.shape, strict=True)
    )
    resized: NDArray[np.int64] = mask[rows[:, None], columns]
    return resized


def image_size(path: str | Path) -> tuple[int, int]:
    """The (height, width) of an upright image file, from its header alone.

    Raises:
        InputError: if the file is missing, or no image.
    """
    with open_image(path) as image:
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)


def image_orientation(path: str | Path) -> int:
    """The EXIF orientation of an image file, 1 ... 8: from 5 on, it is stored on its side.

    Raises:
        InputError: as `image_size`.
    """
    with open_image(path) as image:
        return _orientation(image)


def find_images(paths: Sequence[str | Path]) -> list[Path]:
    """Resolves files, folders and glob patterns to image files, each once, in the order given.

    Folders are searched with their subfolders, sorted, for `IMAGE_SUFFIXES`; so are a pattern's matches.
    Hidden files are skipped. A file that is named itself is taken whatever its suffix.

    Raises:
        InputError: for a path that does not exist, a folder that can't be read or has no images, a pattern
            without matches.
    """
    found: dict[Path, None] = {}
    for given in paths:
        path = Path(given)
        if path.is_file():
            found[path] = None
            continue
        if path.is_dir():
            matches, problem = files_below(path), f"folder '{path}' contains no images"
        elif glob.has_magic(str(given)):
            matches = [Path(match) for match in sorted(glob.glob(str(given), recursive=True))]
            problem = f"no image matches the pattern '{given}'"
        else:
            raise InputError(f"'{given}' does not exist")
        images = only_images(matches)
        if not images:
            raise InputError(f"{problem} (looked for {', '.join(sorted(IMAGE_SUFFIXES))})")
        found.update(dict.fromkeys(images))
    return list(found)


def to_tensor(image: Image8, size: int) -> Tensor:
    """Squashes an image uint8 (H, W, 3) to a square: float (3, size, size) in [0, 1]."""
    import torch

    squashed = resize(image, size, size)
    return torch.from_numpy(squashed).permute(2, 0, 1).contiguous().float().div_(255)


def resize(image: Image8, height: int, width: int) -> Image8:
    """Resizes (H, W, C), averaging along axes that shrink, interpolating linearly along those that grow."""
    old_height, old_width, channels = image.shape
    shrunk = min(height, old_height), min(width, old_width)
    if shrunk != (old_height, old_width):
        image = cv2.resize(image, shrunk[::-1], interpolation=cv2.INTER_AREA)
    if shrunk != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return image.reshape(height, width, channels)


def only_images(paths: Iterable[Path]) -> list[Path]:
    """The image files among some paths, by their names."""
    return [path for path in paths if is_image_name(path) and path.is_file()]


def is_image_name(path: Path) -> bool:
    """Whether a file is called as images are, and is not hidden."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


@contextmanager
def open_image(path: str | Path) -> Iterator[Image.Image]:
    """Opens an image file, undecoded; Pillow's own pixel limit, lower than ours, is lifted for the moment.

    Raises:
        InputError: if it is missing, no image, or has more than `MAX_PIXELS`.
    """
    path = Path(path)
    if not path.is_file():
        problem = "is a folder, not an image" if path.is_dir() else "does not exist"
        raise InputError(f"'{path}' {problem}")
    try:
        with _PIXEL_LIMIT_LOCK, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = Image.open(path)
            finally:
                Image.MAX_IMAGE_PIXELS = limit
    except _DAMAGED as error:
        if isinstance(error, PermissionError):
            raise InputError(f"'{path}' may not be read (permission denied)") from None
        kind = "an image in a known format" if path.stat().st_size else "an image: the file is empty"
        raise InputError(f"'{path}' is not {kind}") from None
    with image:
        _check_size(image, str(path))
        yield image


def _check_size(image: Image.Image, name: str) -> None:
    width, height = image.size
    if min(width, height) == 0:
        raise InputError(f"{name}: the image has no pixels ({width} x {height})")
    if width * height > MAX_PIXELS:
        raise InputError(f"{name}: {width} x {height} is too large an image (limit: {MAX_PIXELS:,} pixels)")


def _decode_smaller(image: Image.Image, max_side: int | None) -> None:
    """Tells a JPEG decoder to skip detail that `max_side` would throw away; other formats ignore it."""
    if max_side is not None and max(image.size) > max_side:
        scale = max_side / max(image.size)
        image.draft(None, (max(1, round(image.width * scale)), max(1, round(image.height * scale))))


def _decode(image: Image.Image, name: str, max_side: int | None) -> Image8:
    orientation = _orientation(image)
    try:
        pixels = _to_uint8(image, name)
    except InputError:
        raise
    except (*_DAMAGED, Image.DecompressionBombError) as error:
        raise InputError(f"{name}: the image is damaged or cut short ({error})") from None
    return _turn(_shrink(pixels, max_side), orientation)


def _to_uint8(image: Image.Image, name: str) -> Image8:
    """Decodes to uint8 (H, W, 1) or (H, W, 3)."""
    if image.mode in _WIDE_MODES:
        wide = np.asarray(image)
        return _from_array(np.clip(wide, 0, 65535).astype(np.uint16), name)
    if image.mode == "F":
        return _from_array(np.asarray(image), name)
    if image.has_transparency_data:
        transparent = image.convert("RGBA")
        image = Image.new("RGB", image.size)
        image.paste(transparent, mask=transparent)
    elif image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))[..., None]
    return np.asarray(image.convert("RGB"))


def _from_tensor(tensor: Tensor) -> Image8:
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3, 4):
        raise InputError(f"tensor: an image must be (1 | 3 | 4, H, W), got {tuple(tensor.shape)}")
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        tensor = tensor.float()
    return _from_array(tensor.permute(1, 2, 0).numpy(), "tensor")


def _from_array(array: NDArray[np.generic], name: str) -> Image8:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise InputError(f"{name}: an image must be (H, W) or (H, W, 1 | 3 | 4) pixels, got {array.shape}")
    pixels = _scale_to_uint8(np.ascontiguousarray(array), name)
    if pixels.shape[2] == 4:
        return _to_uint8(Image.fromarray(pixels), name)
    return pixels


def _scale_to_uint8(array: NDArray[np.generic], name: str) -> Image8:
    if array.dtype == np.uint8:
        return array.astype(np.uint8)
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        scale = 1 / 257
    elif np.issubdtype(array.dtype, np.floating):
        array, scale = array.astype(np.float32), 255.0
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):
            raise InputError(f"{name}: float images must be within [0, 1], got {low:g} ... {high:g}")
    else:
        raise InputError(f"{name}: images must be uint8, uint16, bool or floats in [0, 1], got {array.dtype}")
    scaled: Image8 = cv2.convertScaleAbs(array, alpha=scale)
    return scaled.reshape(array.shape)


def _shrink(image: Image8, max_side: int | None) -> Image8:
    height, width = image.shape[:2]
    if max_side is None or max(height, width) <= max_side:
        return image
    if max_side < 1:
        raise ValueError(f"max_side must be at least 1, got {max_side}")
    scale = max_side / max(height, width)
    return resize(image, max(1, round(height * scale)), max(1, round(width * scale)))


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 ... 8, of an image that is not decoded yet."""
    if image.format == "TIFF":  # Pillow turns these itself.
        return 1
    try:
        if image.format == "PNG":  # `getexif` would decode the pixels.
            exif = Image.Exif()
            exif.load(image.info.get("exif", b""))
        else:
            exif = image.getexif()
        orientation = int(exif.get(ExifTags.Base.Orientation, 1))
    except _DAMAGED:
        return 1
    return orientation if 1 <= orientation <= 8 else 1


def _turn(image: Image8, orientation: int) -> Image8:
    """Turns a stored image upright; orientations 5 ... 8 are transposed first, then mirrored."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    flip_rows = orientation in (3, 4, 7, 8)
    flip_columns = orientation in (2, 3, 6, 7)
    return image[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
