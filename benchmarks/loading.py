"""Measures the speed of reading images relative to training, and the growth of memory over epochs.

Reading and training run on one thread each. Images are read from their files in each epoch; a preloaded split,
which the CPU-sized recipes use, reads each file once.

Run: python benchmarks/loading.py widerface-128 FOLDER --out results/bench/loading.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from ssdir.benchmark.memory import peak_megabytes
from ssdir.data.dataset import ObjectDataset, collate, fingerprint
from ssdir.data.readers.registry import open_dataset
from ssdir.data.transforms import build_augmentation
from ssdir.evaluation.provenance import provenance
from ssdir.models.detected.model import DetectedConfig
from ssdir.models.detector.ssd import SSD
from ssdir.outputs import atomic_file
from ssdir.training.recipe import Recipe, read_recipe

REPEATS, BATCHES = 5, 8


def open_split(recipe: Recipe, data: Path, *, preload: bool) -> ObjectDataset:
    return open_dataset(
        data,
        "train",
        recipe.classes,
        recipe.model.image_size,
        build_augmentation(recipe.augment, recipe.model.image_size),
        preload,
        min_side=recipe.min_side,
        drop_empty=recipe.drop_empty,
    )


def read_rate(dataset: ObjectDataset, batch_size: int, start: int) -> float:
    """Measures images per second of reading, augmented and batched."""
    indices = [(start + i) % len(dataset) for i in range(BATCHES * batch_size)]
    started = time.perf_counter()
    for first in range(0, len(indices), batch_size):
        collate([dataset[index] for index in indices[first : first + batch_size]])
    return len(indices) / (time.perf_counter() - started)


def training_rate(recipe: Recipe, dataset: ObjectDataset) -> float:
    """Measures images per second of the detector's training, the stage that reads images in each epoch."""
    assert isinstance(recipe.model, DetectedConfig)
    batch_size = recipe.detector.batch_size
    model = SSD(recipe.model.ssd, dataset.class_names).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    images, targets = collate([dataset[index] for index in range(batch_size)])
    started = time.perf_counter()
    for _ in range(BATCHES):
        optimizer.zero_grad()
        model.loss(images, targets)["total"].backward()
        optimizer.step()
    return BATCHES * batch_size / (time.perf_counter() - started)


def epoch_growth(dataset: ObjectDataset, batch_size: int) -> float:
    """Measures how much the process's peak memory grows, in MB, from the end of epoch 1 to that of epoch 3."""
    after_first = 0.0
    for epoch in range(3):
        for first in range(0, len(dataset), batch_size):
            collate([dataset[index] for index in range(first, min(first + batch_size, len(dataset)))])
        if not epoch:
            after_first = peak_megabytes()
    return peak_megabytes() - after_first


def measure(recipe: Recipe, files: ObjectDataset, memory: ObjectDataset) -> dict[str, Any]:
    torch.manual_seed(0)
    batch_size = recipe.detector.batch_size
    rates: dict[str, list[float]] = {"files": [], "preloaded": [], "training": []}
    training_rate(recipe, memory)
    for repeat in range(REPEATS):
        start = repeat * BATCHES * batch_size
        rates["files"].append(read_rate(files, batch_size, start))
        rates["preloaded"].append(read_rate(memory, batch_size, start))
        rates["training"].append(training_rate(recipe, memory))
    ratios = {
        name: [read / trained for read, trained in zip(rates[name], rates["training"], strict=True)]
        for name in ("files", "preloaded")
    }
    return {
        "images": len(files),
        "images_per_second": {name: statistics.median(values) for name, values in rates.items()},
        "times_training": {name: statistics.median(values) for name, values in ratios.items()},
        "times_training_spread": {name: [min(values), max(values)] for name, values in ratios.items()},
        "epoch_growth_mb": epoch_growth(files, batch_size),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("preset")
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--force", action="store_true")
    arguments = parser.parse_args()
    recipe = read_recipe(arguments.preset)
    torch.set_num_threads(1)
    started = time.perf_counter()
    files, memory = (open_split(recipe, arguments.data, preload=preload) for preload in (False, True))
    metrics = measure(recipe, files, memory)
    config = {"preset": arguments.preset, "data": arguments.data.name, "threads": torch.get_num_threads()}
    record = provenance(config, 0, fingerprint(files), "cpu", time.perf_counter() - started)
    with atomic_file(arguments.out, arguments.force) as temporary:
        temporary.write_text(
            json.dumps({"metrics": metrics, "provenance": record}, indent=2) + "\n", encoding="utf-8"
        )
    print(json.dumps(metrics, indent=2))


if __name__ == "__main__":
    main()
