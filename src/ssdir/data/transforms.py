"""Augmentations that move images and boxes together, from torchvision's `transforms.v2`."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any, TypeAlias

import torch
from pydantic import Field
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from ssdir.config import Config
from ssdir.objects import Objects
from ssdir.ops.boxes import to_cxcywh

Augmentation: TypeAlias = Callable[[Tensor, Objects], tuple[Tensor, Objects]]

MIN_BOX_SIDE = 2
"""The least width and height of a box after augmentation, in pixels; smaller objects are dropped."""

_MIN_CROP = 0.3
_MAX_ZOOM_OUT = 2.0
# Torchvision's 40 tries per overlap took most of the time of loading, because small objects can't overlap any crop
# by much, so most overlaps fail every try.
_CROP_TRIALS = 5


class AugmentConfig(Config):
    """The probabilities of the augmentations of SSD's recipe; 0 switches one off.

    Attributes:
        flip: probability of mirroring left and right (which makes other characters of digits).
        photometric: probability of distorting brightness, contrast, saturation and hue.
        zoom_out: probability of placing the image on a black canvas up to twice as wide and high.
        iou_crop: probability of cropping to 0.3 ... 1 of width and height such that some object is kept.
            Objects whose centre is outside are dropped, the others' boxes are clipped. As in SSD's recipe,
            one choice among seven is to leave the image as it is.
    """

    flip: float = Field(default=0.0, ge=0, le=1)
    photometric: float = Field(default=0.0, ge=0, le=1)
    zoom_out: float = Field(default=0.0, ge=0, le=1)
    iou_crop: float = Field(default=0.0, ge=0, le=1)


def build_augmentation(config: AugmentConfig, size: int) -> Augmentation | None:
    """Builds the augmentation; None if there is nothing to do.

    It maps an image uint8 (3, H, W) and its objects (batch size 1) to an image uint8 (3, size, size) and
    the objects that are left, with all their fields. Randomness is torch's.
    """
    if not any((config.flip, config.photometric, config.zoom_out, config.iou_crop)):
        return None
    return _Augmentation(config, size)


class _Augmentation:
    """An augmentation, as a class rather than a closure, so that data loaders can pickle it."""

    def __init__(self, config: AugmentConfig, size: int) -> None:
        self.before_crop: list[Any] = [
            v2.RandomApply([v2.RandomPhotometricDistort()], p=config.photometric),
            v2.RandomZoomOut(fill=0, side_range=(1.0, _MAX_ZOOM_OUT), p=config.zoom_out),
        ]
        self.crop: list[Any] = [
            v2.RandomApply([v2.RandomIoUCrop(min_scale=_MIN_CROP, trials=_CROP_TRIALS)], p=config.iou_crop)
        ]
        self.after_crop: list[Any] = [
            v2.RandomHorizontalFlip(p=config.flip),
            v2.Resize((size, size), antialias=True),
            # Rounding may leave a clipped box 1e-5 outside, and sanitizing would drop it for that.
            v2.ClampBoundingBoxes(),
            v2.SanitizeBoundingBoxes(min_size=MIN_BOX_SIDE, labels_getter=itemgetter("rows")),
        ]
        self.size = size

    def __call__(self, image: Tensor, objects: Objects) -> tuple[Tensor, Objects]:
        height, width = image.shape[-2:]
        # Labels are row numbers, which identify the objects that are left.
        sample: dict[str, Any] = {
            "image": tv_tensors.Image(image),
            "boxes": tv_tensors.BoundingBoxes(
                objects.boxes_px((height, width)), format="XYXY", canvas_size=(height, width)
            ),
            "rows": torch.arange(len(objects)),
        }
        # The crop searches for a place that keeps an object, so it needs one.
        crop = self.crop if len(objects) else []
        for step in (*self.before_crop, *crop, *self.after_crop):
            sample = step(sample)
        boxes = sample["boxes"].as_subclass(torch.Tensor) / self.size
        kept = objects[sample["rows"]].replace(z_where=to_cxcywh(boxes.clamp(0, 1)))
        return sample["image"].as_subclass(torch.Tensor), kept
