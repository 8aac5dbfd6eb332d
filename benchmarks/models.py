"""What each model costs at the same image and latent size: parameters, time and memory, by number of objects.

How it is measured: see `ssdir.experiments.cost`.

Run: python benchmarks/models.py --out results/bench/models.json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

import torch

from ssdir.evaluation.provenance import provenance
from ssdir.experiments.cost import BATCH, REPEATS, measure_costs
from ssdir.models.registry import AnyModelConfig
from ssdir.outputs import atomic_file
from ssdir.training.recipe import read_recipe

SIZE, LATENT = 64, 64
COUNTS = (1, 5, 20, 50)
PRESETS = {"SSDIR": "tiny", "GlimpseVAE": "tiny-glimpses", "SPAIR": "spair-64", "SPACE": "space-64"}


def config_of(name: str) -> AnyModelConfig:
    """A model of the common image and latent size."""
    detected = [
        "model.consistency.weight=0",
        f"model.detector.image_size={SIZE}",
        f"model.encoder.latent_dim={LATENT}",
    ]
    sizes = {
        "SSDIR": detected,
        "GlimpseVAE": detected,
        "SPAIR": [f"model.image_size={SIZE}", f"model.glimpses.latent_dim={LATENT}"],
        "SPACE": [f"model.image_size={SIZE}", f"model.latent_dim={LATENT}"],
    }[name]
    return read_recipe(PRESETS[name], sizes).model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--force", action="store_true")
    arguments = parser.parse_args()
    started = time.perf_counter()
    costs = measure_costs({name: config_of(name) for name in PRESETS}, COUNTS)
    records = [{"model": name, **dataclasses.asdict(cost)} for name, entries in costs.items() for cost in entries]
    config = {
        "image_size": SIZE,
        "latent_dim": LATENT,
        "batch_size": BATCH,
        "repeats": REPEATS,
        "presets": PRESETS,
        "threads": torch.get_num_threads(),
    }
    report = {"records": records, "provenance": provenance(config, 0, None, "cpu", time.perf_counter() - started)}
    with atomic_file(arguments.out, arguments.force) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for entry in records:
        print(json.dumps(entry))


if __name__ == "__main__":
    main()
