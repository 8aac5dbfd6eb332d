"""Glyphs: small pictures of single characters, light ink on black, to scatter over images."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ssdir.data.image_files import images_in
from ssdir.data.images import Image8, open_image, read_image, shrink
from ssdir.data.readers.splits import SPLITS, SplitName, hash_name
from ssdir.data.scatter.shapes import SHAPES, draw_shape, shape_angles
from ssdir.errors import InputError, nearest
from ssdir.formatting import quote

SOURCES = ("digits", "mnist", "shapes")
"""The named sources; any other source is a folder's path."""

INK_THRESHOLD = 26
"""The intensity from which a glyph's pixel is ink: a tenth of full. Fainter pixels are left out."""

# These are the shares of train, val and test.
_DIGITS_SHARES = (0.60, 0.15, 0.25)
_FOLDER_SHARES = (0.70, 0.10, 0.20)
_SHAPES_SHARES = (0.60, 0.15, 0.25)
# The last twelfth of MNIST's 60,000 training digits, 5,000, is for validation.
_MNIST_VAL_DIVISOR = 12
_MAX_DIGIT = 9
# The largest data set in this format, EMNIST, has 547 MB.
_MAX_IDX_BYTES = 600_000_000
_MNIST_FILES = {"train": "train", "test": "t10k"}
# Larger glyph images are reduced at reading: scattered, they'd seldom be larger.
_MAX_GLYPH_SIDE = 256


@dataclass(frozen=True, eq=False)
class Glyphs:
    """Glyphs of one split of a source.

    Attributes:
        images: uint8 (h, w) each, light ink on black; sizes may differ.
        labels: int64 (n,), index into `class_names`.
        class_names: the names of all classes of the source.
        name: the source's name.
        indices: int64 (n,), each glyph's number in the whole source, so no two splits share one.
    """

    images: list[Image8]
    labels: NDArray[np.int64]
    class_names: list[str]
    name: str
    indices: NDArray[np.int64]

    def __post_init__(self) -> None:
        if not len(self.images) == len(self.labels) == len(self.indices):
            raise ValueError(
                f"images, labels and indices must be equally many, "
                f"got {len(self.images)}, {len(self.labels)}, {len(self.indices)}"
            )

    def __len__(self) -> int:
        return len(self.images)


def load_glyphs(source: str, split: SplitName, root: Path | None = None) -> Glyphs:
    """Loads the glyphs of one split.

    Args:
        source: one of
            "digits": scikit-learn's 1,797 handwritten 8×8 digits, split 60/15/25 % in every class;
            "mnist": 70,000 handwritten 28×28 digits; the last 5,000 of the training part are "val";
            "shapes": ellipses, hearts and squares at 40 angles each, split 60/15/25 % by angle;
            a folder with a subfolder of glyph images per class, split 70/10/20 % by a hash of the file
            names. Images with a bright border are taken for dark ink on light paper, and inverted; so is dark
            ink on transparent ground.
        split: "train", "val" or "test"; no glyph is in two of them, and they never change.
        root: for "mnist", the folder with its idx files (plain or .gz), or one or two above it. Without
            it, the files are downloaded once to ~/.cache/ssdir.

    Raises:
        InputError: if the source is unknown, or its files are missing, damaged, too few or without ink.
    """
    if split not in SPLITS:
        raise InputError(f"unknown split '{split}'{nearest(split, SPLITS)}; splits: {', '.join(SPLITS)}")
    loaders: dict[str, Callable[[], Glyphs]] = {
        "digits": lambda: _load_digits(split),
        "mnist": lambda: _load_mnist(split, root),
        "shapes": lambda: _load_shapes(split),
    }
    if source in loaders:
        glyphs = loaders[source]()
    elif Path(source).is_dir():
        glyphs = _load_folder(Path(source), split)
    else:
        raise InputError(
            f"'{source}' is neither a glyph source ({', '.join(SOURCES)}) nor a folder{nearest(source, SOURCES)}"
        )
    if not len(glyphs):
        raise InputError(f"glyph source '{source}' has no glyphs in its '{split}' split: it is too small")
    return glyphs


def sized_ink(glyph: Image8, side: int) -> Image8:
    """Resizes a glyph so that its longer side has `side` pixels, and leaves out what is fainter than ink."""
    height, width = glyph.shape
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    resized = cv2.resize(glyph, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    ink: Image8 = cv2.threshold(resized, INK_THRESHOLD - 1, 0, cv2.THRESH_TOZERO)[1]
    return ink


def fit_to_ink(glyph: Image8) -> Image8:
    """Cuts off the margin of a glyph that has no ink; a glyph without ink stays whole."""
    x, y, width, height = cv2.boundingRect(sized_ink(glyph, max(glyph.shape)))
    return glyph[y : y + height, x : x + width] if width else glyph


def _load_digits(split: SplitName) -> Glyphs:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    labels = np.asarray(bunch.target, dtype=np.int64)
    chosen: list[int] = []
    for label in np.unique(labels):
        chosen += _part([int(i) for i in np.flatnonzero(labels == label)], "digits/{}", _DIGITS_SHARES, split)
    indices = np.array(sorted(chosen), dtype=np.int64)
    images = np.rint(bunch.images[indices] * (255 / 16)).astype(np.uint8)
    return Glyphs(list(images), labels[indices], [str(digit) for digit in range(10)], "digits", indices)


def _load_shapes(split: SplitName) -> Glyphs:
    images: list[Image8] = []
    labels: list[int] = []
    indices: list[int] = []
    for label, shape in enumerate(SHAPES):
        angles = shape_angles(shape)
        for number in sorted(_part([*range(len(angles))], f"shapes/{shape}/{{}}", _SHAPES_SHARES, split)):
            images.append(draw_shape(shape, angles[number]))
            labels.append(label)
            indices.append(label * len(angles) + number)
    return Glyphs(images, np.array(labels), [*SHAPES], "shapes", np.array(indices))


def _part(members: list[int], key: str, shares: tuple[float, float, float], split: SplitName) -> list[int]:
    """Selects a split's share of `members`, shuffled by a hash: the same on every machine and version."""
    shuffled = sorted(members, key=lambda member: _hash(key.format(member)))
    ends = [0, *(round(math.fsum(shares[: i + 1]) * len(shuffled)) for i in range(3))]
    position = SPLITS.index(split)
    return shuffled[ends[position] : ends[position + 1]]


def _hash(text: str) -> int:
    return int.from_bytes(hash_name(text)[:8], "big")


def _load_mnist(split: SplitName, root: Path | None) -> Glyphs:
    if root is None:
        root = _download_mnist()
    part = _MNIST_FILES["test" if split == "test" else "train"]
    images = _read_idx(_find_idx(root, f"{part}-images-idx3-ubyte"), ndim=3)
    labels_file = _find_idx(root, f"{part}-labels-idx1-ubyte")
    labels = _read_idx(labels_file, ndim=1).astype(np.int64)
    if len(labels) and labels.max() > _MAX_DIGIT:
        raise InputError(f"{labels_file}: a label is {labels.max()}, but digits are 0 ... {_MAX_DIGIT}")
    if len(images) != len(labels):
        raise InputError(f"MNIST in '{root}' is damaged: {len(images)} images but {len(labels)} labels")
    indices = np.arange(len(images), dtype=np.int64)
    if split == "test":
        indices_in_source = indices + 60_000
    else:
        first_val = len(images) - len(images) // _MNIST_VAL_DIVISOR
        indices = indices[:first_val] if split == "train" else indices[first_val:]
        indices_in_source = indices
    digits = [str(digit) for digit in range(_MAX_DIGIT + 1)]
    kept = slice(indices[0], indices[-1] + 1) if len(indices) else slice(0)  # A slice is a view, not a copy.
    return Glyphs(list(images[kept]), labels[kept], digits, "mnist", indices_in_source)


def _download_mnist() -> Path:
    cache = Path.home() / ".cache" / "ssdir"
    try:
        from torchvision.datasets import MNIST

        MNIST(str(cache), train=True, download=True)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"MNIST is not in '{cache}' and could not be downloaded ({error}): "
            "pass the folder of its idx files as root"
        ) from None
    return cache


def _find_idx(root: Path, name: str) -> Path:
    for folder in (root, root / "raw", root / "MNIST" / "raw"):
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    raise InputError(
        f"MNIST: no {name}[.gz] in '{root}', its raw/ or its MNIST/raw/: pass the folder of the idx files as root"
    )


def _read_idx(path: Path, ndim: int) -> Image8:
    """Reads an idx file of unsigned bytes: magic 00 00 08 ndim, big-endian int32 sizes, data.

    No more is decompressed than the sizes say, and no more than the limit.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            shape = _idx_shape(file.read(4 * (ndim + 1)), ndim, path)
            data = file.read(math.prod(shape) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not a readable idx file ({error})") from None
    if len(data) != math.prod(shape):
        raise InputError(f"{path}: cut short, or longer than its {' x '.join(map(str, shape))} bytes")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _idx_shape(header: bytes, ndim: int, path: Path) -> list[int]:
    if header[:4] != bytes([0, 0, 8, ndim]) or len(header) < 4 * (ndim + 1):
        raise InputError(f"{path}: not an idx file of bytes with {ndim} dimensions")
    shape = [int.from_bytes(header[start : start + 4], "big") for start in range(4, len(header), 4)]
    fits = all(1 <= side <= _MAX_GLYPH_SIDE for side in shape[1:])
    if not fits or math.prod(shape) > _MAX_IDX_BYTES:
        raise InputError(
            f"{path}: says that it has {' x '.join(map(str, shape))} bytes, but glyphs have sides of "
            f"1 ... {_MAX_GLYPH_SIDE} and together at most {_MAX_IDX_BYTES:,} bytes"
        )
    return shape


def _load_folder(folder: Path, split: SplitName) -> Glyphs:
    subfolders = [path.name for path in folder.iterdir() if path.is_dir()]
    class_names = sorted(name for name in subfolders if not name.startswith("."))
    if not class_names:
        raise InputError(f"glyph folder '{folder}' has no subfolders: each class needs one with images")
    for name in class_names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InputError(
                f"glyph folder '{folder}': the name of its subfolder {quote(name)} is not UTF-8 text: rename it"
            ) from None
    images: list[Image8] = []
    labels: list[int] = []
    indices: list[int] = []
    count = 0
    for label, class_name in enumerate(class_names):
        for path in images_in(folder / class_name):
            if _folder_split(path.relative_to(folder).as_posix()) == split:
                images.append(_read_glyph(path))
                labels.append(label)
                indices.append(count)
            count += 1
    return Glyphs(
        images, np.array(labels, dtype=np.int64), class_names, str(folder), np.array(indices, dtype=np.int64)
    )


def _folder_split(name: str) -> SplitName:
    """Returns the split of a file by its name alone, so that adding files never moves the others."""
    position = _hash(name) / 2**64
    train, val, _ = _FOLDER_SHARES
    return "train" if position < train else "val" if position < train + val else "test"


def _read_glyph(path: Path) -> Image8:
    grey = _grey(read_image(path))
    border = _border(grey)
    with open_image(path) as image:
        has_alpha = image.has_transparency_data and image.mode[0] not in "IF"
        alpha = image.convert("RGBA").getchannel("A") if has_alpha else None
    opacity = np.full_like(grey, 255) if alpha is None else _grey(read_image(alpha))
    glyph: Image8
    if _border(opacity).mean() <= 127 and 2 * grey.sum() < opacity.sum():
        glyph = cv2.subtract(opacity, grey)  # Dark ink on transparent ground, which is read as black.
    else:
        glyph = 255 - grey if border.mean() > 127 else grey
    if glyph.max() < INK_THRESHOLD:
        raise InputError(f"glyph '{path}' has no ink, as all of it is as bright as its border: remove it")
    return glyph


def _grey(image: Image8) -> Image8:
    grey: Image8 = cv2.cvtColor(shrink(image, _MAX_GLYPH_SIDE), cv2.COLOR_RGB2GRAY)
    return grey


def _border(grey: Image8) -> Image8:
    border: Image8 = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    return border
