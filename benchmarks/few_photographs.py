"""Measures the gain of augmentation and of the best epoch in the recipe of `ssdir data check` for few images.

Two detectors learn from the same photographs of Pascal VOC for the same number of epochs, from scratch: one as
recommended, one without augmentation, of which the last epoch is kept. Epochs are chosen on photographs of VOC's
train list; AP50 is measured on those of its val list, on which nothing was chosen.

Run: python benchmarks/few_photographs.py VOC2012 --work build/few --out results/bench/few-photographs.json
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ssdir.data.dataset import ObjectDataset, fingerprint
from ssdir.data.readers.registry import open_dataset
from ssdir.documents import json_text, read_lines
from ssdir.evaluation.detection import RANKING_THRESHOLD, detection_metrics
from ssdir.evaluation.provenance import provenance
from ssdir.models.detector.ssd import SSD
from ssdir.models.io import load_model
from ssdir.objects import Objects
from ssdir.outputs import atomic_file, claim
from ssdir.training.fit import train
from ssdir.training.recipe import read_recipe
from ssdir.training.run_folder import read_summary

LEARNED, VALIDATED = 240, 150
BATCH = 16
WITHOUT = (
    *(f"augment.{name}=0" for name in ("flip", "photometric", "zoom_out", "iou_crop")),
    *("detector.keep=last", "detector.patience=1000"),
)


def listed_photographs(voc: Path, split: str) -> list[str]:
    """Names of the photographs of a list of VOC, without their endings."""
    return [line for line in read_lines(voc / "ImageSets" / "Main" / f"{split}.txt") if line]


def link_photographs(voc: Path, folder: Path, parts: Mapping[str, Sequence[str]]) -> Path:
    """Makes a VOC folder of some of another's photographs, by split, unless it is there."""
    lists = folder / "ImageSets" / "Main"
    if not lists.is_dir():
        lists.mkdir(parents=True)
        for name in ("Annotations", "JPEGImages"):
            (folder / name).symlink_to((voc / name).resolve())
        for name, stems in parts.items():
            (lists / f"{name}.txt").write_text("\n".join(stems) + "\n")
    return folder


def choose_photographs(voc: Path, folder: Path) -> Path:
    """Makes a VOC folder of the first photographs of the train list, divided, and of the val list as test."""
    listed, test = listed_photographs(voc, "train"), listed_photographs(voc, "val")
    parts = {"train": listed[:LEARNED], "val": listed[LEARNED : LEARNED + VALIDATED], "test": test}
    return link_photographs(voc, folder, parts)


@torch.no_grad()
def measure(folder: Path, split: ObjectDataset) -> float:
    """Returns the AP50 of the detector in a model's folder."""
    model = load_model(folder)
    assert isinstance(model, SSD)
    detected = []
    for start in range(0, len(split), BATCH):
        indices = range(start, min(start + BATCH, len(split)))
        images = torch.stack([split[index][0] for index in indices]).float() / 255
        detected.append(model.encode(images, RANKING_THRESHOLD))
    side = model.image_size
    ignored = Objects.cat([split.ignored(index) for index in range(len(split))])
    return detection_metrics(Objects.cat(detected), split.all_objects(), (side, side), ignored)["detection/ap50"]


def run(recipe_file: Path, changes: tuple[str, ...], data: Path, out: Path, seed: int) -> dict[str, Any]:
    """Trains one detector, and returns its metrics."""
    recipe, started = read_recipe(recipe_file, [*changes, f"seed={seed}"]), time.process_time()
    train(recipe, data, out, stage="detector", resume=True)
    summary = read_summary(out, "detector")
    with (out / "detector" / "metrics.csv").open(newline="") as file:
        losses = [float(row["val/total"]) for row in csv.DictReader(file) if row["val/total"]]
    test = open_dataset(data, "test", recipe.classes, recipe.model.image_size)
    return {
        "epochs": recipe.detector.epochs,
        "kept_epoch": summary.kept_epoch,
        "ap50_validation": summary.kept_ap50,
        "ap50_test": measure(out / "detector" / "model", test),
        "validation_loss": {"lowest": min(losses), "last": losses[-1]},
        "cpu_seconds": round(time.process_time() - started, 1),
        "recipe": recipe.model_dump(mode="json"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("voc", type=Path, help="folder with Annotations/, JPEGImages/ and ImageSets/Main/")
    parser.add_argument("--work", type=Path, required=True, help="where data and runs go; runs there are resumed")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--force", action="store_true")
    options = parser.parse_args()
    started = time.perf_counter()
    claim(options.out, options.force)
    torch.set_num_threads(1)
    data = choose_photographs(options.voc, options.work / "photographs")
    check = options.work / "check"
    if not check.is_dir():
        settings = ["--preset", "tiny", "--minutes", "1e6", "--out", check]
        subprocess.run([sys.executable, "-m", "ssdir", "data", "check", data, *settings], check=True)
    arms = {"recommended": (), "without augmentation, last epoch": WITHOUT}
    results = {
        name: run(check / "recommended.yaml", changes, data, options.work / f"run-{number}", options.seed)
        for number, (name, changes) in enumerate(arms.items())
    }
    test = open_dataset(data, "test")
    counts = {"learned": LEARNED, "validated": VALIDATED, "tested": len(test)}
    about = provenance(counts, options.seed, fingerprint(test), "cpu", time.perf_counter() - started)
    with atomic_file(options.out, options.force) as temporary:
        temporary.write_text(json_text({"results": results, "provenance": about}), encoding="utf-8")
    for name, result in results.items():
        print(f"{name}: AP50 {result['ap50_test']:.3f}, epoch {result['kept_epoch']}")


if __name__ == "__main__":
    main()
