"""What a memory learns from: the tracks of clips, by the frozen model and the tracker, without annotations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

from ssdir.console import Advance
from ssdir.data.clips import clips_of
from ssdir.data.dataset import ObjectDataset
from ssdir.data.images import Image8
from ssdir.errors import InputError
from ssdir.models.base import GenerativeModel
from ssdir.models.detected.memory import TrackViews
from ssdir.models.inference_form import inference_form
from ssdir.models.ssdir import SSDIR
from ssdir.objects import Objects
from ssdir.tracking.occlusion import visible_shares
from ssdir.tracking.options import TrackOptions
from ssdir.tracking.tracker import Tracker
from ssdir.training.loading import TrackedClips, make_loader

FRAMES = 32
"""Frames of a clip that are learned from at once; longer clips are divided."""

_FRAMES_AT_ONCE = 32


def check_clips(dataset: ObjectDataset) -> None:
    """Checks that a split has clips of two frames or more, which a memory needs.

    Raises:
        InputError: if its images are not frames of clips, or each clip has one frame.
    """
    if max(len(clip.images) for clip in clips_of(dataset)) < 2:
        raise InputError(f"'{dataset.table.root}': each clip has a single frame, and a memory learns from several")


@torch.no_grad()
def track_clips(model: SSDIR, dataset: ObjectDataset, progress: Advance | None = None) -> TrackedClips:
    """Detects, embeds and tracks the objects of a data set's clips.

    Detections that are too unsure to start a track are used too where they continue one: hidden objects are these.

    Args:
        model: on the device to compute on; each frame is encoded alone.
        dataset: a split with clips, without augmentation.
        progress: called with (frames done, frames in all).

    Returns:
        The tracks of each clip, or of each part of `FRAMES` frames, that are seen twice or more. Parts without
        such tracks are left out.

    Raises:
        InputError: if the data has no clips, or no object is seen twice.
    """
    encoder, parts, done = inference_form(model), list[TrackViews](), 0
    for clip in clips_of(dataset):
        tracker = Tracker(TrackOptions(), model.config)  # Without the memory, which learns from these tracks.
        frames: list[Objects] = []
        for batch in make_loader(dataset, _FRAMES_AT_ONCE, model.device, clip.images):
            seen = encoder.encode(batch.images.to(model.device), tracker.thresholds.low)
            shares = visible_shares(seen, encoder, tracker.thresholds.confident)
            seen = seen.replace(visible=shares.to(model.device)).to("cpu")
            side = model.image_size
            frames += [tracker.update(objects, (side, side)) for objects in seen.split()]
            done += len(batch.images)
            if progress is not None:
                progress(done, len(dataset))
        for start in range(0, len(frames), FRAMES):
            views = views_of(frames[start : start + FRAMES])
            parts += [] if views is None else [views]
    if not parts:
        raise InputError(
            f"'{dataset.table.root}': the model detects no object in two frames of a clip, so a memory learns "
            "nothing: train the detector longer, or lower model.ssd.score_threshold"
        )
    return TrackedClips(dataset, parts)


def views_of(frames: Sequence[Objects]) -> TrackViews | None:
    """Arranges the objects of T successive frames by track.

    Args:
        frames: objects of one image each, with `z_what`, `scores`, `visible` and `track_id`.

    Returns:
        The views of the tracks that are seen twice or more; None if there is none.
    """
    objects = Objects.cat(frames)
    if objects.track_id is None:
        return None
    assert objects.z_what is not None
    _, rows, counts = objects.track_id.unique(return_inverse=True, return_counts=True)
    place = rows, objects.image_index
    seen = torch.zeros(len(counts), len(frames), dtype=torch.bool)
    seen[place] = True
    if not (kept := counts > 1).any():
        return None

    def arranged(values: Tensor | None) -> Tensor:
        assert values is not None
        every = values.new_zeros(len(counts), len(frames), *values.shape[1:])
        every[place] = values
        return every[kept].float()

    return TrackViews(arranged(objects.z_what), arranged(objects.scores), arranged(objects.visible), seen[kept])


@torch.no_grad()
def memory_grid(model: GenerativeModel, split: TrackedClips, num_tracks: int) -> Image8:
    """Shows what single views of tracks decode to, and below what is remembered with each.

    Args:
        model: an SSDIR with a memory, in evaluation mode.
        split: tracked clips, of which the first one is shown.
        num_tracks: the tracks with the most varied evidence are shown, so many at most.

    Returns:
        uint8 (H, W, 3): two rows of pictures per track, a column per frame; frames without a view are black.
    """
    assert isinstance(model, SSDIR)
    assert model.memory is not None
    views = split[0].to(model.device)
    evidence = model.memory.evidence(views.z_what, views.scores, views.visible).log()
    spread = torch.stack([row[seen].std() for row, seen in zip(evidence, views.seen, strict=True)])
    chosen = spread.argsort(descending=True)[:num_tracks]
    known = model.memory.follow(views)[chosen, :, :-1]
    z_what = torch.stack([views.z_what[chosen], known], dim=1)  # (n, 2, T, D)
    pictures = model.decoder(z_what.flatten(0, 2))[0].unflatten(0, z_what.shape[:3])
    pictures = pictures * views.seen[chosen, None, :, None, None, None]
    rows = rearrange(pictures, "n two t c h w -> (n two h) (t w) c")
    grid: Image8 = (rows.clamp(0, 1) * 255).round().byte().cpu().numpy()
    return grid
