"""Tracking metrics equal hand-computed values, motmetrics' golden values, and those of TrackEval."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import motmetrics
import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from ssdir.errors import InputError
from ssdir.evaluation.tracking import tracking_metrics
from ssdir.objects import Objects

FILES = Path(motmetrics.__file__).parent / "data"
CANVAS = 4096
"""Side of an image that holds the boxes which reach outside of theirs, since `Objects` are clipped."""


def clip_of(frames: list[dict[int, list[float]]]) -> Objects:
    """Makes a clip of each frame's boxes, xyxy in [0, 1], by track."""
    rows = [(number, track, box) for number, frame in enumerate(frames) for track, box in frame.items()]
    boxes = torch.tensor([box for _, _, box in rows], dtype=torch.float64).reshape(-1, 4)
    return Objects(
        torch.tensor([number for number, _, _ in rows], dtype=torch.int64),
        len(frames),
        torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], dim=1),
        track_id=torch.tensor([track for _, track, _ in rows], dtype=torch.int64),
    )


LEFT, RIGHT, FAR = [0.1, 0.1, 0.3, 0.3], [0.6, 0.1, 0.8, 0.3], [0.1, 0.7, 0.3, 0.9]


def test_perfect_tracks_under_any_ids() -> None:
    true = clip_of([{1: LEFT, 2: RIGHT}] * 5)
    renamed = clip_of([{70: LEFT, 3: RIGHT}] * 5)
    perfect = {"hota": 1, "det_a": 1, "ass_a": 1, "loc_a": 1, "mota": 1, "idf1": 1}
    none = {"id_switches": 0, "fragmentations": 0}
    for tracked in (true, renamed):
        assert tracking_metrics([true], [tracked]) == pytest.approx(
            {f"tracking/{name}": value for name, value in (perfect | none).items()}
        )


def test_swapped_ids_keep_detection_and_lose_association() -> None:
    """The tracks of two objects over four frames swap after two."""
    true = clip_of([{1: LEFT, 2: RIGHT}] * 4)
    tracked = clip_of([{1: LEFT, 2: RIGHT}] * 2 + [{2: LEFT, 1: RIGHT}] * 2)
    values = tracking_metrics([true], [tracked], prefix="x")
    # Each of the four combinations of ids has 2 matches, of 4 true and 4 tracked boxes: 2 / (4 + 4 - 2).
    assert values["x/ass_a"] == pytest.approx(1 / 3)
    assert values["x/det_a"] == pytest.approx(1)
    assert values["x/hota"] == pytest.approx((1 / 3) ** 0.5)
    assert values["x/id_switches"] == 2
    assert values["x/mota"] == pytest.approx(1 - 2 / 8)
    assert values["x/idf1"] == pytest.approx(0.5)  # one id is right in half of the frames


def test_missing_frames_and_boxes_too_many() -> None:
    """One object over six frames is missed in two frames, and two boxes are false alarms."""
    true = clip_of([{1: LEFT}] * 6)
    tracked = clip_of([{1: LEFT}, {1: LEFT}, {}, {}, {1: LEFT, 9: FAR}, {1: LEFT, 9: FAR}])
    values = tracking_metrics([true], [tracked])
    assert values["tracking/mota"] == pytest.approx(1 - (2 + 2) / 6)
    assert values["tracking/idf1"] == pytest.approx(2 * 4 / (6 + 6))
    assert values["tracking/det_a"] == pytest.approx(4 / 8)
    assert values["tracking/ass_a"] == pytest.approx(4 / 6)
    assert values["tracking/id_switches"] == 0


def test_no_boxes_and_empty_clips() -> None:
    true, nothing = clip_of([{1: LEFT}] * 3), Objects.empty(3)
    missed = tracking_metrics([true], [nothing])
    assert {missed[f"tracking/{name}"] for name in ("hota", "mota", "idf1")} == {0}
    assert tracking_metrics([nothing], [true]) == {}
    assert tracking_metrics([], []) == {}
    # A clip without any object changes nothing, and boxes where nothing is count in the clips together.
    assert tracking_metrics([true, nothing], [true, nothing]) == tracking_metrics([true], [true])
    assert tracking_metrics([true, nothing], [true, true])["tracking/mota"] == pytest.approx(0)


def test_boxes_in_ignored_regions_do_not_count() -> None:
    true = clip_of([{1: LEFT}] * 4)
    tracked = clip_of([{1: LEFT, 2: FAR}] * 4)
    regions = clip_of([{1: [0, 0.6, 0.4, 1]}] * 4)
    assert tracking_metrics([true], [tracked])["tracking/mota"] == pytest.approx(0)
    assert tracking_metrics([true], [tracked], [regions]) == tracking_metrics([true], [true])
    # What matches a true object counts, wherever it is.
    everywhere = clip_of([{1: [0, 0, 1, 1]}] * 4)
    assert tracking_metrics([true], [tracked], [everywhere]) == tracking_metrics([true], [true])


def test_what_can_not_be_compared() -> None:
    true = clip_of([{1: LEFT}] * 3)
    with pytest.raises(ValueError, match="1 true, 2 tracked"):
        tracking_metrics([true], [true, true])
    with pytest.raises(ValueError, match="got 3 with true and 2 with tracked"):
        tracking_metrics([true], [clip_of([{1: LEFT}] * 2)])
    with pytest.raises(ValueError, match="tracked objects of a clip must have a track_id"):
        tracking_metrics([true], [true.replace(track_id=None)])
    twice = true.replace(image_index=torch.tensor([0, 0, 1]))
    with pytest.raises(ValueError, match=r"a true track must be in a frame once, got \[1, 1\] in frame 0"):
        tracking_metrics([twice], [true])


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackers", None)
    true = clip_of([{1: LEFT}])
    with pytest.raises(InputError, match=r"pip install 'ssdir\[video\]'"):
        tracking_metrics([true], [true])


def read_mot(path: Path, frames: int) -> Objects:
    """Reads MOTChallenge's text format without the code that is tested."""
    rows = np.loadtxt(path, delimiter=",")
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    left, top, width, height = rows[:, 2:6].T
    boxes = np.stack([left + width / 2 + 1000, top + height / 2 + 1000, width, height], axis=1) / CANVAS
    return Objects(
        torch.from_numpy(rows[:, 0].astype(np.int64) - 1),
        frames,
        torch.from_numpy(boxes),
        track_id=torch.from_numpy(rows[:, 1].astype(np.int64)),
    )


def sequence(name: str) -> tuple[Objects, Objects]:
    paths = [FILES / name / part for part in ("gt.txt", "test.txt")]
    frames = int(max(np.loadtxt(path, delimiter=",")[:, 0].max() for path in paths))
    true, tracked = (read_mot(path, frames) for path in paths)
    return true, tracked


@pytest.mark.parametrize(
    ("names", "idf1", "switches", "fragmentations", "mota"),
    [
        (["TUD-Campus"], 0.557659, 7, 7, 0.526462),
        (["TUD-Stadtmitte"], 0.644619, 7, 6, 0.564014),
        (["TUD-Campus", "TUD-Stadtmitte"], 0.624296, 14, 13, 0.555116),
    ],
)
def test_golden_values_of_motmetrics(
    names: list[str], idf1: float, switches: int, fragmentations: int, mota: float
) -> None:
    """The golden values are those that py-motmetrics' own tests expect for the files which it ships."""
    true, tracked = zip(*map(sequence, names), strict=True)
    values = tracking_metrics(true, tracked)
    assert values["tracking/idf1"] == pytest.approx(idf1, abs=1e-6)
    assert values["tracking/id_switches"] == switches
    assert values["tracking/fragmentations"] == fragmentations
    assert values["tracking/mota"] == pytest.approx(mota, abs=1e-6)


def trackevals(clips: list[tuple[Objects, Objects]]) -> dict[str, float]:
    """Returns the same metrics by TrackEval, combined over clips."""
    from trackeval.metrics import CLEAR, HOTA, Identity

    metrics = {"hota": HOTA(), "clear": CLEAR({"PRINT_CONFIG": False}), "id": Identity({"PRINT_CONFIG": False})}
    combined = {}
    for family, metric in metrics.items():
        results = {str(number): metric.eval_sequence(as_trackeval(*clip)) for number, clip in enumerate(clips)}
        combined[family] = metric.combine_sequences(results)
    hota = {
        "hota": "HOTA",
        "det_a": "DetA",
        "ass_a": "AssA",
        "loc_a": "LocA",
    }
    return {
        **{f"tracking/{name}": float(np.mean(combined["hota"][key])) for name, key in hota.items()},
        "tracking/mota": float(combined["clear"]["MOTA"]),
        "tracking/idf1": float(combined["id"]["IDF1"]),
        "tracking/id_switches": float(combined["clear"]["IDSW"]),
        "tracking/fragmentations": float(combined["clear"]["Frag"]),
    }


def as_trackeval(true: Objects, tracked: Objects) -> dict[str, Any]:
    def ids(clip: Objects) -> tuple[list[Any], int]:
        assert clip.track_id is not None
        names, numbers = clip.track_id.unique(return_inverse=True)
        parts: tuple[Tensor, ...] = numbers.split(clip.per_image)
        return [part.numpy() for part in parts], len(names)

    (gt_ids, num_gt_ids), (tracker_ids, num_tracker_ids) = ids(true), ids(tracked)
    return {
        "num_timesteps": true.batch_size,
        "num_gt_dets": len(true),
        "num_tracker_dets": len(tracked),
        "num_gt_ids": num_gt_ids,
        "num_tracker_ids": num_tracker_ids,
        "gt_ids": gt_ids,
        "tracker_ids": tracker_ids,
        "similarity_scores": [
            box_iou(a.boxes, b.boxes).numpy() for a, b in zip(true.split(), tracked.split(), strict=True)
        ],
    }


@pytest.mark.parametrize("names", [["TUD-Campus"], ["TUD-Stadtmitte"], ["TUD-Campus", "TUD-Stadtmitte"]])
def test_trackeval_on_real_sequences(names: list[str]) -> None:
    clips = [sequence(name) for name in names]
    true, tracked = zip(*clips, strict=True)
    assert tracking_metrics(true, tracked) == pytest.approx(trackevals(clips), abs=1e-12)


def random_clip(rng: np.random.Generator) -> tuple[Objects, Objects]:
    """Returns a clip of moving boxes, and tracks with misses, false alarms, jitter, swaps and empty frames."""
    true, tracked = [], []
    centres = rng.uniform(0.2, 0.8, (5, 2))
    names = np.arange(1, 6)
    for _ in range(12):
        centres = np.clip(centres + rng.normal(0, 0.03, centres.shape), 0.15, 0.85)
        if rng.random() < 0.15:
            names = rng.permutation(names)
        here = rng.random(5) < (0.0 if rng.random() < 0.1 else 0.8)
        boxes = {n: [*(centres[n] - 0.1), *(centres[n] + 0.1)] for n in range(5) if here[n]}
        true.append({n + 1: box for n, box in boxes.items()})
        seen = {int(names[n]): list(np.array(box) + rng.normal(0, 0.02, 4)) for n, box in boxes.items()}
        kept = {name: box for name, box in seen.items() if rng.random() < 0.8}
        tracked.append(kept if rng.random() < 0.5 else {**kept, 9: LEFT})
    return clip_of(true), clip_of(tracked)


@pytest.mark.parametrize("seed", range(5))
def test_trackeval_on_random_clips(seed: int) -> None:
    rng = np.random.default_rng(seed)
    clips = [random_clip(rng) for _ in range(3)]
    true, tracked = zip(*clips, strict=True)
    ours = tracking_metrics(true, tracked)
    assert ours == pytest.approx(trackevals(clips), abs=1e-12)
    assert 0 < ours["tracking/hota"] < 1
