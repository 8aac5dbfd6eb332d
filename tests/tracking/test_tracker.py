"""Tests of the tracker on scenes whose tracks are known."""

from __future__ import annotations

import pickle

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
    """Returns embeddings (count, dim) that distinguish `count` objects."""
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


def crossing(what: Tensor) -> list[list[int]]:
    """Tracks two objects that meet, turn back while they are unseen, and one that stands; returns their ids."""
    tracker, track_ids = Tracker(), []
    for t in range(30):
        x = 40 + 4 * (t if t < 15 else 29 - t)
        boxes = np.array([[x, 50, 20, 20], [200 - x, 50, 20, 20], [100, 15, 20, 20]])
        seen = [2] if 12 <= t < 19 else [0, 1, 2]
        track_ids.append(ids(tracker.update(frame(boxes[seen], what[seen]), SIZE)))
    return track_ids


def test_appearance_separates_objects_that_motion_confuses() -> None:
    distinct, same = crossing(identities(3)), crossing(torch.ones(3, 16))
    assert distinct[-1] == distinct[0]
    # Motion expects them to pass each other.
    assert same[-1] == [same[0][1], same[0][0], same[0][2]]


def test_embeddings_without_information_change_nothing() -> None:
    rng = np.random.default_rng(0)
    noise = torch.manual_seed(1)
    trackers = {appearance: Tracker(TrackOptions(appearance=appearance)) for appearance in (True, False)}
    place, velocity = rng.uniform([20, 20], [180, 80], (8, 2)), rng.normal(0, 3, (8, 2))
    for _ in range(60):
        place += velocity
        velocity = np.where((place < [20, 20]) | (place > [180, 80]), -velocity, velocity)
        seen = np.flatnonzero(rng.random(8) < 0.8)
        boxes = np.concatenate([place, np.full((8, 2), 16)], axis=1)[seen]
        objects = frame(boxes, torch.randn(len(seen), 16, generator=noise))
        one, other = (tracker.update(objects, SIZE) for tracker in trackers.values())
        assert ids(one) == ids(other)


def test_tracks_do_not_depend_on_the_order_of_detections() -> None:
    rng = np.random.default_rng(3)
    what = identities(6)
    place, velocity = rng.uniform([20, 20], [180, 80], (6, 2)), rng.normal(0, 3, (6, 2))
    trackers = Tracker(), Tracker()
    for _ in range(30):
        place += velocity
        boxes = np.concatenate([place, np.full((6, 2), 16)], axis=1)
        order = rng.permutation(6)
        straight = trackers[0].update(frame(boxes, what), SIZE)
        shuffled = trackers[1].update(frame(boxes[order], what[order]), SIZE)
        assert [ids(straight)[row] for row in order] == ids(shuffled)


def test_an_object_that_returns_unclearly_is_recognised_by_a_later_view() -> None:
    what = identities(4)
    boxes = np.array([[30, 30, 20, 20], [90, 30, 20, 20], [150, 30, 20, 20], [60, 75, 20, 20]], dtype=float)
    back = boxes.copy()
    back[3, :2] = [170, 75]
    tracker = Tracker()
    for _ in range(15):
        tracker.update(frame(boxes, what), SIZE)
    for _ in range(8):
        tracker.update(frame(boxes[:3], what[:3]), SIZE)
    unclear = what.clone()
    unclear[3] = identities(5, seed=9)[4]
    assert ids(tracker.update(frame(back, unclear), SIZE)) == [1, 2, 3, 5]
    assert ids(tracker.update(frame(back, what), SIZE)) == [1, 2, 3, 4]


def test_a_new_object_of_its_own_appearance_is_not_taken_for_a_lost_one() -> None:
    what = identities(5)
    boxes = np.array([[30, 30, 20, 20], [90, 30, 20, 20], [150, 30, 20, 20], [60, 75, 20, 20]], dtype=float)
    tracker = Tracker()
    for _ in range(15):
        tracker.update(frame(boxes, what[:4]), SIZE)
    for _ in range(8):
        tracker.update(frame(boxes[:3], what[:3]), SIZE)
    other = np.concatenate([boxes[:3], [[170, 75, 20, 20]]])
    assert ids(tracker.update(frame(other, what[[0, 1, 2, 4]]), SIZE)) == [1, 2, 3, 5]


@pytest.mark.parametrize(("depth", "expected"), [(1.0, [1, 2]), (-1.0, [3, 2])])
def test_an_object_behind_a_nearer_one_is_waited_for(depth: float, expected: list[int]) -> None:
    tracker = Tracker(TrackOptions(max_gap=5, appearance=False))
    boxes = [[50, 50, 20, 20], [50, 50, 40, 40]]
    z_depth = torch.tensor([0.0, depth])
    for _ in range(5):
        tracker.update(frame(boxes).replace(z_depth=z_depth), SIZE)
    for _ in range(8):
        tracker.update(frame(boxes[1:]).replace(z_depth=z_depth[1:]), SIZE)
    assert ids(tracker.update(frame(boxes).replace(z_depth=z_depth), SIZE)) == expected


def test_a_second_detection_of_an_object_starts_no_track() -> None:
    class Model:
        score_threshold = 0.2

    tracker = Tracker(model=Model())
    for _ in range(5):
        objects = frame([[50, 50, 20, 20], [52, 50, 16, 18], [120, 50, 20, 20]], scores=[0.9, 0.8, 0.5])
        tracked = tracker.update(objects.replace(visible=torch.tensor([0.9, 0.4, 1.0])), SIZE)
        assert ids(tracked) == [1]  # 0.5 is less than the middle of 0.2 and 1.


def test_frames_of_another_size_continue_the_clip() -> None:
    tracker = Tracker()
    for t in range(10):
        scale = 2 if t > 5 else 1
        tracked = tracker.update(frame([[20 + 4 * t, 30, 20, 20]]), (scale * SIZE[0], scale * SIZE[1]))
        assert ids(tracked) == [1]


def test_a_track_has_the_class_of_most_of_its_score() -> None:
    tracker = Tracker()
    given = []
    for label, score in ((1, 0.9), (0, 0.5), (0, 0.3), (0, 0.9)):
        objects = frame([[50, 50, 20, 20]], scores=[score])
        tracked = tracker.update(objects.replace(labels=torch.tensor([label])), SIZE)
        assert tracked.labels is not None
        given += tracked.labels.tolist()
    assert given == [1, 1, 1, 0]


class Remembering(TemporalModel):
    """A model whose memory is the sum of a track's embeddings, and the number of frames that it spans."""

    def __init__(self) -> None:
        super().__init__(None, ["object"])  # type: ignore[arg-type]
        self.weight = torch.nn.Parameter(torch.zeros(()))

    @property
    def memory_dim(self) -> int:
        return 17

    @property
    def score_threshold(self) -> float:
        return 0.0

    def remember(self, memory: Tensor, z_what: Tensor, clues: Clues) -> Tensor:
        return memory + torch.cat([z_what, clues.gap[:, None]], dim=1)


def test_a_model_with_a_memory_remembers_each_track() -> None:
    what, model = identities(2), Remembering()
    tracker = Tracker(model=model)
    boxes = np.array([[30, 30, 20, 20], [120, 60, 20, 20]], dtype=float)
    for _ in range(3):
        tracker.update(frame(boxes, what), SIZE)
    for _ in range(2):
        tracker.update(frame(boxes[:1], what[:1]), SIZE)
    tracked = tracker.update(frame(boxes, what), SIZE)
    torch.testing.assert_close(tracked.z_what, what * torch.tensor([[6.0], [4.0]]))
    memories = [track.memory for track in tracker._tracks]
    assert [memory[-1].item() for memory in memories if memory is not None] == [6, 6]


def test_the_state_is_bounded_over_many_frames() -> None:
    rng = np.random.default_rng(5)
    tracker, sizes = Tracker(TrackOptions(max_gap=10)), []
    for t in range(1000):
        boxes = np.concatenate([rng.uniform([10, 10], [190, 90], (3, 2)), np.full((3, 2), 8)], axis=1)
        tracked = tracker.update(frame(boxes, torch.from_numpy(rng.normal(size=(3, 16))).float()), SIZE)
        assert len(tracked) == 3
        if t % 200 == 199:
            sizes.append(len(pickle.dumps(tracker)))
    assert max(sizes) < 1.5 * sizes[0]


STANDING = np.array([[30, 30, 20, 20], [90, 30, 20, 20], [150, 30, 20, 20], [60, 75, 20, 20]], dtype=float)


def after_a_loss(back: Tensor, model: TemporalModel | None = None, what: Tensor | None = None) -> Objects:
    """Returns what is tracked where the fourth of four objects is lost, and something appears elsewhere."""
    tracker, what = Tracker(model=model), identities(4) if what is None else what
    for _ in range(15):
        tracker.update(frame(STANDING, what), SIZE)
    for _ in range(8):
        tracker.update(frame(STANDING[:3], what[:3]), SIZE)
    boxes = np.concatenate([STANDING[:3], [[170, 75, 20, 20]]])
    return tracker.update(frame(boxes, torch.cat([what[:3], back[None]])), SIZE)


def mixed(known: Tensor, other: Tensor, likeness: float) -> Tensor:
    """Returns an embedding (D,) whose cosine with a known one is `likeness`, and whose rest is another one's."""
    rest = torch.nn.functional.normalize(other - (other @ known) * known, dim=0)
    return likeness * known + (1 - likeness**2) ** 0.5 * rest


@pytest.mark.parametrize(("likeness", "expected"), [(0.95, 4), (0.0, 5)])
def test_a_likeness_must_be_great_for_recognition(likeness: float, expected: int) -> None:
    assert ids(after_a_loss(mixed(*identities(5)[3:], likeness))) == [1, 2, 3, expected]


@pytest.mark.parametrize(("twins", "expected"), [(0.3, 4), (0.85, 5)])
def test_where_objects_look_alike_by_chance_recognition_needs_more(twins: float, expected: int) -> None:
    what = identities(5)
    what[1] = mixed(what[0], what[1], twins)
    assert ids(after_a_loss(mixed(what[3], what[4], 0.7), what=what[:4])) == [1, 2, 3, expected]


def test_a_recognised_object_keeps_its_memory() -> None:
    tracked = after_a_loss(identities(4)[3], Remembering())
    torch.testing.assert_close(tracked.z_what, identities(4) * torch.tensor([[24.0], [24], [24], [16]]))


def test_a_twin_that_was_seen_beside_an_object_is_never_taken_for_it() -> None:
    tracker, what = Tracker(), identities(4)
    twins = torch.cat([what, what[3:]])
    boxes = np.concatenate([STANDING, [[170, 75, 20, 20]]])
    for _ in range(15):
        tracker.update(frame(STANDING, what), SIZE)
    for _ in range(3):
        tracker.update(frame(boxes, twins), SIZE)
    seen = [0, 1, 2, 4]
    for _ in range(3):
        assert ids(tracker.update(frame(boxes[seen], twins[seen]), SIZE)) == [1, 2, 3, 5]
