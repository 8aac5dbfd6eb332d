"""Measures encoding by Ray's workers against one process: throughput, scaling, memory, and damaged images.

Images of 96 px with scattered digits are made once, and linked to the number that is asked for. Each run is a
process of its own that calls `encode_images`. Throughput counts from the end of the first part to that of the
last; the images of the other workers' first parts are left out, so that start-up is in neither images nor seconds.
Start-up is the time until the first part is there, less the time that it takes to encode one.

Run: python benchmarks/encoding.py --out results/bench/encoding.json  (--small for a trial)
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from ssdir.data.scatter.generator import ScatterConfig
from ssdir.data.scatter.writer import write_scatter
from ssdir.documents import json_text
from ssdir.evaluation.provenance import provenance
from ssdir.outputs import atomic_file
from ssdir.store.info import read_info
from ssdir.store.skipped import read_skipped

MODEL = "tiny-digits"
SIDE, DIFFERENT_IMAGES, IMAGES_PER_FOLDER = 96, 1000, 5000
SAMPLE_SECONDS = 1.0


def make_images(folder: Path, count: int, seed: int, damaged: int = 0) -> Path:
    """Makes a folder with so many JPEG files, links to a thousand different ones; some are cut short."""
    source = folder.parent / f"images-{seed}"
    if not source.exists():
        scatter = folder.parent / f"scatter-{seed}"
        write_scatter(
            scatter, "digits", ScatterConfig(canvas=SIDE, train=DIFFERENT_IMAGES, val=0, test=0, seed=seed)
        )
        source.mkdir()
        for path in (scatter / "train").iterdir():
            Image.open(path).convert("RGB").save(source / f"{path.stem}.jpg", quality=90)
    files = sorted(source.iterdir())
    cut = set(np.random.default_rng(seed).choice(count, damaged, replace=False).tolist())
    for number in range(count):
        place = folder / f"{number // IMAGES_PER_FOLDER:03d}" / f"{number:06d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        file = files[number % len(files)]
        if number in cut:
            place.write_bytes(file.read_bytes()[: file.stat().st_size // 3])
        else:
            place.hardlink_to(file)
    return folder


def encode(images: str, out: str, workers: int, images_per_part: int | None) -> None:
    """Encodes in this process, or by Ray's workers if their number isn't 0; prints when parts were done."""
    from ssdir.encoding.encode import encode_images
    from ssdir.encoding.options import EncodeOptions
    from ssdir.encoding.ray_engine import RayWorkers

    part = images_per_part or EncodeOptions().part_size(sum(len(names) for *_, names in os.walk(images)))
    last = 0

    def report(done: int, total: int, stage: str | None = None) -> None:
        nonlocal last
        if done // part > last // part or (done == total and done > last):
            print(json.dumps([time.time(), done]), flush=True)
        last = done

    by_ray = RayWorkers(workers=workers) if workers else None
    encode_images(MODEL, [images], out, EncodeOptions(images_per_part=part), on_progress=report, workers=by_ray)


@dataclass
class Run:
    """A run of `encode`: when how many images were done, and the largest sum of memory of its processes."""

    workers: int
    started: float
    events: list[tuple[float, int]]
    ended: float
    peak_mb: float
    peak_by_process: dict[str, float]

    def record(self) -> dict[str, Any]:
        """Returns what is stored."""
        (first, part), (last, images) = self.events[0], self.events[-1]
        left_out = part * max(1, self.workers)
        rate = (images - left_out) / (last - first)
        return {
            "images": images,
            "images_per_s": rate,
            "start_up_s": first - self.started - left_out / rate,
            "seconds": self.ended - self.started,
            "peak_pss_mb": self.peak_mb,
            "peak_pss_mb_by_process": self.peak_by_process,
        }


def run(images: Path, out: Path, workers: int, threads: int, images_per_part: int | None = None) -> Run:
    """Runs `encode` in a new process whose libraries use so many threads, and watches its memory."""
    how = json.dumps([str(images), str(out), workers, images_per_part])
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    started = time.time()
    with tempfile.TemporaryFile("w+") as output:
        command = [sys.executable, __file__, "--encode", how]
        process = psutil.Popen(command, stdout=output, env=environment)
        peak, by_process = 0.0, Counter[str]()
        while process.poll() is None:
            shares = memory_of(process)
            peak = max(peak, sum(shares.values()))
            by_process |= shares
            time.sleep(SAMPLE_SECONDS)
        if process.returncode:
            raise SystemExit(f"encoding by {workers} workers ended with code {process.returncode}")
        ended = time.time()
        output.seek(0)
        events = [tuple(json.loads(line)) for line in output if line.startswith("[")]
    return Run(workers, started, events, ended, peak, dict(by_process))


def memory_of(process: psutil.Process) -> Counter[str]:
    """Returns the PSS of a process and those that it has started, in MB, summed by what they are."""
    shares: Counter[str] = Counter()
    try:
        for each in (process, *process.children(recursive=True)):
            shares[role(each, process)] += each.memory_full_info().pss / 1e6
    except psutil.Error:  # It has ended.
        pass
    return shares


def role(process: psutil.Process, driver: psutil.Process) -> str:
    name = (process.cmdline() or [process.name()])[0]
    if process == driver:
        return "driver"
    return "workers" if "_Worker" in name else "rest of Ray"


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    count, many = (2000, 5000) if arguments.small else (20_000, 100_000)
    images = make_images(folder / f"{count}", count, arguments.seed)
    part = 100 if arguments.small else None
    runs: dict[str, list[Run]] = {"one process, 2 threads": [], "2 workers": [], "1 worker": []}
    kinds = dict(zip(runs, [(0, 2), (2, 1), (1, 1)], strict=True))
    for repeat in range(arguments.repeats):
        for name, (workers, threads) in kinds.items():
            out = folder / f"{workers}-{repeat}"
            runs[name].append(run(images, out, workers, threads, part))
            show(name, runs[name][-1].record())
    records = {name: [each.record() for each in several] for name, several in runs.items()}
    plain, two, one = (statistics.median(each["images_per_s"] for each in several) for several in records.values())
    large = make_images(folder / f"{many}", many, arguments.seed)
    memory = run(large, folder / "many", 2, 1, part).record()
    show("2 workers, many images", memory)
    peak = statistics.median(each["peak_pss_mb"] for each in records["2 workers"])
    return {
        "runs": records,
        "ray_2_workers_to_one_process": two / plain,
        "ray_2_workers_to_1": two / one,
        "many_images": memory,
        "memory_of_many_to_few": memory["peak_pss_mb"] / peak,
        "damaged": encode_damaged(folder, arguments),
    }


def encode_damaged(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Encodes images of which a tenth is damaged, and counts those that are reported."""
    count = 500 if arguments.small else 5000
    images = make_images(folder / "with-damaged", count, arguments.seed, count // 10)
    out = folder / "damaged"
    run(images, out, 2, 1, count // 10)
    skipped, info = read_skipped(out), read_info(out)
    record = {"images": count, "damaged": count // 10, "skipped": len(skipped), "encoded": info.images_seen}
    print("damaged images", record, flush=True)
    return record


def show(name: str, record: dict[str, Any]) -> None:
    shown = ("images_per_s", "start_up_s", "seconds", "peak_pss_mb")
    print(f"{name:25s}", ", ".join(f"{each} {record[each]:.1f}" for each in shown), flush=True)


def write_record(
    results: dict[str, Any], arguments: argparse.Namespace, config: Sequence[str], started: float
) -> None:
    """Writes results with their provenance, of which `config` names arguments, if a file was asked for."""
    if arguments.out is None:
        return
    chosen = {name: getattr(arguments, name) for name in config}
    about = provenance(chosen, arguments.seed, None, "cpu", time.perf_counter() - started)
    with atomic_file(arguments.out, force=True) as temporary:
        temporary.write_text(json_text({**results, "provenance": about}), encoding="utf-8")


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--only-damaged", action="store_true", help="measure nothing else")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small", action="store_true", help="few images, for a trial")
    parser.add_argument("--encode", help=argparse.SUPPRESS)
    arguments = parser.parse_args(given)
    if arguments.encode:
        encode(*json.loads(arguments.encode))
        return
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.only_damaged:
            results = {"damaged": encode_damaged(Path(folder), arguments)}
        else:
            results = measure(Path(folder), arguments)
    print({name: value for name, value in results.items() if isinstance(value, float)})
    write_record(results, arguments, ("repeats", "seed", "small"), started)


if __name__ == "__main__":
    main()
