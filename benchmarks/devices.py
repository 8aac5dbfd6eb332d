"""Training on two processes against one: how equal the losses of each step are, and how fast the steps.

    python benchmarks/devices.py [--steps 200] [--out results/bench/devices.json]

The recipe is `tiny` on scattered digits, 128×128, with AdamW at a constant rate of 1e-5: larger steps amplify
rounding, on one process as on two. `threads` is the difference of one process from itself with two threads.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from ssdir.data.scatter.generator import ScatterConfig
from ssdir.data.scatter.writer import write_scatter
from ssdir.outputs import atomic_file
from ssdir.training.fit import train
from ssdir.training.loading import Batch
from ssdir.training.loop import StageLoop
from ssdir.training.processes import find_place
from ssdir.training.recipe import read_recipe
from ssdir.training.session import Session

IMAGES, STAGES = 320, ("detector", "representation")
DETECTOR_EPOCHS = 8
"""Of the detector that the representation is trained on, by the preset's own steps."""

STEP: dict[str, Any] = {"optimizer": "adamw", "lr": 1e-5, "schedule": "constant"}


def record(data: str, out: str, file: str, *overrides: str) -> None:
    """Trains a stage, and writes the total loss of each step, and the seconds of all steps but the first five."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    recipe, losses, times = read_recipe("tiny", overrides), list[float](), list[float]()
    step = StageLoop.step

    def recorded(loop: StageLoop, batch: Batch) -> dict[str, float]:
        values = step(loop, batch)
        losses.append(values["total"])
        times.append(time.perf_counter())
        return values

    StageLoop.step = recorded  # type: ignore[assignment,method-assign]
    session = Session(progress=lambda *_: None, device="cpu")
    train(recipe, Path(data), Path(out), resume=Path(out).exists(), session=session)
    if not find_place(recipe).rank:
        Path(file).write_text(json.dumps({"losses": losses, "seconds": times[-1] - times[5]}))


def run(folder: Path, stage: str, name: str, epochs: int, threads: int, devices: int) -> dict[str, Any]:
    """Trains a stage in a process of its own: the detector anew, the representation on one that detects."""
    out, file = folder / f"{stage}-{name}", folder / f"{stage}-{name}.json"
    options = [f"stage={stage}", "precision=single", f"devices={devices}"]
    if name == "base" or stage == "representation":
        options.append(f"detector.epochs={DETECTOR_EPOCHS}")
    if stage == "representation":
        shutil.copytree(folder / "detector-base", out)
    measured = "representation" if name == "base" else stage
    options += [f"{measured}.{key}={value}" for key, value in {"epochs": epochs, **STEP}.items()]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    where = [str(folder / "data"), str(out), str(file)]
    subprocess.run([sys.executable, __file__, "--record", *where, *options], env=environment, check=True)
    result: dict[str, Any] = json.loads(file.read_text())
    return result


def largest(first: dict[str, Any], second: dict[str, Any], steps: int) -> float:
    """Returns the largest relative difference of the losses of the first steps."""
    pairs = list(zip(first["losses"], second["losses"], strict=True))[:steps]
    return float(max(abs(one - two) / abs(one) for one, two in pairs))


def measure(steps: int) -> dict[str, Any]:
    """Returns, by stage, the largest relative differences and the ratios of throughput."""
    results: dict[str, Any] = {"steps": steps, "images": IMAGES, **STEP}
    with TemporaryDirectory() as place:
        folder = Path(place)
        config = ScatterConfig(canvas=128, grids=(3, 4), train=IMAGES, val=16, test=0)
        write_scatter(folder / "data", "digits", config)
        batches = {stage: IMAGES // getattr(read_recipe("tiny"), stage).batch_size for stage in STAGES}
        epochs = {stage: -(-steps // batches[stage]) for stage in STAGES}
        run(folder, "detector", "base", epochs["representation"], 1, 1)
        for stage in STAGES:
            one, two, threads = (
                run(folder, stage, name, epochs[stage], threads, devices)
                for name, threads, devices in (("one", 1, 1), ("two", 1, 2), ("threads", 2, 1))
            )
            results[stage] = {
                "two_processes": largest(one, two, steps),
                "threads": largest(one, threads, steps),
                "two_processes_over_two_threads": threads["seconds"] / two["seconds"],
                "two_processes_over_one": one["seconds"] / two["seconds"],
            }
    return results


def main() -> None:
    """Measures, and writes the results as JSON."""
    if sys.argv[1:2] == ["--record"]:
        return record(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("results/bench/devices.json"))
    options = parser.parse_args()
    results = measure(options.steps)
    with atomic_file(options.out, force=True) as temporary:
        temporary.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
