"""`Tracker`: gives the objects of successive frames their tracks, by motion and by `z_what`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssdir.models.base import Clues, TemporalModel
from ssdir.objects import Objects
from ssdir.tracking.appearance import Gallery, Reliability, best_cosines, similarities
from ssdir.tracking.association import assign
from ssdir.tracking.motion import BoxMotion, Floats, motion_evidence, predict, update
from ssdir.tracking.occlusion import covered_shares, visible_shares
from ssdir.tracking.options import TrackOptions
from ssdir.tracking.tracks import Track

CLEAR = 0.5
"""Minimum visible share of a detection to learn from, and, times its score, of one to recognise an object by; and
minimum covered share of the box of a hidden object."""

LONG_AGO = 10
"""Number of frames after which views say how an object will look when it comes back."""

YOUNG = 15
"""Number of frames in which a new track may turn out to be the continuation of a lost one."""

MIN_SEEN = 5
"""Number of frames that a lost track must have been seen in to be recognised: false detections are gone sooner."""

UNLIKE, LOST_UNLIKE, SHORT_GAP = 0.1, 0.001, 2
"""Share of the views of an object that look like any other one: partly hidden, blurred, or cut by a bad box. For
an object that was unseen for longer than a short gap, in frames, motion says little: what looks unlike it starts
a track of its own, which is recognised as soon as a view is clear."""

RECOGNITION, LEAD, DEVIATIONS = 1.0, 1.0, 3.0
"""Minimum evidence of recognition, and its lead over that of the other lost tracks, in nats; and by how many
standard deviations its similarity must exceed the mean of different objects."""


class HasThreshold(Protocol):
    """A model, or what else is known of one."""

    @property
    def score_threshold(self) -> float:
        """Minimum score of an object."""


@dataclass(frozen=True, eq=False)
class _Frame:
    """The detections of a frame, on the host.

    Attributes:
        boxes: float (M, 4), cxcywh in pixels of the clip's first frame.
        scores: float (M,).
        visible: float (M,), the visible share.
        clearness: float (M,), the score times the visible share.
        starts: bool (M,), whether the detection may start a track.
        depths: float (M,); zeros where unknown.
        embeddings: float (M, D), or None.
        labels: int64 (M,), or None.
    """

    boxes: Floats
    scores: Floats
    visible: Floats
    clearness: Floats
    starts: NDArray[np.bool_]
    depths: Floats
    embeddings: Floats | None
    labels: NDArray[np.int64] | None


class Tracker:
    """Gives the objects of successive frames their tracks.

    1. Confident detections are assigned to tracks by the sum of two log-likelihood ratios, "this track" against "a
       new object": that of the box under the track's Kalman filter, and that of `z_what` under the track's
       gallery. The latter is calibrated within the clip, see `Reliability`, so appearance has no influence where
       embeddings don't tell objects apart.
    2. Detections of low score continue the tracks of the last frame, by motion alone, as in ByteTrack (Zhang et
       al. 2022).
    3. What is left of the confident detections starts tracks.
    4. A track that is new, and looks like a lost one, wherever that was, continues it. This needs no motion, and
       is calibrated by pairs of views with frames between them. Where the first views are unclear, a later one
       decides; the track changes its id then.

    Classes take no part in the association: an object keeps its track while its class changes, and has the class
    of most of its score so far.

    Args:
        options: see `TrackOptions`.
        model: the model of the objects, for its score threshold and, if it is a `TemporalModel`, for the memories
            of tracks; None takes all detections as confident, unless the options have a threshold.

    Attributes:
        thresholds: minimum scores of detections.

    Raises:
        InputError: for an option out of range.
    """

    def __init__(self, options: TrackOptions | None = None, model: HasThreshold | None = None) -> None:
        self.options = options or TrackOptions()
        self.options.check()
        self.thresholds = self.options.thresholds(None if model is None else model.score_threshold)
        self._memory = model if isinstance(model, TemporalModel) and model.memory_dim else None
        self.reset()

    def reset(self) -> None:
        """Forgets all tracks, for another clip: ids start from 1 again."""
        self._tracks: list[Track] = []
        self._reliability, self._long_ago = Reliability(), Reliability()
        self._num_frames = self._num_ids = self._num_embeddings = 0
        self._size: tuple[float, float] | None = None
        self._center: Floats | None = None

    @torch.no_grad()
    def update(self, objects: Objects, size: tuple[int, int]) -> Objects:
        """Takes the objects of the next frame into account.

        Args:
            objects: detections of one image; with `z_what`, appearance takes part. Without `scores` all are
                confident; without `visible` it is computed from their boxes, see `visible_shares`.
            size: the frame's (height, width) in pixels; it may differ between frames.

        Returns:
            The objects that have a track, in the same order, with `track_id` and `visible`, and with `z_what` as
            remembered by a `TemporalModel`.

        Raises:
            ValueError: if there is more than one image.
        """
        if objects.batch_size != 1:
            raise ValueError(f"a tracker takes one frame at a time, got {objects.batch_size}: use split()")
        self._num_frames += 1
        self._size = self._size or (float(size[0]), float(size[1]))
        frame = self._frame(objects)
        predict([track.motion for track in self._tracks])
        assigned = self._associate(frame)
        self._start(frame, assigned)
        self._recognise(frame, assigned)
        self._give_ids(assigned)
        self._forget(frame, assigned)
        if self._memory is not None and objects.z_what is not None and assigned:
            objects = objects.replace(z_what=self._remember(self._memory, objects.z_what, frame, assigned))
        rows = sorted(row for row, track in assigned.items() if track.track_id)
        return self._tracked(objects, frame, rows, [assigned[row] for row in rows])

    def _frame(self, objects: Objects) -> _Frame:
        assert self._size is not None
        height, width = self._size
        boxes = _host(objects.z_where) * [width, height, width, height]
        visible = _host(visible_shares(objects) if objects.visible is None else objects.visible)
        scores = np.ones(len(objects)) if objects.scores is None else _host(objects.scores)
        clearness = scores * visible
        starts = (clearness if self.options.score_threshold is None else scores) >= self.thresholds.start
        if objects.scores is None:
            starts[:] = True
        depths = np.zeros(len(objects)) if objects.z_depth is None else _host(objects.z_depth)
        embeddings = None
        if self.options.appearance and objects.z_what is not None:
            embeddings = _host(objects.z_what)
            self._move_center(embeddings)
        labels = None if objects.labels is None else objects.labels.cpu().numpy()
        return _Frame(boxes, scores, visible, clearness, starts, depths, embeddings, labels)

    def _move_center(self, embeddings: Floats) -> None:
        """Updates the mean of all embeddings of the clip."""
        if not len(embeddings):
            return
        self._num_embeddings += len(embeddings)
        mean = embeddings.mean(axis=0)
        old = mean if self._center is None else self._center
        self._center = old + len(embeddings) / self._num_embeddings * (mean - old)

    def _associate(self, frame: _Frame) -> dict[int, Track]:
        """Assigns detections to tracks, and updates these; returns the track of each row that has one."""
        assert self._size is not None
        tracks = self._tracks
        motion = motion_evidence([track.motion for track in tracks], frame.boxes, self._size)
        galleries = [track.gallery for track in tracks if track.gallery is not None]
        evidence, similarity = motion, None
        if frame.embeddings is not None and self._center is not None and len(galleries) == len(tracks):
            similarity = similarities(galleries, frame.embeddings, self._center)
            # Appearance chooses among what motion allows.
            lost = np.array([track.last < self._num_frames - SHORT_GAP for track in tracks], dtype=bool)
            looks = self._reliability.evidence(similarity, np.where(lost, LOST_UNLIKE, UNLIKE)[:, None])
            evidence = np.where(motion > 0, motion + looks, 0)
        is_confident = frame.scores >= self.thresholds.confident
        confident, low = np.flatnonzero(is_confident), np.flatnonzero(~is_confident)
        low = low[frame.scores[low] >= self.thresholds.low]
        pairs = [(t, int(confident[n])) for t, n in assign(evidence[:, confident])]
        taken = {t for t, _ in pairs}
        left = [t for t, track in enumerate(tracks) if t not in taken and track.last == self._num_frames - 1]
        if left and len(low):
            pairs += [(left[t], int(low[n])) for t, n in assign(motion[left][:, low])]
        if similarity is not None:
            self._learn(frame, motion > 0, similarity, pairs)
        assigned = {row: tracks[t] for t, row in pairs}
        update([track.motion for track in assigned.values()], frame.boxes[list(assigned)])
        for row, track in assigned.items():
            self._see(track, frame, row)
        return assigned

    def _learn(
        self, frame: _Frame, possible: NDArray[np.bool_], similarity: Floats, pairs: list[tuple[int, int]]
    ) -> None:
        """Adds the similarities of this frame to the statistics, where motion leaves no doubt.

        Args:
            frame: the detections.
            possible: bool (T, M), the pairs that motion allows.
            similarity: float (T, M).
            pairs: those that were assigned.
        """
        alone = possible & (possible.sum(axis=1) == 1)[:, None] & (possible.sum(axis=0) == 1)
        sure = [(t, n) for t, n in pairs if alone[t, n] and frame.visible[n] >= CLEAR]
        if not sure:
            return
        self._reliability.add(similarity[np.ix_(*(np.array(each) for each in zip(*sure, strict=True)))])
        until = self._num_frames - LONG_AGO
        galleries = [(self._tracks[t].gallery, n) for t, n in sure]
        old = [
            (views, n) for gallery, n in galleries if gallery is not None and (views := gallery.views_until(until))
        ]
        if old and frame.embeddings is not None and self._center is not None:
            embeddings = frame.embeddings[[n for _, n in old]]
            self._long_ago.add(best_cosines([views for views, _ in old], embeddings, self._center))

    def _start(self, frame: _Frame, assigned: dict[int, Track]) -> None:
        """Starts a track for each clear detection without one, by score, then from the top."""
        new = [row for row in np.flatnonzero(frame.starts).tolist() if row not in assigned]
        for row in sorted(new, key=lambda row: (-frame.scores[row], *frame.boxes[row, [1, 0, 3, 2]])):
            assigned[row] = Track(BoxMotion(frame.boxes[row]), self._num_frames, self._num_frames)
            self._see(assigned[row], frame, row)
            self._tracks.append(assigned[row])

    def _see(self, track: Track, frame: _Frame, row: int) -> None:
        """Takes a detection's embedding, depth and class into account."""
        track.gap = max(self._num_frames - track.last, 1)
        track.last, track.hidden, track.depth = self._num_frames, 0, float(frame.depths[row])
        track.seen += 1
        if frame.embeddings is not None:
            track.gallery = track.gallery or Gallery(frame.embeddings[row])
            track.gallery.add(frame.embeddings[row], float(frame.clearness[row]), self._num_frames)
        if frame.labels is not None:
            track.votes.update({int(frame.labels[row]): float(frame.scores[row])})

    def _recognise(self, frame: _Frame, assigned: dict[int, Track]) -> None:
        """Continues lost tracks by young ones that look like them."""
        young = [
            (row, track)
            for row, track in assigned.items()
            if self._num_frames - track.first <= YOUNG and frame.clearness[row] >= CLEAR
        ]
        lost = [
            (track, track.gallery.views)
            for track in self._tracks
            if track.last < self._num_frames and track.seen >= MIN_SEEN and track.gallery is not None
        ]
        if not young or not lost or frame.embeddings is None or self._center is None:
            return
        embeddings = frame.embeddings[[row for row, _ in young]]
        similarity = best_cosines([views for _, views in lost], embeddings, self._center)
        evidence = self._long_ago.evidence(similarity) - RECOGNITION
        # There are many pairs and frames: what a different object reaches now and then is not enough.
        evidence[similarity < self._long_ago.chance(DEVIATIONS)] = -np.inf
        # An object is not in two places: what was seen after the young track began is another one.
        apart = np.array([[track.last < new.first for _, new in young] for track, _ in lost])
        for t, n in assign(np.where(apart, evidence, -np.inf), LEAD):
            young[n][1].join(lost[t][0])
            self._tracks.remove(lost[t][0])

    def _give_ids(self, assigned: dict[int, Track]) -> None:
        for track in assigned.values():
            if not track.track_id and track.seen >= self.options.min_frames:
                self._num_ids += 1
                track.track_id = self._num_ids

    def _remember(self, model: TemporalModel, z_what: Tensor, frame: _Frame, assigned: dict[int, Track]) -> Tensor:
        """Updates the memories of the tracks of this frame; returns z_what (M, D) as they remember it."""
        rows, tracks = list(assigned), list(assigned.values())
        device = next(model.parameters()).device
        empty = z_what.new_zeros(model.memory_dim, device=device)
        memories = torch.stack([empty if track.memory is None else track.memory for track in tracks])
        views = z_what[rows].to(device)
        gaps = [float(track.gap) for track in tracks]
        clues = (frame.scores[rows], frame.visible[rows], np.array(gaps))
        memories = model.remember(memories, views, Clues(*(torch.from_numpy(clue).to(views) for clue in clues)))
        for track, memory in zip(tracks, memories, strict=True):
            track.memory = memory
        remembered = z_what.clone()
        remembered[rows] = memories[:, : z_what.shape[1]].to(z_what)
        return remembered

    def _forget(self, frame: _Frame, assigned: dict[int, Track]) -> None:
        """Ends tracks that were unseen for too long, or before they were given an id."""
        unseen = [track for track in self._tracks if track.last < self._num_frames]
        rows = list(assigned)
        if unseen and rows:
            boxes = np.stack([track.motion.box for track in unseen])
            nearer = frame.depths[rows] >= np.array([track.depth for track in unseen])[:, None]
            covered = (covered_shares(boxes, frame.boxes[rows]) * nearer).max(axis=1)
            for track, share in zip(unseen, covered, strict=True):
                track.hidden += int(share >= CLEAR and track.hidden < self.options.max_gap)
        gone = {
            id(track)
            for track in unseen
            if not track.track_id or self._num_frames - track.last - track.hidden > self.options.max_gap
        }
        self._tracks = [track for track in self._tracks if id(track) not in gone]

    def _tracked(self, objects: Objects, frame: _Frame, rows: list[int], tracks: list[Track]) -> Objects:
        """Returns rows of the objects with what is known of their tracks."""
        given = objects[torch.tensor(rows, dtype=torch.int64)]
        labels = [track.votes.most_common(1)[0][0] for track in tracks if track.votes]
        return given.replace(
            labels=None if given.labels is None else torch.tensor(labels, dtype=torch.int64, device=given.device),
            track_id=torch.tensor([track.track_id for track in tracks], dtype=torch.int64, device=given.device),
            visible=torch.from_numpy(frame.visible[rows]).to(given.z_where),
        )


def _host(values: Tensor) -> Floats:
    array: Floats = values.detach().cpu().double().numpy()
    return array
