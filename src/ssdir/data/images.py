"""Reads images from any source as 8-bit RGB; raises an `InputError` of one sentence if that fails."""

from __future__ import annotations

import io
import os
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from ssdir.data.frame_names import is_video_name, split_frame_name
from ssdir.data.pixel_budget import DECODING, MAX_PIXELS
from ssdir.errors import InputError, InputWarning
from ssdir.storage import Location, read_bytes, to_location
from ssdir.storage_errors import explaining, is_of_all_files

if TYPE_CHECKING:
    from torch import Tensor

Image8: TypeAlias = NDArray[np.uint8]
T = TypeVar("T", bound=np.generic)
ImageFile: TypeAlias = "str | Path | bytes | BinaryIO"
ImageSource: TypeAlias = "ImageFile | Image.Image | NDArray[np.generic] | Tensor"

_STRIP_PIXELS = 1 << 22
_FEW_BITS = 14
"""The number of bits up to which values of a 16-bit image raise a warning."""

# Pillow's decoders raise all of these for damaged files.
_DAMAGED = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, RuntimeError, AssertionError),
    struct.error,
)
_WIDE_MODES = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})
_MAX_16_BIT = 65535
_PHOTOMETRIC = 262
_PIXEL_LIMIT_LOCK = threading.Lock()


def read_image(source: ImageSource) -> Image8:
    """Reads an image as 8-bit RGB.

    Files and PIL images may be grey, palette, RGB, CMYK, 16-bit (divided by 257) or animated (the first
    frame is read), and their EXIF orientation is applied. Transparent pixels are composited over black, the
    background of the generated scenes. A 16-bit image that uses few of its bits raises an `InputWarning`.

    Args:
        source: a path or URI of a file, or of a video's frame, `clip.mp4#frame=12`; a file's bytes, or the file
            opened in binary mode; a PIL image; an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8,
            uint16, bool, or floats in [0, 1]; or a tensor (1 | 3 | 4, H, W) of the same.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        InputError: if the file is missing, empty, damaged, not an image, or has more than `MAX_PIXELS`; if its
            storage refuses it, see `storage.read_bytes`; or if the source is of another type, or an array or
            tensor of another shape, dtype or range than listed above.
    """
    image = read_channels(source)
    if image.shape[2] == 3:
        return image
    rgb: Image8 = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    return rgb


def read_channels(source: ImageSource) -> Image8:
    """Reads an image as `read_image` does, but grey ones stay one channel: uint8 (H, W, 1) or (H, W, 3)."""
    if isinstance(source, np.ndarray):
        image = _from_array(source, "array")
    elif isinstance(source, Image.Image):
        _check_size(source, "PIL image")
        image = _decode(source, "PIL image")
    elif (frame := split_frame_name(source)) is not None:
        image = _read_frame(*frame)
    elif isinstance(source, (str, Path, bytes)) or not hasattr(source, "ndim"):
        with open_image(source) as opened:
            image = _decode(opened, _name(source))
    else:  # A tensor, recognised without importing torch.
        image = _from_tensor(source)  # type: ignore[arg-type]
    return np.require(image, requirements=["C", "W"])


def resize_nearest(mask: NDArray[T], height: int, width: int) -> NDArray[T]:
    """Resizes a mask (H, W), aligned with `resize`: each pixel gets the value at its centre (nearest)."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64)
        for new, old in zip((height, width), mask.shape, strict=True)
    )
    resized: NDArray[T] = mask[rows[:, None], columns]
    return resized


def image_size(file: ImageFile) -> tuple[int, int]:
    """Returns the (height, width) of an image file with its EXIF orientation applied, from its header alone.

    Raises:
        InputError: if the file is missing, or not an image.
    """
    if (frame := split_frame_name(file)) is not None:
        pixels = _read_frame(*frame)
        return pixels.shape[0], pixels.shape[1]
    with open_image(file) as image:
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)


def image_orientation(path: str | Path) -> int:
    """Returns the EXIF orientation of an image file, 1 ... 8; images with 5 ... 8 are stored on their side.

    Raises:
        InputError: as `image_size`.
    """
    if split_frame_name(path) is not None:  # which is turned as its video asks for
        return 1
    with open_image(path) as image:
        return _orientation(image)


def _read_frame(video: Location, number: int) -> Image8:
    from ssdir.data.video_file import read_frame

    return read_frame(video, number)


def to_tensor(pixels: Image8) -> Tensor:
    """Converts an image uint8 (H, W, C) to float (C, H, W) in [0, 1]."""
    import torch

    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous().float().div_(255)


def shrink(image: Image8, max_side: int) -> Image8:
    """Reduces an image (H, W, C) to at most `max_side` pixels on its longer side, and keeps its proportions."""
    height, width = image.shape[:2]
    scale = max_side / max(height, width)
    return image if scale >= 1 else resize(image, max(1, round(height * scale)), max(1, round(width * scale)))


def resize(image: Image8, height: int, width: int) -> Image8:
    """Resizes an image (H, W, C): averages along axes that shrink, interpolates linearly along axes that grow."""
    old_height, old_width, channels = image.shape
    shrunk = min(height, old_height), min(width, old_width)
    if shrunk != (old_height, old_width):
        image = cv2.resize(image, shrunk[::-1], interpolation=cv2.INTER_AREA)
    if shrunk != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return image.reshape(height, width, channels)


@contextmanager
def open_image(file: ImageFile) -> Iterator[Image.Image]:
    """Opens an image file without decoding it.

    Pillow's own pixel limit is lifted meanwhile, because it is lower than `MAX_PIXELS`.

    Raises:
        InputError: if the file is missing, not an image, or has more than `MAX_PIXELS`.
    """
    name, opened = _name(file), _opened(file)
    try:
        with _PIXEL_LIMIT_LOCK:
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = Image.open(opened)
            finally:
                Image.MAX_IMAGE_PIXELS = limit
    except _DAMAGED as error:
        _raise_if_refused(error, name)
        is_empty = not (opened.stat().st_size if isinstance(opened, Path) else opened.getbuffer().nbytes)
        kind = "an image: the file is empty" if is_empty else "an image in a known format"
        if is_video_name(Path(name)) and not is_empty:
            kind = f"an image but a video, whose objects ssdir track tracks; '{name}#frame=0' is its first frame"
        raise InputError(f"'{name}' is not {kind}") from None
    with closing(image):  # Leaving `with image` would keep the pixels until they are collected.
        _check_size(image, name)
        yield image


def _raise_if_refused(error: Exception, name: str) -> None:
    """Raises an error of the file system as one sentence; others say that the content of the file is at fault."""
    if isinstance(error, (FileNotFoundError, PermissionError)) or is_of_all_files(error):
        with explaining(Path(name)):
            raise error


def _name(file: Any) -> str:
    """Names a file in sentences."""
    if isinstance(file, (str, Path)):
        return str(file)
    return str(getattr(file, "name", "bytes"))


def _opened(file: Any) -> Path | io.BytesIO:
    """Returns what Pillow opens."""
    if isinstance(file, (str, Path)):
        location = to_location(file)
        if isinstance(location, str):
            return io.BytesIO(read_bytes(location))
        if not os.path.isfile(location):  # Path.is_file raises where a name is too long.
            problem = "is a folder, not an image" if os.path.isdir(location) else "does not exist"
            raise InputError(f"'{file}' {problem}")
        return location
    if not isinstance(file, bytes) and not hasattr(file, "read"):
        kinds = "a path, bytes, a binary file, a PIL image, an array or a tensor"
        raise InputError(f"an image must be {kinds}, got {type(file).__name__}")
    content = file.read() if hasattr(file, "read") else file
    if isinstance(content, str):
        raise InputError(f"'{_name(file)}' is open as text: open images in binary mode, 'rb'")
    return io.BytesIO(content)


def _check_size(image: Image.Image, name: str) -> None:
    width, height = image.size
    if min(width, height) == 0:
        raise InputError(f"{name}: the image has no pixels ({width} x {height})")
    if width * height > MAX_PIXELS:
        raise InputError(f"{name}: {width} x {height} is too large an image (limit: {MAX_PIXELS:,} pixels)")


def _decode(image: Image.Image, name: str) -> Image8:
    orientation = _orientation(image)
    # Pillow keeps the upper 8 bits of 16 in colour.
    is_cut = image.mode not in _WIDE_MODES and any(";16" in str(tile) for tile in getattr(image, "tile", ()))
    try:
        with DECODING.of(image.width * image.height):
            image.load()  # This may change the size of a TIFF, because Pillow applies its orientation.
            pixels = _to_uint8(image, name)
            if is_cut and pixels.any():
                _warn_of_few_bits(8 + int(pixels.max()).bit_length(), name)
            return _turn(pixels, orientation)
    except InputError:
        raise
    except (*_DAMAGED, Image.DecompressionBombError) as error:
        _raise_if_refused(error, name)
        raise InputError(f"{name}: the image is damaged or cut short ({error})") from None


def _to_uint8(image: Image.Image, name: str) -> Image8:
    """Decodes to uint8 (H, W, 1) or (H, W, 3)."""
    if image.mode in _WIDE_MODES or image.mode == "F":
        return _from_array(_wide(image, name), name)
    grey = image.mode in ("1", "L") and not image.has_transparency_data
    pixels = np.empty((image.height, image.width, 1 if grey else 3), dtype=np.uint8)
    # The image is converted in strips, so that a large one is not in memory several times.
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        part = image if rows >= image.height else image.crop((0, top, image.width, bottom))
        pixels[top : top + rows] = np.asarray(_over_black(part).convert("L" if grey else "RGB")).reshape(
            -1, image.width, pixels.shape[2]
        )
    return pixels


def _over_black(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    transparent, black = image.convert("RGBA"), Image.new("RGB", image.size)
    black.paste(transparent, mask=transparent)
    return black


def _wide(image: Image.Image, name: str) -> NDArray[np.generic]:
    """Returns the values of a grey image of more than 8 bits: uint16 or float (H, W), larger is brighter."""
    values = np.asarray(image)
    white_is_zero = image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == 0  # type: ignore[attr-defined]
    if image.mode == "F":
        # Pillow inverts only images of 8 bits or less.
        return 1 - values if white_is_zero else values
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > _MAX_16_BIT:
        raise InputError(
            f"{name}: its values reach from {low} to {high}, those of 16 bits from 0 to {_MAX_16_BIT}"
        )
    wide = values.astype(np.uint16)
    return _MAX_16_BIT - wide if white_is_zero else wide


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
        _warn_of_few_bits(int(array.max()).bit_length(), name)
    elif np.issubdtype(array.dtype, np.floating):
        array, scale = array.astype(np.float32), 255.0
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):
            raise InputError(f"{name}: float images must be within [0, 1], got {low:g} ... {high:g}")
    else:
        raise InputError(f"{name}: images must be uint8, uint16, bool or floats in [0, 1], got {array.dtype}")
    scaled: Image8 = cv2.convertScaleAbs(array, alpha=scale)
    return scaled.reshape(array.shape)


def _warn_of_few_bits(bits: int, name: str) -> None:
    """Warns of an image of 16 bits that uses few: microscopes and thermal cameras store 10 to 14 in such files."""
    if 0 < bits <= _FEW_BITS:
        darker = f"{2 ** (16 - bits)} times darker than it may be meant"
        message = f"{name}: uses {bits} of its 16 bits, and so is read {darker}: scale its values"
        warnings.warn(message, InputWarning, stacklevel=3)


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation, 1 ... 8, of an image that is not decoded yet."""
    if image.format == "TIFF":  # Pillow applies the orientation of TIFF files when it decodes them.
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
    """Applies an EXIF orientation to an image as stored; 5 ... 8 are transposed first, then mirrored."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    flip_rows = orientation in (3, 4, 7, 8)
    flip_columns = orientation in (2, 3, 6, 7)
    return image[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
