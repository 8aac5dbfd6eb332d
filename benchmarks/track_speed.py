"""Measures the time per frame of tracking over that of encoding alone, and the memory of long clips.

Both write a table. `seconds_per_frame` is the median of rounds in which they take turns, `ratio` that of the
ratios of each round. Memory is the peak of a new process that tracks a long clip.

Run: python benchmarks/track_speed.py --mnist shared/data/MNIST --sequences shared/data/tracking \
    --out results/video/speed.json
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import ssdir
from ssdir.benchmark.memory import peak_megabytes
from ssdir.benchmark.timing import Spread, in_turn, ratio
from ssdir.data.image_files import images_in
from ssdir.data.images import Image8
from ssdir.data.scatter.glyphs import load_glyphs
from ssdir.data.scatter.moving import MovingConfig, moving_clip, moving_values
from ssdir.data.video import Frame, ImageFrames
from ssdir.documents import json_text
from ssdir.evaluation.provenance import provenance
from ssdir.identity import Identity
from ssdir.inference.files import encode_files
from ssdir.inference.predictor import Predictor
from ssdir.outputs import atomic_file
from ssdir.store.writer import ObjectWriter
from ssdir.tracking.options import TrackOptions
from ssdir.tracking.output import TrackFiles, TrackWriters
from ssdir.tracking.track import stream_tracks, track_clip

DIGITS, PHOTOGRAPHS = "tiny-mnist", "photos"
SEQUENCE = "PETS09-S2L1"
START = {DIGITS: None, PHOTOGRAPHS: 0.3}
"""Score that starts a track; people in the sequence score less than the default of `photos`."""


def digits(mnist: Path | None, frames: int, seed: int) -> list[Image8]:
    """Generates a hard clip of moving digits of MNIST's test split, frames uint8 (H, W, 3)."""
    config = MovingConfig(**{"frames": frames, "train": 1, "val": 0, "test": 0, **moving_values("hard")})
    clip = moving_clip(load_glyphs("mnist", "test", mnist), config, np.random.default_rng(seed))
    return [np.repeat(image[..., None], 3, axis=2) for image in clip.images]


def write_frames(folder: Path, frames: Sequence[Image8]) -> Path:
    folder.mkdir()
    for number, pixels in enumerate(frames, 1):
        Image.fromarray(pixels).save(folder / f"{number:06d}.png")
    return folder


def encode_alone(model: Predictor, folder: Path, out: Path) -> None:
    identity = Identity.of("model", model)
    about = (identity.model, identity.class_names, identity.latent_dim, identity.fingerprint)
    with ObjectWriter(out, *about) as writer:
        for batch in encode_files(model, images_in(folder)):
            writer.write(batch.objects, batch.paths, batch.sizes, numbers=batch.indices)


def track(model: Predictor, folder: Path, out: Path, start: float | None = None) -> int:
    """Returns the number of tracks."""
    return track_clip(model, folder, TrackFiles(out, force=True), TrackOptions(score_threshold=start)).tracks


def measure_time(name: str, folder: Path, repeats: int) -> dict[str, Any]:
    model, count = ssdir.load(name, "cpu"), len(images_in(folder))
    with tempfile.TemporaryDirectory() as place:
        variants = {
            "encode": partial(encode_alone, model, folder, Path(place, "encoded.parquet")),
            "track": partial(track, model, folder, Path(place, "tracks.parquet"), START[name]),
        }
        tracks = track(model, folder, Path(place, "tracks.parquet"), START[name])
        wall = in_turn(variants, repeats)
    record = {
        "model": name,
        "frames": count,
        "tracks": tracks,
        "seconds_per_frame": {each: Spread.of(s / count for s in wall[each]).model_dump() for each in variants},
        "ratio": ratio(wall["track"], wall["encode"]).model_dump(),
    }
    print(folder.name, record, flush=True)
    return record


def peaks(mnist: Path | None, counts: Sequence[int], seed: int, out: Path) -> dict[str, float]:
    """Tracks a long clip, and returns the peak memory of this process, in MiB, after some numbers of frames."""
    model, pictures = ssdir.load(DIGITS, "cpu"), digits(mnist, 500, seed)

    def frames() -> Iterator[Frame]:
        for index in range(max(counts) + 1):
            yield Frame(index, pictures[index % len(pictures)], f"clip.mp4#frame={index}")

    record = {"0": peak_megabytes()}
    clip = ImageFrames([Path("clip.mp4")])
    with TrackWriters(TrackFiles(out, force=True), clip, Identity.of(DIGITS, model)) as writers:
        for frame in stream_tracks(model, frames()):
            writers.write(frame)
            if frame.index in counts:
                record[str(frame.index)] = peak_megabytes()
                print(f"{frame.index} frames: peak {peak_megabytes():.0f} MiB", flush=True)
    return record


def measure_memory(mnist: Path | None, counts: Sequence[int], seed: int) -> dict[str, Any]:
    """Measures memory in a new process, whose peak is of nothing else."""
    with tempfile.TemporaryDirectory() as place, multiprocessing.get_context("spawn").Pool(1) as pool:
        record = pool.apply(peaks, (mnist, counts, seed, Path(place, "tracks.parquet")))
    return {"model": DIGITS, "peak_mib_after_frames": record}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--mnist", type=Path, help="folder of MNIST's files; by default it is downloaded")
    parser.add_argument("--sequences", type=Path, help=f"folder that holds the sequence {SEQUENCE}")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small", action="store_true", help="few frames, for a trial")
    parser.add_argument("--only", choices=["time", "memory"])
    arguments = parser.parse_args()
    started, results = time.perf_counter(), dict[str, Any]()
    if arguments.only != "memory":
        with tempfile.TemporaryDirectory() as place:
            pictures = digits(arguments.mnist, 100 if arguments.small else 500, arguments.seed)
            clip = write_frames(Path(place, "digits"), pictures)
            results["moving digits"] = measure_time(DIGITS, clip, arguments.repeats)
            if arguments.sequences is not None:
                files = images_in(arguments.sequences / SEQUENCE / "img1")[: 24 if arguments.small else None]
                photographs = [np.asarray(Image.open(file).convert("RGB")) for file in files]
                clip = write_frames(Path(place, SEQUENCE), photographs)
                results[SEQUENCE] = measure_time(PHOTOGRAPHS, clip, arguments.repeats)
    if arguments.only != "time":
        counts = (200, 400, 800) if arguments.small else (1000, 2000, 5000, 10_000)
        results["memory"] = measure_memory(arguments.mnist, counts, arguments.seed)
    if arguments.out is not None:
        chosen = {name: getattr(arguments, name) for name in ("repeats", "seed", "small")}
        about = provenance(chosen, arguments.seed, None, "cpu", time.perf_counter() - started)
        with atomic_file(arguments.out, force=True) as temporary:
            temporary.write_text(json_text({**results, "provenance": about}), encoding="utf-8")


if __name__ == "__main__":
    main()
