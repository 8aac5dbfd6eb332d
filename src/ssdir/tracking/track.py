"""Tracking of a clip: detect and embed frames in batches, then associate frame by frame, in bounded memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from einops import rearrange

from ssdir.console import Advance, no_progress
from ssdir.data.video import Frame, FrameSource, open_frames
from ssdir.encoding.options import BoxFile
from ssdir.errors import InputError, InputWarning
from ssdir.formatting import counted
from ssdir.identity import Identity
from ssdir.inference.domain import check_decoded
from ssdir.inference.engines import load_encoder
from ssdir.inference.files import Encoder, map_ahead
from ssdir.inference.predictor import Predictor
from ssdir.models.base import GenerativeModel
from ssdir.models.shipped import model_source
from ssdir.objects import Objects
from ssdir.tracking.clip_boxes import ClipBoxes
from ssdir.tracking.frames import FrameBatch, TrackedFrame, frame_batches
from ssdir.tracking.occlusion import visible_shares
from ssdir.tracking.options import TrackOptions
from ssdir.tracking.output import TrackFiles, TrackWriters
from ssdir.tracking.tracker import HasThreshold, Tracker

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_SIZE = 16
"""Frames that are encoded at once, unless another number is asked for."""


@dataclass(frozen=True)
class Tracked:
    """The outcome of tracking a clip.

    Attributes:
        frames: number of frames that could be read.
        objects: number of their objects that have a track.
        tracks: number of tracks.
        skipped_boxes: number of given boxes that weren't encoded.
        device: what the model ran on.
    """

    frames: int
    objects: int
    tracks: int
    skipped_boxes: int
    device: str

    def summary(self) -> str:
        """Returns the numbers, as part of a sentence."""
        parts = [counted(self.frames, "frame"), counted(self.tracks, "track"), counted(self.objects, "object")]
        if self.skipped_boxes:
            parts.append(f"{counted(self.skipped_boxes, 'box', 'boxes')} skipped")
        return f"{', '.join(parts)}, on {self.device}"


def stream_tracks(
    model: Encoder[Any],
    frames: Iterable[Frame],
    options: TrackOptions | None = None,
    *,
    boxes: ClipBoxes | None = None,
    batch_size: int = BATCH_SIZE,
    keep_pixels: bool = False,
    name: str | None = None,
) -> Iterator[TrackedFrame]:
    """Tracks objects through a clip; memory doesn't grow with it.

    A thread reads frames, another encodes them, and the caller's associates: three batches are in memory. Where a
    clip is live, take a batch size of 1: a frame is then given out without waiting for the next.

    Frames whose numbers are left out, as those that can't be read, count as frames without objects. Objects have
    the class of most of their track's score so far; given boxes keep their own.

    Args:
        model: the model, a `Predictor` or an exported one.
        frames: the clip, see `open_frames`.
        options: options of the tracker.
        boxes: boxes of another detector, which are embedded instead of detecting any.
        batch_size: frames that are encoded at once.
        keep_pixels: keep `TrackedFrame.pixels`.
        name: the model's name, for the warning where frames are unlike its training data; None leaves it out.

    Yields:
        Each frame that can be read, in order. At the end, an `InputWarning` says what could not be read, another
        one whether frames differ in size, and one counts the detections if none of them started a track.

    Raises:
        InputError: as `open_frames` and `TrackOptions.check`; if the model can't take boxes.
    """
    if batch_size < 1:
        raise InputError(f"batch size must be at least 1, got {batch_size}")
    options, network = _thresholds(model, options or TrackOptions(), boxes)
    tracker = Tracker(options, network)
    batches = frame_batches(frames, model.image_size, model.resize, batch_size, keep_pixels)
    ahead, detections, is_tracked = 1 if batch_size > 1 else 0, 0, False
    after: int | None = None
    encode = partial(_encode, model, tracker.thresholds.low, boxes)
    for batch, objects, given in map_ahead(encode, batches, ahead, ahead):
        if name is not None and boxes is None:
            _check_familiar(model, name, batch, objects, tracker.thresholds.confident)
            name = None
        visible = visible_shares(objects, network, tracker.thresholds.confident)
        detections += len(objects)
        for frame in _associate(tracker, batch, objects.replace(visible=visible), given, after):
            is_tracked |= len(frame.objects) > 0
            yield frame
        after = batch.images.indices[-1]
    if not is_tracked and tracker.thresholds.start and options.min_frames == 1:
        warnings.warn(_nothing_tracked(tracker, detections, network), InputWarning, stacklevel=2)


def _nothing_tracked(tracker: Tracker, detections: int, network: HasThreshold | None) -> str:
    """Returns the warning that no detection has the score that starts a track."""
    at = tracker.thresholds
    rule = "as given"
    if network is not None:
        middle = f"in the middle between the model's threshold of {network.score_threshold:g} and 1"
        given = f"as given; the model's threshold is {network.score_threshold:g}"
        rule = middle if tracker.options.score_threshold is None else given
    return (
        f"nothing was tracked: {counted(detections, 'detection')} scored at least {at.low:g}, but a track starts "
        f"at {at.start:g} ({rule}), so give a lower --score-threshold"
    )


def _check_familiar(model: Encoder[Any], name: str, batch: FrameBatch, objects: Objects, threshold: float) -> None:
    """Warns where the frames of a batch are unlike the model's training data, see `check_decoded`."""
    if not isinstance(model, Predictor) or not isinstance(model.model, GenerativeModel) or not len(objects):
        return
    if objects.scores is not None:
        objects = objects[objects.scores >= threshold]
    squares = rearrange(torch.from_numpy(batch.images.pixels), "b h w c -> b c h w").float() / 255
    in_squares = batch.images.letterbox.to_square(objects)
    check = check_decoded(model.model, squares, in_squares, model.decode(in_squares))
    if check is not None and (sentence := check.sentence(name)) is not None:
        warnings.warn(sentence, InputWarning, stacklevel=3)


def _thresholds(model: Encoder[Any], options: TrackOptions, boxes: ClipBoxes | None) -> tuple[TrackOptions, Any]:
    """Returns options and model for the tracker; all given boxes start tracks, unless a threshold is asked for."""
    if isinstance(model, Predictor):
        if boxes is not None and options.score_threshold is None:
            options = replace(options, score_threshold=0.0)
        return options, model.model
    if boxes is not None:
        raise InputError(
            "exported models only detect objects: give the model itself, by name or folder, for boxes"
        )
    exported: Any = model
    return options, exported.exported if options.score_threshold is None else None


def _encode(
    model: Encoder[Any], threshold: float, boxes: ClipBoxes | None, batch: FrameBatch
) -> tuple[FrameBatch, Objects, pa.Table | None]:
    """Encodes a batch; returns it with its objects and, of given boxes, the further columns."""
    images = batch.images
    if boxes is None:
        objects = images.letterbox.to_image(model.encode_pixels(images.pixels, threshold))
        if not isinstance(objects, Objects):
            objects = Objects.from_arrays(objects, model.class_names)
        return batch, objects, None
    placed, given = boxes.of(images)
    predictor = cast("Predictor", model)
    objects = predictor.encode_pixels(images.pixels, boxes=images.letterbox.to_square(placed))
    names, rows = tuple(boxes.class_names), torch.arange(len(objects))
    # The tracker leaves out objects: the rows say which of the further columns remain.
    return batch, objects.replace(z_where=placed.z_where, source_index=rows, class_names=names), given


def _associate(
    tracker: Tracker, batch: FrameBatch, objects: Objects, given: pa.Table | None, after: int | None
) -> Iterator[TrackedFrame]:
    """Gives the objects of each frame of a batch, which follows the frame of the number `after`, their tracks."""
    images = batch.images
    for place, detected in enumerate(objects.split()):
        size, index, further = images.sizes[place], images.indices[place], None
        for _ in range(index if after is None else after + 1, index):
            tracker.update(Objects.empty(1), size)
        after = index
        tracked = tracker.update(detected, size)
        if given is not None:
            rows = tracked.source_index
            further = given.take([] if rows is None else rows.numpy())
            labels = None if rows is None or objects.labels is None else objects.labels[rows]
            tracked = tracked.replace(source_index=None, labels=labels)
        pixels = None if batch.pixels is None else batch.pixels[place]
        yield TrackedFrame(index, batch.names[place], size, tracked, pixels, further)


def track_clip(
    model: str | Encoder[Any],
    source: str | Path | FrameSource,
    outputs: TrackFiles,
    options: TrackOptions | None = None,
    *,
    boxes: BoxFile | None = None,
    batch_size: int = BATCH_SIZE,
    device: str | None = None,
    on_progress: Advance = no_progress,
) -> Tracked:
    """Tracks the objects of a clip, and writes files as the tracks come; each appears whole or not at all.

    Args:
        model: a shipped model's name, a model's or run's folder, or a `.onnx` file; or a loaded model.
        source: the clip, see `open_frames`.
        outputs: the files to write.
        options: options of the tracker.
        boxes: a file of boxes to embed instead of detecting any, see `ClipBoxes`.
        batch_size: frames that are encoded at once.
        device: where to run a model that is given by its name; None takes the best there is.
        on_progress: called with (frames done, all frames, which may be an estimate).

    Raises:
        InputError: if a file can't be written; as `stream_tracks`; if a table is asked for, and the model gives no
            embeddings.
    """
    outputs.check()
    clip = source if isinstance(source, FrameSource) else open_frames(source)
    encoder = load_encoder(model, device=device) if isinstance(model, str) else model
    name = model_source(model) if isinstance(model, str) else None
    placed = None if boxes is None else ClipBoxes.read(boxes, clip)
    class_names = encoder.class_names if placed is None else placed.class_names
    identity = None
    if outputs.table is not None:
        identity = Identity.of(name or "model", encoder).model_copy(update={"class_names": class_names})
    frames = objects = 0
    ids = set[int]()
    keep = outputs.video is not None
    stream = stream_tracks(
        encoder, clip, options, boxes=placed, batch_size=batch_size, keep_pixels=keep, name=name
    )
    with TrackWriters(outputs, clip, identity, placed) as writers:
        for frame in stream:
            writers.write(frame)
            frames, objects = frames + 1, objects + len(frame.objects)
            if frame.objects.track_id is not None:
                ids.update(frame.objects.track_id.tolist())
            on_progress(frames, max(frames, clip.length or 0))
    skipped = 0 if placed is None else placed.warn_of_left_out()
    return Tracked(frames, objects, len(ids), skipped, encoder.device_name)
