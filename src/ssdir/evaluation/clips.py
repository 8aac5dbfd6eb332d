"""Measures tracking and identity on a split whose images are the frames of clips."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from ssdir.console import Advance
from ssdir.evaluation.collect import Split
from ssdir.evaluation.identity import identity_metrics
from ssdir.evaluation.protocols import HasClips, Model, Remembers
from ssdir.evaluation.tracking import tracking_metrics
from ssdir.objects import Objects
from ssdir.tracking.options import TrackOptions
from ssdir.tracking.tracker import Tracker

_OF_OTHERS = ("/retrieval_at_1", "/drift")
"""The metrics of identity of the embeddings that the model's are compared with."""


@dataclass(frozen=True)
class Clips:
    """Which images of a split are the frames of which clip.

    Attributes:
        ranges: the images of each clip.
        sizes: (height, width) of each image in pixels.
    """

    ranges: tuple[range, ...]
    sizes: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, dataset: object, max_images: int | None = None) -> Self | None:
        """Returns the clips among the first images of a data set, cut where these end; None without clips."""
        if not isinstance(dataset, HasClips) or not dataset.clip_ranges:
            return None
        sizes = [(int(height), int(width)) for height, width in dataset.image_sizes][:max_images]
        ranges = [range(images.start, min(images.stop, len(sizes))) for images in dataset.clip_ranges]
        return cls(tuple(images for images in ranges if images), tuple(sizes))

    def cut(self, objects: Objects) -> list[Objects]:
        """Returns the objects of each clip, whose frames are the images of the batch."""
        parts = []
        for images in self.ranges:
            inside = (objects.image_index >= images.start) & (objects.image_index < images.stop)
            rows = inside.nonzero().squeeze(1)
            parts.append(objects.regrouped(rows, objects.image_index[rows] - images.start, len(images)))
        return parts

    def track(self, tracker: Tracker, objects: Objects, progress: Advance | None = None) -> list[Objects]:
        """Tracks the objects of each clip, frame by frame, each clip anew.

        Args:
            tracker: a tracker.
            objects: the objects of all images, as the tracker takes them.
            progress: called after each clip.

        Returns:
            For each clip, the objects that the tracker gave a track.
        """
        tracked = []
        for images, clip in zip(self.ranges, self.cut(objects), strict=True):
            tracker.reset()
            frames = zip(clip.split(), images, strict=True)
            tracked.append(Objects.cat([tracker.update(frame, self.sizes[image]) for frame, image in frames]))
            if progress is not None:
                progress(len(tracked), len(self.ranges))
        return tracked

    def remember(self, tracker: Tracker, objects: Objects) -> Tensor:
        """Returns z_what (M, D) of objects as the tracker returns it; their own where they got no track."""
        assert objects.z_what is not None
        z_what = objects.z_what.clone()
        for tracked in self.track(tracker, objects.replace(source_index=torch.arange(len(objects)))):
            if len(tracked):
                assert tracked.source_index is not None
                assert tracked.z_what is not None
                z_what[tracked.source_index] = tracked.z_what
        return z_what


def for_true_boxes(options: TrackOptions) -> TrackOptions:
    """Returns the options with which each true box may start a track, unless they have a threshold."""
    return options if options.score_threshold is not None else replace(options, score_threshold=0.0)


def has_memory(model: Model) -> bool:
    """Returns whether a model's embeddings of a track depend on earlier frames."""
    return isinstance(model, Remembers) and model.memory_dim > 0


def with_memory(model: Model, split: Split, clips: Clips | None, options: TrackOptions) -> Split:
    """Adds the embeddings of the true boxes with the memory of earlier frames, for a model that has one.

    The tracker takes the true boxes without their identities, so that its mistakes are in the memory.

    Args:
        model: the model of the split's objects.
        split: what the model returned for the images, with `frames` if there are clips.
        clips: which images are the frames of which clip; None leaves the split as it is.
        options: options of tracking.
    """
    if clips is None or split.frames is None or split.frames.given.z_what is None or not has_memory(model):
        return split
    remembered = clips.remember(Tracker(for_true_boxes(options), model), split.frames.given)
    return replace(split, frames=replace(split.frames, remembered=remembered))


def clip_tracking_metrics(
    model: Model,
    split: Split,
    clips: Clips,
    options: TrackOptions,
    *,
    true_boxes: bool = False,
    progress: Advance | None = None,
) -> dict[str, float]:
    """Measures the tracks that `ssdir track` returns for these clips.

    Args:
        model: the model of the split's objects.
        split: what the model returned for the images, with `frames`.
        clips: which images are the frames of which clip.
        options: options of tracking.
        true_boxes: whether the tracker takes the true boxes, without their identities, in place of detections.
        progress: called after each clip of each tracker.

    Returns:
        `tracking/…`, see `tracking_metrics`; if objects have embeddings, `tracking/motion_only/…`, the same
        without them.

    Raises:
        ValueError: if true objects have no `track_id`.
        InputError: if the `trackers` library is missing.
    """
    assert split.frames is not None
    taken = split.frames.given if true_boxes else split.frames.detected
    options = for_true_boxes(options) if true_boxes else options
    trackers = {"tracking": options}
    if options.appearance and taken.z_what is not None:
        trackers["tracking/motion_only"] = replace(options, appearance=False)
    true, ignored = clips.cut(split.targets), clips.cut(split.ignored)
    metrics: dict[str, float] = {}
    for prefix, each in trackers.items():
        tracked = clips.track(Tracker(each, model), taken, progress)
        metrics |= tracking_metrics(true, tracked, ignored, prefix=prefix)
    return metrics


def clip_identity_metrics(split: Split, clips: Clips) -> dict[str, float]:
    """Measures the identity of embeddings of the true boxes, and of a detector's features in them.

    Args:
        split: what the model returned for the images, with `frames`.
        clips: which images are the frames of which clip.

    Returns:
        `identity/…`, see `identity_metrics`, of what the model returns: with its memory, if it has one. Of others,
        retrieval and drift: without the memory, `identity/single_frame/…`; of the features of the model's
        detector, `identity/pooled_features/…`. Empty if the model embeds no given boxes.
    """
    assert split.frames is not None
    own, remembered = split.frames.given.z_what, split.frames.remembered
    if own is None:
        return {}

    def measured(embeddings: Tensor, prefix: str) -> dict[str, float]:
        return identity_metrics(clips.cut(split.targets.replace(z_what=embeddings)), prefix=prefix)

    metrics = measured(own if remembered is None else remembered, "identity")
    others = {"single_frame": None if remembered is None else own, "pooled_features": split.frames.pooled}
    for name, embeddings in others.items():
        if embeddings is not None:
            values = measured(embeddings, f"identity/{name}")
            metrics |= {key: value for key, value in values.items() if any(part in key for part in _OF_OTHERS)}
    return metrics
