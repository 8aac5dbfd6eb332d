"""Measures time and memory of each model at one image and latent size, by number of objects and image size.

`ssdir.benchmark.costs` explains the measurement.

Run: python benchmarks/models.py --out results/bench/models.json --chart docs/images/cost.png
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from ssdir.benchmark.costs import BATCH, REPEATS, chart_of, measure_costs
from ssdir.evaluation.provenance import provenance
from ssdir.models.registry import AnyModelConfig
from ssdir.outputs import atomic_file, claim
from ssdir.training.recipe import read_recipe

SIZES, LATENT = (64, 128), 64
COUNTS = (1, 5, 20, 50)
PRESETS = {
    "SSDIR": "tiny",
    "SSDIR, SSD's boxes": "tiny",
    "GlimpseVAE": "tiny-glimpses",
    "SPAIR": "spair-64",
    "SPACE": "space-64",
}


def config_of(name: str, size: int) -> AnyModelConfig:
    """Returns a model's config with the common image and latent size."""
    detected = [
        "model.consistency.weight=0",
        f"model.ssd.image_size={size}",
        f"model.encoder.latent_dim={LATENT}",
    ]
    sizes = {
        "SSDIR": detected,
        "SSDIR, SSD's boxes": [*detected, "model.ssd.refiner=null"],
        "GlimpseVAE": detected,
        "SPAIR": [f"model.image_size={size}", f"model.glimpses.latent_dim={LATENT}"],
        "SPACE": [f"model.image_size={size}", f"model.grid={size // 16}", f"model.latent_dim={LATENT}"],
    }[name]
    return read_recipe(PRESETS[name], sizes).model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--chart", type=Path, required=True)
    parser.add_argument("--force", action="store_true")
    arguments = parser.parse_args()
    for file in (arguments.out, arguments.chart):
        claim(file, arguments.force)
    started = time.perf_counter()
    costs = measure_costs({name: [config_of(name, size) for size in SIZES] for name in PRESETS}, COUNTS)
    config = {
        "image_sizes": SIZES,
        "latent_dim": LATENT,
        "batch_size": BATCH,
        "repeats": REPEATS,
        "presets": PRESETS,
        "threads": torch.get_num_threads(),
    }
    record = provenance(config, 0, None, "cpu", time.perf_counter() - started)
    report = {"costs": [cost.model_dump() for cost in costs], "provenance": record}
    with atomic_file(arguments.out, arguments.force) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    with atomic_file(arguments.chart, arguments.force) as temporary:
        temporary.write_bytes(chart_of(costs))
    for cost in costs:
        print(cost)


if __name__ == "__main__":
    main()
