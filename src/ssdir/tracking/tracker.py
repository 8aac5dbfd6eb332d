"""`Tracker`: gives the objects of successive frames their tracks, by motion and by `z_what`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from ssdir.models.base import ObjectModel
from ssdir.objects import Objects
from ssdir.tracking.appearance import Gallery, Reliability, similarities
from ssdir.tracking.association import assign
from ssdir.tracking.motion import BoxMotion, Floats, motion_evidence, predict, update
from ssdir.tracking.occlusion import visible_shares
from ssdir.tracking.options import TrackOptions

ANYWHERE = 1e-3
"""Probability that a track's object is where its motion does not explain, anywhere in the frame."""

CLEAR = 0.5
"""Visible share from which on a detection is a view that statistics are learned from."""


@dataclass(eq=False)
class Track:
    """One object through a clip, as far as it was seen.

    Attributes:
        motion: its box.
        track_id: from 1, or 0 before it is given out.
        gallery: its appearance; None without embeddings.
        seen: number of frames that it was detected in.
        gap: number of frames since the last one.
        votes: sum of the scores for each class.
    """

    motion: BoxMotion
    track_id: int = 0
    gallery: Gallery | None = None
    seen: int = 0
    gap: int = 0
    votes: Counter[int] = field(default_factory=Counter)


@dataclass(frozen=True, eq=False)
class _Frame:
    """The detections of a frame, on the host.

    Attributes:
        boxes: float (M, 4), cxcywh in pixels.
        size: (height, width) of the frame in pixels.
        scores: float (M,).
        clearness: float (M,), the score times the visible share.
        visible: float (M,), the visible share.
        embeddings: float (M, D), or None.
        labels: int (M,), or None.
    """

    boxes: Floats
    size: tuple[float, float]
    scores: Floats
    clearness: Floats
    visible: Floats
    embeddings: Floats | None
    labels: NDArray[np.int64] | None


class Tracker:
    """Gives the objects of successive frames their tracks.

    Confident detections are assigned to tracks by the sum of two log-likelihood ratios, "this track" against "a
    new object": that of the box under the track's Kalman filter, and that of `z_what` under the track's gallery.
    The latter is calibrated within the clip, see `Reliability`, so appearance has no influence where embeddings
    don't tell objects apart. Detections of low score then continue tracks that were seen in the last frame, by
    motion alone, as in ByteTrack (Zhang et al. 2022). What is left of the confident ones starts tracks.

    Classes take no part in the association: an object keeps its track while its class changes, and has the class
    of most of its score so far.

    Args:
        options: see `TrackOptions`.
        model: the model of the objects, for its score threshold; None takes all detections as confident, unless
            the options have a threshold.

    Raises:
        InputError: for an option out of range.
    """

    def __init__(self, options: TrackOptions | None = None, model: ObjectModel | None = None) -> None:
        self.options = options or TrackOptions()
        self.options.check()
        self.low, self.start = self.options.thresholds(0.0 if model is None else model.score_threshold)
        self.reset()

    def reset(self) -> None:
        """Forgets all tracks, for another clip: ids start from 1 again."""
        self.tracks: list[Track] = []
        self.reliability = Reliability()
        self._given_out = 0
        self._canvas: tuple[float, float] | None = None
        self._center: Floats | None = None
        self._num_embeddings = 0.0

    def update(self, objects: Objects, size: tuple[int, int]) -> Objects:
        """Takes the objects of the next frame into account.

        Args:
            objects: detections of one image; with `z_what`, appearance takes part. Without `scores` all are
                confident; without `visible` it is computed from their boxes, see `visible_shares`.
            size: the frame's (height, width) in pixels; it may differ between frames.

        Returns:
            The objects that have a track, in the same order, with `track_id` and `visible`.

        Raises:
            ValueError: if there is more than one image.
        """
        if objects.batch_size != 1:
            raise ValueError(
                f"a tracker takes one frame at a time, got a batch of {objects.batch_size}: use split()"
            )
        frame = self._frame(objects, size)
        predict([track.motion for track in self.tracks])
        for track in self.tracks:
            track.gap += 1
        assigned = self._associate(frame)
        self._start(frame, assigned)
        keep_after = self.options.max_gap
        self.tracks = [track for track in self.tracks if track.gap <= (keep_after if track.track_id else 0)]
        rows = sorted(row for row, track in assigned.items() if track.track_id)
        given = objects[torch.tensor(rows, dtype=torch.int64)]
        ids = torch.tensor([assigned[row].track_id for row in rows], dtype=torch.int64)
        visible = torch.from_numpy(frame.visible[rows]).to(objects.z_where)
        if given.labels is not None:
            labels = torch.tensor([assigned[row].votes.most_common(1)[0][0] for row in rows], dtype=torch.int64)
            given = given.replace(labels=labels.to(given.device))
        return given.replace(track_id=ids.to(given.device), visible=visible)

    def _frame(self, objects: Objects, size: tuple[int, int]) -> _Frame:
        if self._canvas is None:
            self._canvas = (float(size[0]), float(size[1]))
        height, width = self._canvas
        boxes = objects.z_where.detach().cpu().double().numpy() * [width, height, width, height]
        scores = np.ones(len(objects)) if objects.scores is None else objects.scores.cpu().double().numpy()
        visible = visible_shares(objects) if objects.visible is None else objects.visible
        shown = visible.cpu().double().numpy()
        embeddings = None
        if self.options.appearance and objects.z_what is not None:
            embeddings = objects.z_what.detach().cpu().double().numpy()
            self._move_center(embeddings)
        labels = None if objects.labels is None else objects.labels.cpu().numpy()
        return _Frame(boxes, self._canvas, scores, scores * shown, shown, embeddings, labels)

    def _move_center(self, embeddings: Floats) -> None:
        """Updates the mean of all embeddings of the clip."""
        if len(embeddings):
            self._num_embeddings += len(embeddings)
            mean = embeddings.mean(axis=0)
            share = len(embeddings) / self._num_embeddings
            self._center = mean if self._center is None else self._center + share * (mean - self._center)

    def _associate(self, frame: _Frame) -> dict[int, Track]:
        """Assigns detections to tracks, and updates these; returns the track of each row that has one."""
        confident = np.flatnonzero(frame.scores >= self.start)
        motion = motion_evidence([track.motion for track in self.tracks], frame.boxes, frame.size)
        similarity = self._similarity(frame)
        evidence = motion
        if similarity is not None:
            anywhere = np.logaddexp(motion + np.log1p(-ANYWHERE), np.log(ANYWHERE))
            evidence = anywhere + self.reliability.evidence(similarity)
        pairs = [(t, int(confident[n])) for t, n in assign(evidence[:, confident])]
        taken = {t for t, _ in pairs}
        low = np.flatnonzero((frame.scores < self.start) & (frame.scores >= self.low))
        left = [t for t, track in enumerate(self.tracks) if t not in taken and track.gap == 1]
        pairs += [(left[t], int(low[n])) for t, n in assign(motion[left][:, low])]
        if similarity is not None:
            self._learn(frame, motion, similarity, pairs)
        assigned = {row: self.tracks[t] for t, row in pairs}
        update([track.motion for track in assigned.values()], frame.boxes[list(assigned)])
        for row, track in assigned.items():
            self._see(track, frame, row)
        return assigned

    def _similarity(self, frame: _Frame) -> Floats | None:
        """Computes how similar detections look to tracks (T, M); None without embeddings."""
        if frame.embeddings is None or self._center is None:
            return None
        galleries = [track.gallery for track in self.tracks if track.gallery is not None]
        if len(galleries) < len(self.tracks):
            return None
        return similarities(galleries, frame.embeddings, self._center)

    def _learn(self, frame: _Frame, motion: Floats, similarity: Floats, pairs: list[tuple[int, int]]) -> None:
        """Adds the similarities of this frame to the statistics, where motion leaves no doubt."""
        possible = motion > 0
        sure = [
            (t, n)
            for t, n in pairs
            if self.tracks[t].gap == 1
            and frame.visible[n] >= CLEAR
            and possible[t, n]
            and possible[t].sum() == 1
            and possible[:, n].sum() == 1
        ]
        if not sure:
            return
        rows, columns = (np.array(each) for each in zip(*sure, strict=True))
        among = similarity[np.ix_(rows, columns)]
        own = np.eye(len(sure), dtype=bool)
        self.reliability.same.add(among[own])
        self.reliability.different.add(among[~own])

    def _start(self, frame: _Frame, assigned: dict[int, Track]) -> None:
        """Starts a track for each confident detection without one, by score, then from the top."""
        new = [row for row in np.flatnonzero(frame.scores >= self.start).tolist() if row not in assigned]
        for row in sorted(new, key=lambda row: (-frame.scores[row], *frame.boxes[row, [1, 0, 3, 2]])):
            track = Track(BoxMotion(frame.boxes[row]))
            self.tracks.append(track)
            assigned[row] = track
            self._see(track, frame, row)

    def _see(self, track: Track, frame: _Frame, row: int) -> None:
        """Takes a detection's embedding and class into account."""
        track.gap, track.seen = 0, track.seen + 1
        if frame.embeddings is not None:
            clearness = float(frame.clearness[row])
            if track.gallery is None:
                track.gallery = Gallery.of(frame.embeddings[row], clearness)
            else:
                track.gallery.add(frame.embeddings[row], clearness)
        if frame.labels is not None:
            track.votes[int(frame.labels[row])] += float(frame.scores[row])  # type: ignore[assignment]
        if not track.track_id and track.seen >= self.options.min_frames:
            self._given_out += 1
            track.track_id = self._given_out
