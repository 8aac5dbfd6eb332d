"""Conversion of boxes of the user's own detector or tracker to `Objects` that a model can embed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssdir.errors import InputError
from ssdir.object_arrays import BoxUnit
from ssdir.objects import Objects
from ssdir.ops.boxes import to_cxcywh

if TYPE_CHECKING:
    import supervision

    OneImagesBoxes: TypeAlias = NDArray[Any] | Tensor | supervision.Detections
    GivenBoxes: TypeAlias = Objects | OneImagesBoxes | Sequence[OneImagesBoxes]


def as_objects(boxes: GivenBoxes, sizes: Sequence[tuple[int, int]], unit: BoxUnit | None = None) -> Objects:
    """Converts boxes of some images to objects, row by row, clipped to the image.

    Args:
        boxes: `Objects`; or, for each image, xyxy as an array (n, 4), or `supervision.Detections` (pixels), whose
            confidences, classes and tracks become scores, labels and `track_id` if every image with boxes has
            them. For one image, the list may be left out.
        sizes: (height, width) of each image in pixels, after EXIF orientation.
        unit: unit of arrays; never guessed.

    Raises:
        InputError: if boxes and images don't fit each other, or a box has no area inside its image.
    """
    if isinstance(boxes, Objects):
        if boxes.batch_size != len(sizes):
            raise InputError(f"boxes are of {boxes.batch_size} images, but there are {len(sizes)}")
        return boxes
    each = list(boxes) if isinstance(boxes, (list, tuple)) else [boxes]
    if len(each) != len(sizes):
        raise InputError(f"boxes must be given for each image: got {len(each)} for {len(sizes)} images")
    pairs = enumerate(zip(each, sizes, strict=True))
    return Objects.cat([_of_image(given, size, unit, index) for index, (given, size) in pairs])


def _of_image(given: Any, size: tuple[int, int], unit: BoxUnit | None, image: int) -> Objects:
    extra: dict[str, Any] = {}
    if hasattr(given, "xyxy"):
        if given.confidence is not None:
            extra["scores"] = torch.as_tensor(given.confidence, dtype=torch.float32)
        if given.class_id is not None:
            extra["labels"] = torch.as_tensor(given.class_id, dtype=torch.int64)
        if given.tracker_id is not None:
            # Trackers give -1 to an object that has no track yet.
            extra["track_id"] = torch.as_tensor(given.tracker_id, dtype=torch.int64).clamp(min=0)
        given, unit = given.xyxy, "pixels"
    if unit not in ("pixels", "relative"):
        raise InputError(f"the unit of boxes must be 'pixels' or 'relative', got {unit!r}")
    if isinstance(given, np.ndarray):
        given = np.ascontiguousarray(given)  # torch accepts no reversed views, such as boxes[order][::-1].
    xyxy = torch.as_tensor(given, dtype=torch.float64).detach().cpu()
    if xyxy.numel() == 0:
        xyxy = xyxy.reshape(0, 4)
    if xyxy.ndim != 2 or xyxy.shape[1] != 4:
        raise InputError(f"boxes of image {image} must be (n, 4), xyxy, got {tuple(xyxy.shape)}")
    clipped, inside = clip_boxes(xyxy, size, unit)
    if not inside.all():
        row = int((~inside).nonzero()[0])
        values = ", ".join(f"{value:g}" for value in torch.as_tensor(given)[row].tolist())
        raise InputError(
            f"box {row} of image {image} has no area inside the image ({size[1]}×{size[0]} px): "
            f"expected x1 < x2 and y1 < y2 in {unit}, got ({values})"
        )
    index = torch.zeros(len(xyxy), dtype=torch.int64)
    return Objects(index, 1, to_cxcywh(clipped).float(), **extra)


def clip_boxes(xyxy: Tensor, size: tuple[int, int], unit: BoxUnit) -> tuple[Tensor, Tensor]:
    """Clips boxes to their image: float64 (n, 4), relative to it, and whether each has an area there, bool (n,).

    Args:
        xyxy: corners, in `unit`; boxes that aren't finite have no area.
        size: the image's (height, width), in pixels.
        unit: "pixels" or "relative".
    """
    if unit == "pixels":
        height, width = size
        xyxy = xyxy / xyxy.new_tensor([width, height, width, height])
    clipped = xyxy.clamp(0, 1)
    return clipped, xyxy.isfinite().all(dim=1) & (clipped[:, 2:] > clipped[:, :2]).all(dim=1)
