"""Options of encoding image files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ssdir.errors import InputError
from ssdir.inference.files import Precision, check_threshold
from ssdir.object_arrays import BoxUnit

FEWEST_IMAGES, MOST_IMAGES, USUAL_PARTS = 500, 10_000, 1000
"""Least and largest number of images of a part, and the number of parts that is aimed at between them: parts are
lost whole when a process dies, and each is a file."""


@dataclass(frozen=True)
class EncodeOptions:
    """Options of encoding images.

    Attributes:
        batch_size: images at once.
        score_threshold: least score of an object; None takes the model's.
        strict: stop at the first unreadable image or box without area, instead of skipping it.
        device: where to run; None takes the best there is.
        engine: what runs the model; None takes the one that it is for.
        precision: of the products in encoding; None is single.
        images_per_part: number of images that are written at once; None chooses it by the number of images.
        share: (k, n) encodes the kth, from 1, of n shares of the parts, for n processes that write to one folder.
    """

    batch_size: int = 32
    score_threshold: float | None = None
    strict: bool = False
    device: str | None = None
    engine: Literal["torch", "onnx"] | None = None
    precision: Precision | None = None
    images_per_part: int | None = None
    share: tuple[int, int] = (1, 1)

    def check(self) -> None:
        """Raises InputError for an option out of range."""
        check_threshold(self.score_threshold)
        if self.batch_size < 1:
            raise InputError(f"batch size must be at least 1, got {self.batch_size}")
        if self.images_per_part is not None and self.images_per_part < 1:
            raise InputError(f"a part must have at least 1 image, got {self.images_per_part}")
        if not 1 <= self.share[0] <= self.share[1]:
            raise InputError(f"there is no share {self.share[0]}/{self.share[1]}: the first is 1/{self.share[1]}")

    def part_size(self, images: int) -> int:
        """Returns the number of images of a part, of so many in all."""
        return self.images_per_part or min(max(images // USUAL_PARTS, FEWEST_IMAGES), MOST_IMAGES)


@dataclass(frozen=True)
class BoxFile:
    """A file of boxes to encode, see `read_boxes`.

    Attributes:
        path: COCO `.json`, or a table as `.csv` or `.parquet`.
        annotations: for COCO's results, the COCO file that names their images.
        unit: of the boxes of a table.
    """

    path: Path
    annotations: Path | None = None
    unit: BoxUnit = "pixels"
