"""Tracks clips by several trackers on the same boxes, and measures each against the true tracks.

The boxes are a model's detections, or with `--true-boxes` the true ones without their identities. Measurements
that the file has of the same weights, data and options are kept, so that an interrupted run goes on; `--again`
replaces those that are asked for.

Run: python benchmarks/tracking.py --model runs/clips --data standard=data/clips --out results/video/tracking.json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import pairwise, starmap
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from trackers import BoTSORTTracker, ByteTrackTracker, OCSORTTracker

import ssdir
from ssdir.data.dataset import ObjectDataset, fingerprint
from ssdir.data.readers.registry import open_dataset
from ssdir.documents import json_text
from ssdir.errors import InputError
from ssdir.evaluation.clips import Clips, clip_identity_metrics, for_true_boxes
from ssdir.evaluation.collect import Collector, Split, collect
from ssdir.evaluation.provenance import provenance
from ssdir.evaluation.tracking import tracking_metrics
from ssdir.models.base import EmbeddingModel
from ssdir.models.detected.model import DetectedModel
from ssdir.models.io import weights_fingerprint
from ssdir.objects import Objects
from ssdir.outputs import atomic_file
from ssdir.tracking.options import TrackOptions
from ssdir.tracking.tracker import Tracker
from ssdir.tracking.tracks import Track

IDENTITY = "identity"
"""Name of the record on the embeddings of the true boxes, which takes no tracker."""


class FrameTracker(Protocol):
    """Gives the objects of successive frames their tracks, like `Tracker`."""

    def reset(self) -> None:
        """Forgets all tracks."""

    def update(self, objects: Objects, size: tuple[int, int]) -> Objects:
        """Returns the objects of a frame, whose (height, width) in pixels is `size`, that have a track."""


@dataclass(frozen=True)
class Arm:
    """A way to track.

    Attributes:
        make: makes its tracker from the model and the options.
        pooled: whether the detector's features in each box take the place of `z_what`.
    """

    make: Callable[[EmbeddingModel, TrackOptions], FrameTracker]
    pooled: bool = False


def by_motion(model: EmbeddingModel, options: TrackOptions) -> Tracker:
    """Makes the tracker without appearance."""
    return Tracker(replace(options, appearance=False), model)


def by_appearance(model: EmbeddingModel, options: TrackOptions) -> Tracker:
    """Makes the tracker with appearance."""
    return Tracker(options, model)


class LibraryTracker:
    """A tracker of the `trackers` library, with the thresholds and the patience of ours.

    Args:
        make: makes a new one.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self.reset()

    def reset(self) -> None:
        """Forgets all tracks."""
        self._tracker = self._make()

    def update(self, objects: Objects, size: tuple[int, int]) -> Objects:
        """Returns the objects of a frame that have a track."""
        detections = objects.to_supervision(size)
        detections.data["row"] = np.arange(len(objects))
        tracked = self._tracker.update(detections)
        if not len(tracked):  # Without the data of the detections.
            return objects[:0].replace(track_id=torch.zeros(0, dtype=torch.int64))
        tracked = tracked[tracked.tracker_id >= 0]
        tracked = tracked[np.argsort(tracked.data["row"])]
        rows = torch.from_numpy(tracked.data["row"].astype(np.int64))
        return objects[rows].replace(track_id=torch.from_numpy(tracked.tracker_id.astype(np.int64)) + 1)


def by_bytetrack(model: EmbeddingModel, options: TrackOptions) -> LibraryTracker:
    """Makes ByteTrack (Zhang et al., 2022), by motion alone."""
    return LibraryTracker(lambda: ByteTrackTracker(**_as_ours(model, options)))


def by_botsort(model: EmbeddingModel, options: TrackOptions) -> LibraryTracker:
    """Makes BoT-SORT (Aharon et al., 2022), by motion alone, without the camera's, which stands still."""
    return LibraryTracker(lambda: BoTSORTTracker(**_as_ours(model, options), enable_cmc=False))


def by_ocsort(model: EmbeddingModel, options: TrackOptions) -> LibraryTracker:
    """Makes OC-SORT (Cao et al., 2023), by motion alone."""
    shared = _as_ours(model, options)
    # It has one threshold, and starts a track from each detection above it.
    shared["high_conf_det_threshold"] = shared.pop("track_activation_threshold")
    return LibraryTracker(lambda: OCSORTTracker(**shared))


class LastViewTracker(Tracker):
    """Compares detections with the last view of each track, whatever hid it, and recognises none that was lost."""

    def _see(self, track: Track, frame: Any, row: int) -> None:
        track.gallery = None
        super()._see(track, replace(frame, clearness=np.ones_like(frame.clearness)), row)


def by_last_view(model: EmbeddingModel, options: TrackOptions) -> Tracker:
    """Makes the tracker without galleries."""
    return LastViewTracker(options, model)


def _as_ours(model: EmbeddingModel, options: TrackOptions) -> dict[str, Any]:
    thresholds = options.thresholds(model.score_threshold)
    return {
        "track_activation_threshold": thresholds.start,
        "high_conf_det_threshold": thresholds.confident,
        "lost_track_buffer": options.max_gap,
        "minimum_consecutive_frames": options.min_frames,
    }


ARMS = {
    "motion": Arm(by_motion),
    "z_what": Arm(by_appearance),
    "pooled_features": Arm(by_appearance, pooled=True),
    "last_view": Arm(by_last_view),
    "bytetrack": Arm(by_bytetrack),
    "botsort": Arm(by_botsort),
    "ocsort": Arm(by_ocsort),
}


class PooledAppearance:
    """A model's detections, whose `z_what` are the pooled features of its detector."""

    def __init__(self, model: DetectedModel) -> None:
        self.model, self.image_size, self.score_threshold = model, model.image_size, model.score_threshold

    def encode(self, images: Tensor, score_threshold: float | None = None) -> Objects:
        """Detects objects, with z_depth as the model has it."""
        return self._swapped(images, self.model.encode(images, score_threshold))

    def embed(self, images: Tensor, boxes: Objects) -> Objects:
        """Embeds given boxes, with z_depth as the model has it."""
        return self._swapped(images, self.model.embed(images, boxes))

    def _swapped(self, images: Tensor, objects: Objects) -> Objects:
        return objects.replace(z_what=self.model.pooled_features(images, objects), z_what_scale=None)


@dataclass(frozen=True)
class Source:
    """A data set and a model.

    Attributes:
        name: of the data set, in records.
        data: the open split.
        model: the model.
        clips: which images are the frames of which clip.
        true_boxes: whether the true boxes take the place of detections.
        options: options of tracking.
        cache: folder of frames that were read; None reads them anew.
        every: one of so many frames is tracked, as of a camera with fewer frames per second.
    """

    name: str
    data: ObjectDataset
    model: EmbeddingModel
    clips: Clips
    true_boxes: bool
    options: TrackOptions
    cache: Path | None
    every: int

    @cached_property
    def config(self) -> dict[str, Any]:
        """The model and the options of tracking, for provenance."""
        model = {"fingerprint": weights_fingerprint(self.model), "kind": type(self.model).__name__}
        return {"model": model, "track": asdict(self.options)}

    @cached_property
    def data_hash(self) -> str:
        """The fingerprint of the data, for provenance."""
        return fingerprint(self.data)

    def is_of(self, record: dict[str, Any]) -> bool:
        """Returns whether a record is of the same weights, data and options of tracking."""
        made = record["provenance"]
        return made["config"] == self.config and made["data_hash"] == self.data_hash

    def frames(self, *, pooled: bool, batch_size: int) -> Split:
        """Returns what was read of all frames, from the cache if it is there."""
        if self.cache is None:
            return self._read(pooled=pooled, batch_size=batch_size)
        start = self.options.thresholds(self.model.score_threshold)
        names = [self.config["model"]["fingerprint"], self.data_hash, str(start), str(pooled)]
        path = self.cache / f"{hashlib.sha256(' '.join(names).encode()).hexdigest()[:24]}.pt"
        if path.exists():
            kept: Split = torch.load(path, weights_only=False)
            return kept
        split = self._read(pooled=pooled, batch_size=batch_size)
        self.cache.mkdir(parents=True, exist_ok=True)
        with atomic_file(path, force=True) as temporary:
            torch.save(split, temporary)
        return split

    def _read(self, *, pooled: bool, batch_size: int) -> Split:
        """Reads all frames, by the model or by its detector's pooled features."""
        model: Any = self.model
        if pooled:
            if not isinstance(self.model, DetectedModel):
                raise InputError("pooled_features needs a model with a detector")
            model = PooledAppearance(self.model)
        tracked = self.options.thresholds(self.model.score_threshold)
        return collect(Collector(model, kept="embeddings", tracked=tracked), self.data, batch_size=batch_size)

    def measure(self, split: Split, arm: str) -> dict[str, float]:
        """Measures one arm on frames that were read."""
        assert split.frames is not None
        if arm == IDENTITY:
            return clip_identity_metrics(split, self.clips)
        taken = split.frames.given if self.true_boxes else split.frames.detected
        options = for_true_boxes(self.options) if self.true_boxes else self.options
        tracker: Any = ARMS[arm].make(self.model, replace(options, max_gap=options.max_gap // self.every))
        clips, (taken, targets, ignored) = self.thinned(taken, split.targets, split.ignored)
        return tracking_metrics(clips.cut(targets), clips.track(tracker, taken), clips.cut(ignored))

    def thinned(self, *parts: Objects) -> tuple[Clips, list[Objects]]:
        """Returns the clips with one of `every` frames, and the objects of these."""
        kept = [image for images in self.clips.ranges for image in images[:: self.every]]
        place = torch.full((len(self.clips.sizes),), -1)
        place[kept] = torch.arange(len(kept))
        ends = np.cumsum([0, *(len(images[:: self.every]) for images in self.clips.ranges)]).tolist()
        clips = Clips(tuple(starmap(range, pairwise(ends))), tuple(self.clips.sizes[image] for image in kept))
        rows = [(place[part.image_index] >= 0).nonzero().squeeze(1) for part in parts]
        thin = [
            part.regrouped(row, place[part.image_index[row]], len(kept))
            for part, row in zip(parts, rows, strict=True)
        ]
        return clips, thin


def records(source: Source, arms: list[str], batch_size: int) -> Iterator[dict[str, Any]]:
    """Yields the record of each arm; frames are read once for all arms of the same embedding."""
    counts = {"clips": len(source.clips.ranges), "frames": len(source.data)}
    for pooled in (False, True):
        chosen = [arm for arm in arms if pooled == (arm != IDENTITY and ARMS[arm].pooled)]
        if not chosen:
            continue
        split = source.frames(pooled=pooled, batch_size=batch_size)
        for arm in chosen:
            started = time.perf_counter()
            metrics = source.measure(split, arm)
            seconds = time.perf_counter() - started
            record = provenance(source.config, None, source.data_hash, str(source.model.device), seconds)
            yield {"arm": arm, **counts, "objects": len(split.targets), "metrics": metrics, "provenance": record}


def open_source(name: str, path: str, arguments: argparse.Namespace) -> Source:
    """Opens a data set for the model, which must embed given boxes."""
    predictor = ssdir.load(arguments.model)
    model = predictor.encoder
    if not isinstance(model, EmbeddingModel):
        raise InputError(f"{arguments.model}: the model must have embeddings")
    names = predictor.class_names
    classes: Any = "object" if names == ["object"] else names
    data = open_dataset(path, arguments.split, classes, model.image_size, resize=model.resize)
    clips = Clips.of(data)
    if clips is None:
        raise InputError(f"{path}: the data set has no clips")
    options = TrackOptions(score_threshold=arguments.score_threshold)
    every = arguments.every
    return Source(name, data, model.eval(), clips, arguments.true_boxes, options, arguments.cache, every)


def table(known: list[dict[str, Any]]) -> str:
    """Formats HOTA, IDF1 and MOTA of each data set and arm as Markdown: means over models ± deviations."""
    groups: dict[tuple[str, ...], list[dict[str, float]]] = {}
    for record in known:
        if record["arm"] != IDENTITY:
            key = tuple(str(record[name]) for name in ("data", "split", "every", "boxes", "arm"))
            groups.setdefault(key, []).append(record["metrics"])
    lines = [
        "| data | split | every | boxes | tracker | models | HOTA | IDF1 | MOTA |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for key, measured in groups.items():
        values = [[metrics[f"tracking/{name}"] for metrics in measured] for name in ("hota", "idf1", "mota")]
        cells = [f"{np.mean(each):.3f}" + (f" ± {np.std(each):.3f}" if len(each) > 1 else "") for each in values]
        lines.append(f"| {' | '.join([*key, str(len(measured)), *cells])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="name of a shipped model, or folder of a run")
    parser.add_argument("--data", required=True, nargs="+", metavar="NAME=FOLDER", help="data sets of clips")
    parser.add_argument("--split", default="test")
    parser.add_argument("--arms", nargs="+", choices=[*ARMS, IDENTITY], default=[*ARMS, IDENTITY])
    parser.add_argument("--true-boxes", action="store_true", help="track the true boxes")
    parser.add_argument("--every", type=int, default=1, help="track one of so many frames")
    parser.add_argument("--score-threshold", type=float, help="least score that starts a track")
    parser.add_argument("--seed", type=int, help="seed of the model's training, for the records")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--cache", type=Path, help="folder to keep what was read of the frames, for the next run")
    parser.add_argument("--again", action="store_true", help="replace what was measured before")
    parser.add_argument("--out", type=Path, required=True, help="JSON file of all records")
    arguments = parser.parse_args()
    known: list[dict[str, Any]] = json.loads(arguments.out.read_text()) if arguments.out.exists() else []
    for entry in arguments.data:
        name, _, path = entry.partition("=")
        key = {
            "data": name,
            "split": arguments.split,
            "boxes": "true" if arguments.true_boxes else "detected",
            "model": Path(arguments.model).name,
            "seed": arguments.seed,
            "score_threshold": arguments.score_threshold,
            "every": arguments.every,
        }
        source = open_source(name, path, arguments)
        kept = [each for each in known if key.items() <= each.items() and source.is_of(each)]
        done = [] if arguments.again else [record["arm"] for record in kept]
        arms = [arm for arm in arguments.arms if arm not in done]
        if not arms:
            continue
        with torch.no_grad():
            for record in records(source, arms, arguments.batch_size):
                made = {**key, **record}
                known = [each for each in known if not {**key, "arm": made["arm"]}.items() <= each.items()] + [
                    made
                ]
                with atomic_file(arguments.out, force=True) as temporary:
                    temporary.write_text(json_text(known, 1), encoding="utf-8")
                shown = {part: round(value, 4) for part, value in made["metrics"].items()}
                print(json.dumps({"data": name, "arm": made["arm"], **shown}), flush=True)
    print(table(known))


if __name__ == "__main__":
    main()
