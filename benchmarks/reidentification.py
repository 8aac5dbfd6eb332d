"""Measures how often the same object is matched in another clip: by its track as one entry, and by single views.

Held-out glyphs move through two clips in groups: the same glyphs in both, with other paths, sizes and occlusion.
Both are tracked as `ssdir track` does. Each track of a second clip whose glyph is among the tracks of the first
clips is a query; the gallery is the tracks of the first clips of all groups. A track is of a glyph if half of its
boxes or more overlap the glyph's true box by half or more.

Run: python benchmarks/reidentification.py --models tiny-mnist --root data/MNIST \
    --out results/video/reidentification.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.preprocessing import normalize
from torch import Tensor
from torchvision.ops import box_iou

from ssdir.analysis.tracks import read_entries
from ssdir.data.readers.splits import SplitName
from ssdir.data.scatter.generator import image_rng
from ssdir.data.scatter.glyphs import Glyphs, load_glyphs
from ssdir.data.scatter.moving import MovingClip, MovingConfig, moving_clip, moving_values
from ssdir.data.video import Frame, FrameSource
from ssdir.documents import json_text, read_json
from ssdir.evaluation.provenance import provenance
from ssdir.inference.predictor import Predictor, load
from ssdir.outputs import atomic_file
from ssdir.store.objects_file import read_stored
from ssdir.tracking.output import TrackFiles
from ssdir.tracking.track import track_clip

OTHER = -1
"""The glyph of a track that is of none."""


class GeneratedFrames(FrameSource):
    """The frames of a generated clip."""

    def __init__(self, clip: MovingClip, name: str) -> None:
        self.clip, self.location = clip, Path(name)
        self.frame_rate, self.length = None, len(clip.images)

    def __iter__(self) -> Iterator[Frame]:
        for number, image in enumerate(self.clip.images):
            yield Frame(number, np.repeat(image[..., None], 3, axis=2), f"{self.location}-{number}.png")


def tracked(predictor: Predictor, clip: MovingClip, name: str) -> dict[str, NDArray[Any]]:
    """Tracks a clip; returns the glyph of each track (T,), and its embedding (T, D) by each arm."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tracks.parquet"
        track_clip(predictor, GeneratedFrames(clip, name), TrackFiles(table=path))
        entries, (objects, _) = read_entries(path), read_stored(path).to_objects()
    assert objects.track_id is not None
    assert objects.z_what is not None
    track, z_what = objects.track_id.numpy(), normalize(objects.z_what.numpy())
    glyphs = glyphs_of_views(clip, objects.image_index.numpy(), objects.boxes_px(clip.images.shape[1:3]))
    views = [np.flatnonzero(track == each) for each in entries.table["track_id"].to_pylist()]
    return {
        "glyph": np.array([glyph_of_track(glyphs[rows]) for rows in views]),
        "clear_views": normalize(entries.z_what),
        "all_views": normalize(np.stack([z_what[rows].mean(axis=0) for rows in views])),
        "first_view": np.stack([z_what[rows[0]] for rows in views]),
    }


def glyphs_of_views(clip: MovingClip, frame: NDArray[np.int64], boxes_px: Tensor) -> NDArray[np.int64]:
    """Returns the glyph whose true box overlaps each box (M, 4) most, by half or more; else `OTHER`."""
    glyphs = np.full(len(frame), OTHER, dtype=np.int64)
    for number in np.unique(frame):
        rows, true = np.flatnonzero(frame == number), np.flatnonzero(clip.frame == number)
        if not len(true):
            continue
        overlap, best = box_iou(boxes_px[rows], torch.from_numpy(clip.boxes_px[true]).float()).max(dim=1)
        glyphs[rows] = np.where(overlap >= 0.5, clip.source_index[true][best], OTHER)
    return glyphs


def glyph_of_track(glyphs: NDArray[np.int64]) -> int:
    """Returns the glyph of at least half of a track's views; else `OTHER`."""
    glyph, count = Counter(glyphs.tolist()).most_common(1)[0]
    return int(glyph) if 2 * count >= len(glyphs) else OTHER


def measure(
    predictor: Predictor, glyphs: Glyphs, config: MovingConfig, groups: int, split: SplitName
) -> dict[str, Any]:
    """Measures rank-1 of each arm over groups of glyphs, each in two clips."""
    chosen, size = np.random.default_rng(config.seed).permutation(len(glyphs)), config.objects[1]
    sides: tuple[list[dict[str, NDArray[Any]]], ...] = ([], [])
    for group in range(groups):
        members = chosen[group * size : (group + 1) * size]
        subset = replace(
            glyphs,
            images=[glyphs.images[member] for member in members],
            labels=glyphs.labels[members],
            indices=glyphs.indices[members],
        )
        for side, tracks in enumerate(sides):
            clip = moving_clip(subset, config, image_rng(config.seed, split, 2 * group + side))
            tracks.append(tracked(predictor, clip, f"{group}-{side}"))
    gallery, queries = (
        {name: np.concatenate([each[name] for each in side]) for name in side[0]} for side in sides
    )
    counted = np.isin(queries["glyph"], gallery["glyph"]) & (queries["glyph"] != OTHER)
    result: dict[str, Any] = {
        "queries": int(counted.sum()),
        "gallery": len(gallery["glyph"]),
        "glyphs": len(set(gallery["glyph"].tolist()) - {OTHER}),
    }
    share = Counter(gallery["glyph"].tolist())
    result["rank1/chance"] = float(
        np.mean([share[each] for each in queries["glyph"][counted]]) / result["gallery"]
    )
    for arm in ("clear_views", "all_views", "first_view"):
        nearest = (queries[arm][counted] @ gallery[arm].T).argmax(axis=1)
        result[f"rank1/{arm}"] = float((gallery["glyph"][nearest] == queries["glyph"][counted]).mean())
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=["tiny-mnist"], help="models, as ssdir.load takes them")
    parser.add_argument("--root", type=Path, help="folder with MNIST's files")
    parser.add_argument("--split", choices=["val", "test"], default="test", help="split of the glyphs")
    parser.add_argument("--difficulty", choices=["standard", "hard"], default="hard")
    parser.add_argument("--groups", type=int, default=25, help="groups of six glyphs")
    parser.add_argument("--frames", type=int, default=30, help="frames of each clip")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="JSON file of all records; others' are kept")
    arguments = parser.parse_args()
    about = {"objects": (6, 6), "same_class": 0.0, "frames": arguments.frames, "seed": arguments.seed}
    config = MovingConfig.model_validate({**moving_values(arguments.difficulty), **about})
    glyphs = load_glyphs("mnist", arguments.split, arguments.root)
    known = read_json(arguments.out)["records"] if arguments.out.exists() else []
    records = {record["model"]: record for record in known}
    for name in arguments.models:
        started = time.perf_counter()
        predictor = load(name, "cpu")
        metrics = measure(predictor, glyphs, config, arguments.groups, arguments.split)
        made = {
            "clips": config.model_dump(mode="json"),
            "groups": arguments.groups,
            "split": arguments.split,
            "model": predictor.fingerprint,
        }
        seconds = time.perf_counter() - started
        record = provenance(made, arguments.seed, "generated", "cpu", seconds)
        records[Path(name).name] = {"model": Path(name).name, "metrics": metrics, "provenance": record}
        print(json.dumps({"model": name, **metrics}), flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(arguments.out, force=True) as temporary:
        temporary.write_text(json_text({"records": list(records.values())}, 1), encoding="utf-8")


if __name__ == "__main__":
    main()
