"""Measures how long the recipe that `ssdir data check` recommends trains on 200 photographs, and how good it is.

The photographs are the first of VOC's train list, and have no split to validate on, as a user's may not. They are
checked and trained on by the commands that a user types; the model is measured on VOC's val list, on which nothing
was chosen.

Run: python benchmarks/own_photographs.py VOC2012 --work build/own --out results/bench/own-photographs.json
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from few_photographs import link_photographs, listed_photographs

from ssdir.data.dataset import fingerprint
from ssdir.data.readers.registry import open_dataset
from ssdir.documents import json_text
from ssdir.evaluation.evaluate import EvaluationOptions, evaluate
from ssdir.evaluation.provenance import provenance
from ssdir.ops.precision import multiplies_bf16
from ssdir.outputs import atomic_file, claim
from ssdir.training.recipe import read_recipe
from ssdir.training.run_folder import read_summary

PHOTOGRAPHS = 200


def ssdir(*arguments: str | Path) -> dict[str, float]:
    """Runs a command, and returns its seconds by the clock and of the CPU, its processes included."""
    started, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, "-m", "ssdir", *map(str, arguments)], check=True)
    after = os.times()
    busy = after.children_user + after.children_system - before.children_user - before.children_system
    return {"wall_seconds": round(time.perf_counter() - started, 1), "cpu_seconds": round(busy, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("voc", type=Path, help="folder with Annotations/, JPEGImages/ and ImageSets/Main/")
    parser.add_argument("--work", type=Path, required=True, help="new folder for data and runs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--force", action="store_true")
    options = parser.parse_args()
    started = time.perf_counter()
    claim(options.out, options.force)
    chosen = {"train": listed_photographs(options.voc, "train")[:PHOTOGRAPHS]}
    data = link_photographs(options.voc, options.work / "photographs", chosen)
    check, run = options.work / "check", options.work / "run"
    times = {"check": ssdir("data", "check", data, "--out", check)}
    recipe_file = check / "recommended.yaml"
    times["train"] = ssdir("train", recipe_file, f"seed={options.seed}", "--data", data, "--out", run)
    recipe, measured = read_recipe(recipe_file), EvaluationOptions(seed=options.seed)
    metrics = evaluate(run, options.voc, "val", measured, device="cpu").metrics
    counts = {"learned": PHOTOGRAPHS, "cores": os.cpu_count() or 1}
    about = provenance(
        counts, options.seed, fingerprint(open_dataset(options.voc, "val")), "cpu", time.perf_counter() - started
    )
    report = {
        "preset": recipe.name,
        "epochs": {"detector": recipe.detector.epochs, "representation": recipe.representation.epochs},
        "bfloat16": multiplies_bf16(),
        "times": times,
        "stages": {name: read_summary(run, name).wall_seconds for name in ("detector", "representation")},
        "metrics": metrics,
        "provenance": about,
    }
    with atomic_file(options.out, options.force) as temporary:
        temporary.write_text(json_text(report), encoding="utf-8")
    print(f"{times['train']}, AP50 {metrics['detection/ap50']:.3f}")


if __name__ == "__main__":
    main()
