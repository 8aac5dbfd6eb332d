"""Tracking and identity metrics of clips, with a model whose every answer the test decides."""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from ssdir.errors import InputWarning
from ssdir.evaluation.clips import Clips
from ssdir.evaluation.measure import MeasureOptions, measure
from ssdir.evaluation.tracking import tracking_metrics
from ssdir.objects import Objects
from ssdir.tracking.occlusion import visible_shares
from ssdir.tracking.tracker import Tracker

from .fakes import SIZE, FakeDataset, FakeDetector, FakeEncoder, FakeModel

FRAMES, OBJECTS = 12, 3


class FakeClips(FakeDataset):
    """Two clips of three objects that move right, each in a lane and of a height of its own."""

    def __init__(self, ids: tuple[int, ...] = (1, 2, 3), ranges: tuple[range, ...] | None = None) -> None:
        self.clip_ranges = ranges or (range(FRAMES), range(FRAMES, 2 * FRAMES))
        images = [frame for clip in self.clip_ranges for frame in range(len(clip))]
        targets = [self._frame(frame, ids) for frame in images]
        categories = [torch.tensor([0, 1, 1])] * len(images)
        super().__init__(targets, categories, ["low", "high"])
        self.image_sizes = np.full((len(images), 2), SIZE)

    @staticmethod
    def _frame(frame: int, ids: tuple[int, ...]) -> Objects:
        lanes = torch.linspace(0.2, 0.8, OBJECTS)
        x = torch.full_like(lanes, 0.15 + 0.04 * frame)
        heights = torch.tensor([0.08, 0.12, 0.16])
        z_where = torch.stack([x, lanes, torch.full_like(lanes, 0.1), heights], dim=1)
        visible = torch.tensor([1.0, 0.3 if frame % 2 else 1.0, 0.8])
        rows = torch.zeros(OBJECTS, dtype=torch.int64)
        return Objects(rows, 1, z_where, labels=rows, track_id=torch.tensor(ids), visible=visible)


def by_height(z_where: Tensor, _: Tensor) -> Tensor:
    """Returns an embedding that distinguishes the objects wherever they are."""
    return torch.stack([z_where[:, 3], 0.12 - z_where[:, 3], torch.full_like(z_where[:, 3], 0.01)], dim=1)


def detections(data: FakeDataset, score: float = 0.9) -> dict[int, Objects]:
    """Returns the true boxes as detections, with scores and without identities."""
    return {
        number: Objects(true.image_index, 1, true.z_where, scores=torch.full((len(true),), score))
        for number, true in enumerate(data.targets)
    }


def test_clips_are_measured_as_such() -> None:
    data = FakeClips()
    model = FakeDetector(detections(data), by_height)
    metrics = measure(model, data).metrics
    for name in ("hota", "idf1", "mota"):
        assert metrics[f"tracking/{name}"] == pytest.approx(1, abs=1e-6)
        assert metrics[f"tracking/motion_only/{name}"] == pytest.approx(1, abs=1e-6)
    for gap in (1, 5, 10):
        assert metrics[f"identity/retrieval_at_1_gap_{gap}"] == 1
        assert metrics[f"identity/drift_gap_{gap}"] == pytest.approx(0, abs=1e-6)
        # The features of this detector are boxes: they change where the object moves, and show its height.
        assert metrics[f"identity/pooled_features/drift_gap_{gap}"] > 0
    assert "identity/pooled_features/distance_gap_1" not in metrics
    assert not any(name.endswith("gap_20") for name in metrics)  # of twelve frames, none are so far apart
    assert metrics["detection/recall"] == 1


def test_identities_are_never_shown_to_the_tracker() -> None:
    first, renamed = FakeClips(), FakeClips(ids=(30, 10, 20))
    for options in (MeasureOptions(), MeasureOptions(true_boxes=True)):
        values = [
            measure(FakeModel(detections(data), by_height), data, options=options).metrics
            for data in (first, renamed)
        ]
        assert values[0] == values[1]


def test_a_tracker_is_given_boxes_alone() -> None:
    data = FakeClips()
    data.targets = [
        true.replace(z_where=true.z_where * torch.tensor([1.0, 0.2, 1.0, 1.0])) for true in data.targets
    ]  # so near that each object hides another
    measured = measure(FakeModel(detections(data), by_height), data)
    frames = measured.test.frames
    assert frames is not None
    for objects in (frames.given, frames.detected):
        assert objects.track_id is None
        assert objects.source_index is None
        assert torch.equal(objects.visible, visible_shares(objects))
        assert 0 < (objects.visible < 1).sum() < len(objects)
    assert frames.given.scores is None
    clips = Clips.of(data)
    assert clips is not None
    for tracked in clips.track(Tracker(), frames.given):
        assert tracked.track_id.min() == 1  # each clip anew
        assert tracked.track_id[:OBJECTS].tolist() == [1, 2, 3]


def test_true_boxes_take_the_place_of_detections() -> None:
    data = FakeClips()
    blind = FakeModel({number: Objects.empty(1) for number in range(len(data))}, by_height)
    metrics = measure(blind, data).metrics
    assert metrics["tracking/hota"] == 0
    assert metrics["identity/retrieval_at_1_gap_5"] == 1  # always of the true boxes
    metrics = measure(blind, data, options=MeasureOptions(true_boxes=True)).metrics
    assert metrics["tracking/hota"] == pytest.approx(1, abs=1e-6)
    assert metrics["detection/recall"] == 0


def test_low_scores_continue_tracks_but_start_none() -> None:
    data = FakeClips()
    seen = detections(data)
    for number in range(4, 8):
        seen[number] = seen[number].replace(scores=torch.full((OBJECTS,), 0.3))
    model = FakeModel(seen, by_height)
    metrics = measure(model, data).metrics
    assert metrics["tracking/mota"] == pytest.approx(1)
    assert metrics["detection/recall"] == pytest.approx(20 / 24)  # at the operating point of 0.5
    strict = measure(model, data, options=MeasureOptions(score_threshold=0.8)).metrics
    assert strict["tracking/mota"] == pytest.approx(20 / 24)  # 0.3 is less than half of the threshold


@dataclass
class Detector(FakeEncoder):
    """A model without embeddings."""

    embed: None = field(default=None, init=False)  # type: ignore[assignment]

    def encode(self, images: Tensor, score_threshold: float | None = None) -> Objects:
        numbers = (images[:, 0, 0, 0] * 255).round().long()
        return Objects.cat([self.detections[int(number)] for number in numbers])


def test_a_detector_is_tracked_by_motion_and_has_no_identity() -> None:
    data = FakeClips()
    metrics = measure(Detector(detections(data), by_height), data).metrics
    assert metrics["tracking/idf1"] == pytest.approx(1)
    assert not any(name.startswith(("identity/", "tracking/motion_only")) for name in metrics)


def test_hidden_objects_are_probed() -> None:
    data = FakeClips()
    metrics = measure(FakeModel(detections(data), by_height), data, FakeClips()).metrics
    assert metrics["hidden/objects"] == FRAMES
    assert metrics["hidden/clear/accuracy"] == 1


def test_images_that_are_no_clips_have_no_such_metrics() -> None:
    data = FakeClips(ranges=(range(FRAMES),))
    data.clip_ranges = ()
    metrics = measure(FakeModel(detections(data), by_height), data).metrics
    assert not any(name.startswith(("identity/", "tracking/")) for name in metrics)
    # Nor have clips whose objects have no identities.
    anonymous = FakeClips()
    anonymous.targets = [true.replace(track_id=None) for true in anonymous.targets]
    metrics = measure(
        FakeModel(detections(data), by_height), anonymous, options=MeasureOptions(max_images=3)
    ).metrics
    assert not any(name.startswith(("identity/", "tracking/")) for name in metrics)


def test_without_the_library_identities_are_still_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    data = FakeClips()
    for name in [name for name in sys.modules if name.split(".")[0] == "trackers"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.warns(InputWarning, match=r"no metrics of tracks: .*ssdir\[video\]"):
        metrics = measure(FakeModel(detections(data), by_height), data).metrics
    assert not any(name.startswith("tracking/") for name in metrics)
    assert "identity/drift_gap_5" in metrics


def test_clips_are_cut_where_the_measured_images_end() -> None:
    data = FakeClips(ranges=(range(3), range(3, 10), range(10, 15)))
    clips = Clips.of(data, 5)
    assert clips is not None
    assert clips.ranges == (range(3), range(3, 5))
    objects = Objects.cat(data.targets[:5])
    first, second = clips.cut(objects)
    assert (first.batch_size, second.batch_size) == (3, 2)
    for part, images in ((first, data.targets[:3]), (second, data.targets[3:5])):
        expected = Objects.cat(images)
        assert torch.equal(part.image_index, expected.image_index)
        assert torch.equal(part.z_where, expected.z_where)
    whole = measure(FakeModel(detections(data), by_height), data, options=MeasureOptions(max_images=5)).metrics
    assert whole["tracking/mota"] == tracking_metrics(clips.cut(objects), clips.cut(objects))["tracking/mota"]


@dataclass
class FakeMemory(FakeModel):
    """A model with a memory, which `Rememberer` keeps for it."""

    memory_dim: int = 3


class Rememberer(Tracker):
    """A tracker that returns the mean of a track's embeddings so far, and leaves out the uppermost objects."""

    def reset(self) -> None:
        super().reset()
        self.past: dict[int, list[Tensor]] = defaultdict(list)

    def update(self, objects: Objects, size: tuple[int, int]) -> Objects:
        tracked = super().update(objects[objects.z_where[:, 1] > 0.3], size)
        for track, z_what in zip(tracked.track_id.tolist(), tracked.z_what, strict=True):
            self.past[track].append(z_what)
        means = [torch.stack(self.past[track]).mean(dim=0) for track in tracked.track_id.tolist()]
        return tracked.replace(z_what=torch.stack(means) if means else tracked.z_what)


def noisy(z_where: Tensor, number: Tensor) -> Tensor:
    """Returns `by_height`, but another object's embedding where the object is hidden, in every other frame."""
    hidden = (number % FRAMES % 2 == 1) & (z_where[:, 1] - 0.5).abs().lt(0.1)
    return torch.where(hidden[:, None], -by_height(z_where, number), by_height(z_where, number))


def test_a_memory_runs_through_each_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    data, train = FakeClips(), FakeClips()
    monkeypatch.setattr("ssdir.evaluation.clips.Tracker", Rememberer)
    model = FakeMemory(detections(data), noisy)
    measured = measure(model, data, train)
    targets, frames = measured.test.targets, measured.test.frames
    assert frames is not None
    assert frames.remembered is not None
    for clip in range(2):
        for lane in range(OBJECTS):
            rows = [
                row for row in range(len(targets)) if row % OBJECTS == lane and row // OBJECTS // FRAMES == clip
            ]
            own = frames.given.z_what[rows]
            counts = torch.arange(1, FRAMES + 1)[:, None]
            expected = own if lane == 0 else own.cumsum(0) / counts  # the first lane is above the middle
            assert torch.allclose(frames.remembered[rows], expected, atol=1e-6)
    assert measured.train is not None
    assert measured.train.frames.remembered is not None
    metrics = measured.metrics
    # The first frames of the clip are clear: from then on the memory is right where the single frame is not.
    assert metrics["hidden/accuracy"] == 1
    assert metrics["hidden/single_frame/accuracy"] == 0
    assert metrics["hidden/single_frame/clear/accuracy"] == 1
    assert "hidden/single_frame/objects" not in metrics
    assert metrics["identity/drift_gap_1"] < metrics["identity/single_frame/drift_gap_1"]
    assert "identity/single_frame/auroc_gap_1" not in metrics


def test_a_model_built_without_a_memory_has_none() -> None:
    data = FakeClips()
    model = FakeMemory(detections(data), by_height, memory_dim=0)
    measured = measure(model, data, FakeClips())
    assert not any("single_frame" in name for name in measured.metrics)
    assert measured.train is not None
    assert measured.train.frames is None
