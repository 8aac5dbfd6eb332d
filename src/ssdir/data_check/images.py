"""Decodes every image file once, and reports those that can't be used, and duplicates."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from ssdir.data.annotations import AnnotationTable, same_shape
from ssdir.data.images import image_orientation, read_channels
from ssdir.data.learnable import Problem
from ssdir.data.orientation import is_ambiguous
from ssdir.errors import InputError

NEARLY_BLACK = 16

MOST_FLAT = 0.5
"""The largest median share of flat places in photographs: it is 0.06 to 0.14 in COCO, Pascal VOC and WIDER FACE,
0.58 in CLEVR's rendered scenes, and 0.67 in scattered digits."""

_THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class ScannedImage:
    """The result of decoding an image.

    Attributes:
        size: height and width in pixels, as shown; None if it can't be read.
        content: hash of the pixels, which copies in other formats share.
        orientation: EXIF orientation, 1 ... 8; the size is that of the image turned by it.
        black: share of its pixels that are black, or nearly.
        flat: share of its pixels that equal their right neighbour: noise and texture leave few in a photograph.
        error: why it can't be read.
    """

    size: tuple[int, int] | None = None
    content: str | None = None
    orientation: int = 1
    black: float = 0.0
    flat: float = 0.0
    error: str | None = None


def scan_images(paths: Sequence[Path], progress: Callable[[int, int], None] | None = None) -> list[ScannedImage]:
    """Decodes every image, one after the other on each of a few threads.

    Args:
        paths: the image files.
        progress: called with the number of images done, and of all.
    """
    scanned = []
    executor = ThreadPoolExecutor(_THREADS)
    try:
        for image in executor.map(_scan, paths):
            scanned.append(image)
            if progress is not None:
                progress(len(scanned), len(paths))
    finally:
        executor.shutdown(cancel_futures=True)
    return scanned


def mostly_black(images: Sequence[ScannedImage]) -> bool:
    """Returns True if most images are mostly black, or nearly."""
    return median(image.black for image in images) > 0.5


def are_photographs(images: Sequence[ScannedImage]) -> bool:
    """Returns True if most images look like photographs rather than drawings or renderings."""
    return not mostly_black(images) and median(image.flat for image in images) < MOST_FLAT


def check_images(table: AnnotationTable, scanned: list[ScannedImage]) -> list[Problem]:
    """Finds images that are missing, damaged, of another size than annotated, turned, or duplicates."""
    found: dict[str, list[str]] = defaultdict(list)
    first: dict[str, str] = {}
    for i, (name, path, image) in enumerate(zip(table.image_names, table.image_paths, scanned, strict=True)):
        if image.size is None or image.content is None:
            if os.path.exists(path):  # Path.exists raises where a name is too long.
                found["damaged_images"].append(str(image.error).replace(str(path), name))
            else:
                found["missing_images"].append(name)
            continue
        height, width = (int(side) for side in table.image_sizes[i])
        if image.size != (height, width):
            kind = "rescaled_images" if same_shape(image.size, (height, width)) else "images_of_other_shape"
            found[kind].append(f"{name}: {image.size[1]} x {image.size[0]}, annotated as {width} x {height}")
        decided = not table.sizes_from_files and not is_ambiguous(image.size, image.orientation)
        if image.orientation != 1 and not decided:
            found["turned_images"].append(f"{name}: EXIF orientation {image.orientation}")
        if image.content in first:
            found["duplicate_images"].append(f"{name}: the same as {first[image.content]}")
        first.setdefault(image.content, name)
    kinds = {
        "missing_images": (True, "images that are missing"),
        "damaged_images": (True, "images that can't be read"),
        "images_of_other_shape": (True, "images of other proportions than annotated"),
        "rescaled_images": (False, "images of another size than annotated (boxes are scaled)"),
        "turned_images": (
            False,
            "images turned by EXIF, without a size that decides what boxes refer to (taken: as shown)",
        ),
        "duplicate_images": (False, "images that are there already (kept)"),
    }
    return [
        Problem(kind, stops, sentence, tuple(found[kind]))
        for kind, (stops, sentence) in kinds.items()
        if kind in found
    ]


def _scan(path: Path) -> ScannedImage:
    try:
        pixels, orientation = read_channels(path), image_orientation(path)
    except InputError as error:
        return ScannedImage(error=str(error))
    digest = hashlib.blake2b(str(pixels.shape).encode(), digest_size=16)
    digest.update(pixels.data)
    black = float((pixels.max(axis=2) <= NEARLY_BLACK).mean())
    flat = float((pixels[:, 1:] == pixels[:, :-1]).all(axis=2).mean()) if pixels.shape[1] > 1 else 0.0
    return ScannedImage((pixels.shape[0], pixels.shape[1]), digest.hexdigest(), orientation, black, flat)
