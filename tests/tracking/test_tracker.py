"""The tracker on scenes whose tracks are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ssdir.errors import InputError
from ssdir.models.base import Clues, TemporalModel
from ssdir.objects import Objects
from ssdir.tracking.options import TrackOptions
from ssdir.tracking.tracker import Tracker

SIZE = (100, 200)


def frame(
    boxes: list[list[float]] | np.ndarray, what: Tensor | None = None, scores: list[float] | None = None
) -> Objects:
    """Returns the detections of a frame of `SIZE` from boxes (M, 4), cxcywh in pixels."""
    where = torch.tensor(np.asarray(boxes, dtype=np.float32)).reshape(-1, 4) / torch.tensor(
        [SIZE[1], SIZE[0], SIZE[1], SIZE[0]]
    )
    M = len(where)
    return Objects(
        image_index=torch.zeros(M, dtype=torch.int64),
        batch_size=1,
        z_where=where,
        scores=torch.ones(M) if scores is None else torch.tensor(scores),
        z_what=what,
    )


def identities(count: int, dim: int = 16, seed: int = 0) -> Tensor:
    """Returns embeddings (count, dim) that tell `count` objects apart."""
    return torch.nn.functional.normalize(torch.randn(count, dim, generator=torch.manual_seed(seed)), dim=1)


def ids(tracked: Objects) -> list[int]:
    assert tracked.track_id is not None
    return tracked.track_id.tolist()


def test_objects_keep_their_ids_while_they_move() -> None:
    tracker = Tracker()
    for t in range(20):
        tracked = tracker.update(frame([[20 + 4 * t, 30, 20, 20], [180 - 4 * t, 70, 20, 20]]), SIZE)
        assert ids(tracked) == [1, 2]


def test_a_low_score_continues_a_track_and_starts_none() -> None:
    tracker = Tracker(TrackOptions(score_threshold=0.5, low_score=0.4))
    seen = []
    for t in range(10):
        weak = 0.3 if t in (4, 5) else 0.9
        boxes = [[20 + 4 * t, 30, 20, 20], [180, 70, 20, 20]]
        seen.append(ids(tracker.update(frame(boxes, scores=[weak, 0.3]), SIZE)))
    assert seen == [[1]] * 10


@pytest.mark.parametrize("appearance", [True, False])
def test_a_gap_ends_a_track_only_after_max_gap(appearance: bool) -> None:
    what = identities(1)
    for gap, expected in ((10, [1]), (11, [2])):
        tracker = Tracker(TrackOptions(appearance=appearance, max_gap=10))
        for _ in range(10):
            tracker.update(frame([[50, 50, 20, 20]], what), SIZE)
        for _ in range(gap):
            assert len(tracker.update(frame([]), SIZE)) == 0
        assert ids(tracker.update(frame([[50, 50, 20, 20]], what), SIZE)) == expected


def test_an_object_that_returns_elsewhere_is_known_by_its_appearance_alone() -> None:
    what = identities(4)
    places = np.array([[30, 30], [90, 30], [150, 30], [60, 75]])
    boxes = np.concatenate([places, np.full((4, 2), 20)], axis=1)
    back = boxes.copy()
    back[3, :2] = [170, 75]
    results = {}
    for appearance in (True, False):
        tracker = Tracker(TrackOptions(appearance=appearance))
        for _ in range(15):
            tracker.update(frame(boxes, what), SIZE)
        for _ in range(8):
            tracker.update(frame(boxes[:3], what[:3]), SIZE)
        results[appearance] = ids(tracker.update(frame(back, what), SIZE))
    assert results == {True: [1, 2, 3, 4], False: [1, 2, 3, 5]}


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match="max_gap must be at least 0"):
        Tracker(TrackOptions(max_gap=-1))
    with pytest.raises(ValueError, match="one frame at a time"):
        Tracker().update(Objects.empty(2), SIZE)


class _MeanOfViews(TemporalModel):
    """Remembers the mean of a track's views, and their number."""

    score_threshold, memory_dim = 0.5, 17

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def remember(self, memory: Tensor, z_what: Tensor, clues: Clues) -> Tensor:
        count = memory[:, -1:] + 1
        return torch.cat([memory[:, :-1] + (z_what - memory[:, :-1]) / count, count], dim=1)


def test_each_track_has_its_own_memory_whatever_the_number_of_objects() -> None:
    tracker, what = Tracker(model=_MeanOfViews()), identities(2)
    places = [[30, 30, 20, 20], [160, 70, 20, 20]]
    views: dict[int, list[Tensor]] = {1: [], 2: []}
    for shown in ([0], [0, 1], [1], [1, 0], [0], []):
        seen = what[shown] + 0.05 * torch.randn(len(shown), 16)
        tracked = tracker.update(frame([places[one] for one in shown], seen), SIZE)
        for one, row in zip(shown, seen, strict=True):
            views[one + 1].append(row)
        assert ids(tracked) == [one + 1 for one in shown] if shown else not len(tracked)
        for track, row in zip(ids(tracked) if len(tracked) else [], range(len(tracked)), strict=True):
            assert tracked.z_what is not None
            torch.testing.assert_close(tracked.z_what[row], torch.stack(views[track]).mean(dim=0))
