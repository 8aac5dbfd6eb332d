"""Augmentations that move images and boxes together, from torchvision's `transforms.v2`."""

from __future__ import annotations

import math
from collections.abc import Callable
from operator import itemgetter
from typing import Any, TypeAlias

import torch
from pydantic import Field
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from ssdir.config import Config
from ssdir.data.letterbox import PADDING, Resize, fitted_size
from ssdir.objects import Objects
from ssdir.ops.boxes import to_cxcywh

Augmentation: TypeAlias = Callable[[Tensor, Objects], tuple[Tensor, Objects]]

MIN_BOX_SIDE = 2
"""The least width and height of a box after augmentation, in pixels; smaller objects are dropped."""

_MIN_CROP = 0.3
_MAX_ZOOM_OUT = 2.0
_SCALES = 0.5, 2.0
# With torchvision's 40 trials per overlap, cropping took most of the loading time: small objects can't overlap any
# crop by much, so most overlaps fail every trial.
_CROP_TRIALS = 5


class AugmentConfig(Config):
    """The probabilities of augmentations, of which 0 switches one off, and the stages that they hold for.

    Attributes:
        flip: probability of mirroring left and right (which makes other characters of digits).
        photometric: probability of distorting brightness, contrast, saturation and hue.
        zoom_out: probability of placing the image on a canvas up to twice as wide and high: black, or grey for
            models that letterbox images.
        iou_crop: probability of cropping to 0.3 ... 1 of width and height such that some object is kept.
            Objects whose centre is outside are dropped, the others' boxes are clipped. As in SSD's recipe,
            one choice among seven is to leave the image as it is.
        scale_jitter: probability of changing the size of the whole scene by a factor of 0.5 to 2 (Ghiasi et al.
            2021), log-uniformly: a smaller one is placed on such a canvas, of a larger one a window is kept.
            Objects whose centre is outside are dropped, the others' boxes are clipped.
        representation: augments the representation's stage of a model with a detector, too. The detector still
            runs once, on the images as they are; each epoch moves the detected boxes with their image, and the
            backbone reads the augmented image anew.
    """

    flip: float = Field(default=0.0, ge=0, le=1)
    photometric: float = Field(default=0.0, ge=0, le=1)
    zoom_out: float = Field(default=0.0, ge=0, le=1)
    iou_crop: float = Field(default=0.0, ge=0, le=1)
    scale_jitter: float = Field(default=0.0, ge=0, le=1)
    representation: bool = False

    @property
    def changes_images(self) -> bool:
        """True if any augmentation is on."""
        return any((self.flip, self.photometric, self.zoom_out, self.iou_crop, self.scale_jitter))


def build_augmentation(config: AugmentConfig, size: int, resize: Resize = "stretch") -> Augmentation | None:
    """Builds the augmentation; None if there is nothing to do.

    It maps an image uint8 (3, H, W) and its objects (batch size 1) to an image uint8 (3, size, size), stretched or
    letterboxed, and to the objects that are left, with all their fields. Randomness comes from torch's global
    generator.
    """
    return _Augmentation(config, size, resize) if config.changes_images else None


class _Augmentation:
    """An augmentation, as a class rather than a closure, so that data loaders can pickle it."""

    def __init__(self, config: AugmentConfig, size: int, resize: Resize) -> None:
        fill = 0 if resize == "stretch" else PADDING
        self.before_crop: list[Any] = [
            v2.RandomApply([v2.RandomPhotometricDistort()], p=config.photometric),
            v2.RandomZoomOut(fill=fill, side_range=(1.0, _MAX_ZOOM_OUT), p=config.zoom_out),
        ]
        self.crop: list[Any] = [
            v2.RandomApply([v2.RandomIoUCrop(min_scale=_MIN_CROP, trials=_CROP_TRIALS)], p=config.iou_crop)
        ]
        self.after_crop: list[Any] = [
            v2.RandomApply([_ScaleJitter(_SCALES, fill)], p=config.scale_jitter),
            v2.RandomHorizontalFlip(p=config.flip),
            self._fit,
            # Rounding may leave a clipped box 1e-5 outside, and sanitizing would drop it for that.
            v2.ClampBoundingBoxes(),
            v2.SanitizeBoundingBoxes(min_size=MIN_BOX_SIDE, labels_getter=itemgetter("rows")),
            self._pad,
        ]
        self.size, self.resize = size, resize

    def _fit(self, sample: dict[str, Any]) -> Any:
        return v2.Resize(fitted_size(sample["image"].shape[-2:], self.size, self.resize), antialias=True)(sample)

    def _pad(self, sample: dict[str, Any]) -> Any:
        height, width = sample["image"].shape[-2:]
        return v2.Pad([0, 0, self.size - width, self.size - height], fill=PADDING)(sample)

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


class _ScaleJitter(v2.Transform):  # type: ignore[misc]  # torchvision has no types
    """Rescales a scene and crops or pads it to the image's size at a random place.

    Torchvision's `ScaleJitter` and `RandomCrop` would resample twice, and keep slivers of objects.

    Args:
        scales: the least and the largest factor.
        fill: intensity around a scene that becomes smaller.
    """

    def __init__(self, scales: tuple[float, float], fill: int) -> None:
        super().__init__()
        self.scales, self.fill = scales, fill

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Samples the window, in pixels; if the scene becomes smaller, the window is larger than the image."""
        height, width = v2.functional.get_size(flat_inputs[0])
        low, high = (math.log(scale) for scale in self.scales)
        scale = math.exp(low + (high - low) * torch.rand(()).item())
        sides = round(height / scale), round(width / scale)
        top, left = (
            round((side - window) * torch.rand(()).item())
            for side, window in zip((height, width), sides, strict=True)
        )
        before = max(-left, 0), max(-top, 0)
        after = max(left + sides[1] - width, 0), max(top + sides[0] - height, 0)
        window = {"top": top + before[1], "left": left + before[0], "height": sides[0], "width": sides[1]}
        return {"padding": [*before, *after], "window": {**window, "size": [height, width]}}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Pads, crops, and resizes."""
        window, inpt = params["window"], v2.functional.pad(inpt, params["padding"], fill=self.fill)
        moved = v2.functional.resized_crop(inpt, **window, antialias=True)
        if isinstance(inpt, tv_tensors.BoundingBoxes):
            center = (inpt[:, :2] + inpt[:, 2:]).as_subclass(Tensor) / 2
            start = torch.tensor([window["left"], window["top"]])
            end = start + torch.tensor([window["width"], window["height"]])
            # Boxes without area are dropped at the end.
            moved[~((center >= start) & (center < end)).all(dim=1)] = 0
        return moved
