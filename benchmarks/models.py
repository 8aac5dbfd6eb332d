"""What each model costs at the same image and latent size: parameters, time and memory, by number of objects.

The models are untrained. How many objects they describe is set: those with a detector are given boxes, SPAIR and
SPACE always describe every cell. Times are medians of rounds in which the models take turns; memory is the growth
of a fresh process's peak.

Run: python benchmarks/models.py --out results/bench/models.json
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssdir.evaluation.provenance import provenance
from ssdir.models.base import GenerativeModel
from ssdir.models.detected_vae import DetectedVAE
from ssdir.models.registry import build_model
from ssdir.models.zoo import seeded
from ssdir.objects import Objects
from ssdir.outputs import atomic_file
from ssdir.training.recipe import read_recipe

SIZE, LATENT, BATCH, REPEATS = 64, 64, 8, 7
COUNTS = (1, 5, 20, 50)
PRESETS = {"SSDIR": "tiny", "GlimpseVAE": "tiny-glimpses", "SPAIR": "spair-64", "SPACE": "space-64"}


def make(name: str) -> GenerativeModel:
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
    with seeded(0):
        model = build_model(read_recipe(PRESETS[name], sizes).model, ["object"])
    assert isinstance(model, GenerativeModel)
    return model


def boxes(count: int) -> Objects:
    """So many random objects in each image of a batch."""
    g = torch.Generator().manual_seed(0)
    sides = 0.15 + 0.2 * torch.rand(BATCH * count, 2, generator=g)
    centres = sides / 2 + (1 - sides) * torch.rand(BATCH * count, 2, generator=g)
    image_index = torch.arange(BATCH).repeat_interleave(count)
    return Objects(image_index, BATCH, torch.cat([centres, sides], dim=1))


def steps(name: str, count: int | None) -> dict[str, Callable[[], Any]]:
    """What is timed: encoding, and a training step, for so many objects; None leaves the number to the model."""
    model, images = make(name), torch.rand(BATCH, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    given = None if count is None else boxes(count)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-5)

    def encode() -> Objects:
        model.eval()
        return model.encode(images, boxes=given)

    def train() -> None:
        model.train()
        optimizer.zero_grad()
        loss(model, images, given)["total"].backward()
        optimizer.step()

    return {"encode": encode, "train": train}


def loss(model: GenerativeModel, images: Tensor, given: Objects | None) -> dict[str, Tensor]:
    if isinstance(model, DetectedVAE) and given is not None:
        with torch.no_grad():
            features = model.detector.backbone(images)
            objects = model.encode(images, boxes=given)
        return model.loss_of(images, objects.replace(z_what=None, z_what_scale=None, z_depth=None), features)
    return model.loss(images)


def cases() -> list[tuple[str, int | None]]:
    return [(name, count) for name in ("SSDIR", "GlimpseVAE") for count in COUNTS] + [
        ("SPAIR", None),
        ("SPACE", None),
    ]


def seconds() -> dict[str, dict[str, float]]:
    """Median seconds per image of each case's steps."""
    timed = {label(*case): steps(*case) for case in cases()}
    rounds: dict[str, dict[str, list[float]]] = {name: {"encode": [], "train": []} for name in timed}
    for repeat in range(REPEATS + 1):
        for name, actions in timed.items():
            for what, action in actions.items():
                started = time.perf_counter()
                action()
                if repeat:  # the first warms up
                    rounds[name][what].append((time.perf_counter() - started) / BATCH)
    return {
        name: {what: statistics.median(values) for what, values in parts.items()} for name, parts in rounds.items()
    }


def label(name: str, count: int | None) -> str:
    return name if count is None else f"{name}, {count} objects"


def peak_growth(name: str, count: int | None) -> float:
    """Megabytes that a training step adds to the peak of this process."""
    train = steps(name, count)["train"]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    train()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def memory(name: str, count: int | None) -> float:
    """`peak_growth` of a fresh process."""
    command = [sys.executable, __file__, "--memory", name, "--count", str(count or 0)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--force", action="store_true")
    parser.add_argument("--memory", choices=PRESETS, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        print(peak_growth(arguments.memory, arguments.count or None))
        return
    if arguments.out is None:
        parser.error("--out is needed")
    started = time.perf_counter()
    timed = seconds()
    records = [
        {
            "model": name,
            "objects": count,
            "parameters": sum(p.numel() for p in make(name).parameters()),
            "seconds_per_image": timed[label(name, count)],
            "training_memory_mb": memory(name, count),
        }
        for name, count in cases()
    ]
    config = {
        "image_size": SIZE,
        "latent_dim": LATENT,
        "batch_size": BATCH,
        "repeats": REPEATS,
        "presets": PRESETS,
    }
    config["threads"] = torch.get_num_threads()
    report = {"records": records, "provenance": provenance(config, 0, None, "cpu", time.perf_counter() - started)}
    with atomic_file(arguments.out, arguments.force) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for entry in records:
        print(json.dumps(entry))


if __name__ == "__main__":
    main()
