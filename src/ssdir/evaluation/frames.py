"""What a model reads from the frames of clips: detections to track, and the embeddings of the true objects."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ssdir.data.letterbox import Letterbox
from ssdir.evaluation.protocols import Model, PoolsFeatures
from ssdir.models.base import ObjectModel
from ssdir.objects import Objects
from ssdir.tracking.occlusion import visible_shares
from ssdir.tracking.options import Thresholds

_LATENTS = ("z_what", "z_what_scale", "z_depth")


@dataclass(frozen=True, eq=False)
class Frames:
    """The objects of the frames of a split, the images of the batch.

    `visible` is the share that the model's own opacities and depths leave, as in tracking; the true share of an
    object is a field of `Split.targets`.

    Attributes:
        detected: the detections that a tracker takes, down to its least score, with z_what and z_depth.
        given: the T true objects as a tracker takes them, where detections are not measured: without score and
            `track_id`, and if the model embeds given boxes, with its z_what and z_depth.
        pooled: float (T, F), the detector's features in the true boxes; None for models without a detector.
        remembered: float (T, D), z_what of the true boxes as a tracker returns it, with the memory of the earlier
            frames; None for models without a memory.
    """

    detected: Objects
    given: Objects
    pooled: Tensor | None
    remembered: Tensor | None = None


class FrameCollector:
    """Reads batches of frames, and keeps the objects on the host.

    Args:
        model: the model; in evaluation mode.
        thresholds: minimum scores of detections in tracking.
    """

    def __init__(self, model: Model, thresholds: Thresholds) -> None:
        self._model = model
        self._thresholds = thresholds
        self._detected: list[Objects] = []
        self._given: list[Objects] = []
        self._pooled: list[Tensor] = []

    def add(
        self, images: Tensor, detected: Objects, targets: Objects, embedded: Objects | None, letterbox: Letterbox
    ) -> None:
        """Adds a batch of frames, float (B, 3, H, W); boxes are relative to the padded images.

        Args:
            images: the frames.
            detected: the model's detections; those that continue no track are left out.
            targets: the T true objects.
            embedded: the true objects with the model's z_what, row-aligned; None if it embeds no given boxes.
            letterbox: the part of each image that is not padding.
        """
        if isinstance(self._model, PoolsFeatures):
            self._pooled.append(self._model.pooled_features(images, targets).cpu())
        latents = {} if embedded is None else {name: getattr(embedded, name) for name in _LATENTS}
        given = Objects(targets.image_index, targets.batch_size, targets.z_where, labels=targets.labels, **latents)
        if detected.scores is not None:
            detected = detected[detected.scores >= self._thresholds.low]
        self._detected.append(self._seen(letterbox.to_image(detected)))
        self._given.append(self._seen(letterbox.to_image(given)))

    def _seen(self, objects: Objects) -> Objects:
        """Adds the visible shares, on the host."""
        model = self._model if isinstance(self._model, ObjectModel) else None
        shares = visible_shares(objects, model, self._thresholds.confident)
        return objects.detach().to("cpu").replace(visible=shares.cpu(), source_index=None)

    def finish(self) -> Frames:
        """Concatenates the batches."""
        pooled = torch.cat(self._pooled) if self._pooled else None
        return Frames(Objects.cat(self._detected), Objects.cat(self._given), pooled)
