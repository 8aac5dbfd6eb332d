"""How fast the parts are, as ratios of what was measured side by side.

    python benchmarks/speed.py --out FILE [--force] [--quick]

Each comparison repeats its variants in turn, so that whatever else the machine does falls on both, and gives
the median with the smallest and largest repeat. A ratio is the median of the repeats' own ratios. Peak memory
is counted exactly: the most bytes of storages that were alive at once, seen by a dispatch mode that every
operation passes through, beyond those of the inputs.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample
from torch.utils._python_dispatch import TorchDispatchMode

from ssdir.data.glyphs import load_glyphs
from ssdir.data.scatter import ScatterConfig, image_rng, scatter_image
from ssdir.errors import InputError
from ssdir.evaluation.provenance import provenance
from ssdir.models.inference_form import inference_form
from ssdir.models.ssdir import SSDIR
from ssdir.models.zoo import seeded
from ssdir.objects import Objects
from ssdir.ops.boxes import to_xyxy
from ssdir.ops.compositing import composite_weighted, image_softmax
from ssdir.outputs import atomic_file, claim
from ssdir.training.recipe import read_recipe

PRESET = "paper-mnist"
BATCH = 8
OBJECTS_PER_IMAGE = 10
COMPOSED, SIDE, CANVAS = 20, 64, 300
Record = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write.")
    parser.add_argument("--force", action="store_true", help="Replace an existing file.")
    parser.add_argument("--quick", action="store_true", help="Few repeats: does it run?")
    options = parser.parse_args()
    try:
        claim(options.out, options.force)
    except InputError as error:
        parser.error(str(error))
    started = time.perf_counter()
    repeats = 2 if options.quick else 9
    model = paper_model()
    records = [
        encode_record(model, repeats),
        inference_form_record(model, repeats),
        *(compositor_record(batch, repeats) for batch in (1, BATCH)),
        training_record(model, repeats),
        *startup_records(repeats),
        scatter_record(200 if options.quick else 1000, repeats),
    ]
    config = {
        "preset": PRESET,
        "repeats": repeats,
        "quick": options.quick,
        "threads": torch.get_num_threads(),
    }
    wall = time.perf_counter() - started
    content = {"records": records, "provenance": provenance(config, 0, None, "cpu", wall)}
    with atomic_file(options.out, options.force) as file:
        file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    show(records)


# Measuring -------------------------------------------------------------------------------------------------


def in_turn(variants: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each variant, after one call of each that is not counted."""
    for run in variants.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for repeat in range(repeats):
        # Forwards, then backwards: neither always follows the other.
        for name in list(variants)[:: 1 if repeat % 2 == 0 else -1]:
            started = time.perf_counter()
            variants[name]()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratio(above: list[float], below: list[float]) -> dict[str, float]:
    return spread([a / b for a, b in zip(above, below, strict=True)])


def record(name: str, value: dict[str, float], goal: str, met: bool, **details: Any) -> Record:
    return {"name": name, **value, "goal": goal, "met": met, **details}


class PeakBytes(TorchDispatchMode):
    """The most bytes of storages, made by operations in this mode, that were alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.alive, self.peak = 0, 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = {t.untyped_storage()._cdata for t in args if isinstance(t, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage(), inputs)
        return result

    def _add(self, storage: torch.UntypedStorage, inputs: set[int]) -> None:
        key = storage._cdata
        if key in self.seen or key in inputs:
            return
        self.seen.add(key)
        size = storage.nbytes()
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.alive -= size


def peak_bytes(run: Callable[[], object]) -> int:
    gc.collect()
    with PeakBytes() as counter:
        run()
    return counter.peak


# The model -------------------------------------------------------------------------------------------------


def paper_model() -> SSDIR:
    """The paper's model, untrained, whose detector finds about ten objects in a picture."""
    recipe = read_recipe(PRESET)
    with seeded(0):
        model = SSDIR(recipe.model, [str(digit) for digit in range(10)]).eval()
    with torch.no_grad():
        set_bias(model)
    return model


def set_bias(model: SSDIR) -> None:
    """Moves one class's bias, by bisection, until about `OBJECTS_PER_IMAGE` objects are present."""
    detector, images = model.detector, pictures()
    features = detector.backbone(images)
    A = model.config.detector.anchors.num_per_cell

    def count(bias: float) -> float:
        for head in detector.class_heads:
            head.bias.view(A, -1)[:, 1] = bias
        return len(detector.select(detector.heads(features))) / len(images)

    low, high = -30.0, 30.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if count(middle) > OBJECTS_PER_IMAGE else (middle, high)
    count(low)


def pictures() -> Tensor:
    """Scattered digits, float (BATCH, 3, CANVAS, CANVAS)."""
    glyphs, config = load_glyphs("digits", "train"), ScatterConfig(canvas=CANVAS)
    scenes = [scatter_image(glyphs, config, image_rng(0, "train", index)).image for index in range(BATCH)]
    grey = torch.stack([torch.from_numpy(scene) for scene in scenes]).float() / 255
    return grey[:, None].expand(-1, 3, -1, -1).contiguous()


def encode_record(model: SSDIR, repeats: int) -> Record:
    images, detector = pictures(), model.detector

    def encode() -> object:
        with torch.inference_mode():
            return model.encode(images)

    def detect() -> object:
        with torch.inference_mode():
            return detector.heads(detector.backbone(images))

    seconds = in_turn({"encode": encode, "detector": detect}, repeats)
    found = ratio(seconds["encode"], seconds["detector"])
    per_image = len(model.encode(images)) / BATCH
    return record(
        "encode / backbone and heads alone",
        found,
        "<= 1.10",
        found["median"] <= 1.10,
        batch_size=BATCH,
        objects_per_image=per_image,
        seconds={name: spread(values) for name, values in seconds.items()},
    )


def inference_form_record(model: SSDIR, repeats: int) -> Record:
    images, fast = pictures(), inference_form(model)
    channels_last = images.contiguous(memory_format=torch.channels_last)

    def encode(form: SSDIR, batch: Tensor) -> Callable[[], object]:
        def run() -> object:
            with torch.inference_mode():
                return form.encode(batch)

        return run

    seconds = in_turn({"as trained": encode(model, images), "for inference": encode(fast, channels_last)}, repeats)
    found = ratio(seconds["as trained"], seconds["for inference"])
    return record(
        "encode as trained / with batch norm folded and channels last",
        found,
        ">= 1",
        found["median"] >= 1,
        batch_size=BATCH,
        objects_per_image=len(fast.encode(channels_last)) / BATCH,
        seconds={name: spread(values) for name, values in seconds.items()},
    )


def training_record(model: SSDIR, repeats: int) -> Record:
    images = pictures()
    with torch.no_grad():
        features = model.detector.backbone(images)
        objects = model.training_objects(features)
    model.train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-6)

    def step(losses: dict[str, Tensor]) -> None:
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()

    def cached() -> None:
        step(model.loss_of(images, objects, features))

    def full() -> None:
        with torch.no_grad():
            computed = model.detector.backbone(images)
        step(model.loss_of(images, objects, computed))

    seconds = in_turn({"with the backbone": full, "on cached features": cached}, repeats)
    model.eval()
    found = ratio(seconds["with the backbone"], seconds["on cached features"])
    return record(
        "training step with the backbone / on cached features",
        found,
        ">= 20",
        found["median"] >= 20,
        batch_size=BATCH,
        objects_per_image=len(objects) / BATCH,
        seconds={name: spread(values) for name, values in seconds.items()},
    )


# The compositor --------------------------------------------------------------------------------------------


def objects_to_compose(batch_size: int) -> tuple[Tensor, Objects]:
    g = torch.Generator().manual_seed(0)
    M = batch_size * COMPOSED
    sides = 0.1 + 0.4 * torch.rand(M, 2, generator=g)
    centres = sides / 2 + (1 - sides) * torch.rand(M, 2, generator=g)
    objects = Objects(
        torch.arange(batch_size).repeat_interleave(COMPOSED),
        batch_size,
        torch.cat([centres, sides], dim=1),
        z_depth=torch.randn(M, generator=g),
    )
    return torch.rand(M, 3, SIDE, SIDE, generator=g), objects


def compose_on_canvases(appearances: Tensor, objects: Objects) -> Tensor:
    """The paper's merge with a spatial transformer: a canvas of the image's size for each object."""
    assert objects.z_depth is not None
    boxes, M = to_xyxy(objects.z_where), len(objects)
    theta = torch.zeros(M, 2, 3)
    theta[:, [0, 1], [0, 1]] = 1 / (boxes[:, 2:] - boxes[:, :2])
    theta[:, :, 2] = (1 - boxes[:, :2] - boxes[:, 2:]) / (boxes[:, 2:] - boxes[:, :2])
    grid = affine_grid(theta, [M, 3, CANVAS, CANVAS], align_corners=False)
    canvases = grid_sample(appearances, grid, align_corners=False, padding_mode="zeros")
    weights = image_softmax(objects.z_depth, objects.image_index, objects.batch_size)
    canvases *= weights[:, None, None, None]
    merged = canvases.new_zeros(objects.batch_size, 3, CANVAS, CANVAS)
    merged.index_add_(0, objects.image_index, canvases)
    return merged / merged.amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6)


def compositor_record(batch_size: int, repeats: int) -> Record:
    appearances, objects = objects_to_compose(batch_size)
    boxes = to_xyxy(objects.z_where)
    assert objects.z_depth is not None
    place = (boxes, objects.z_depth, objects.image_index, batch_size, (CANVAS, CANVAS))

    def product() -> Tensor:
        with torch.inference_mode():
            return composite_weighted(appearances, *place)

    def canvases() -> Tensor:
        with torch.inference_mode():
            return compose_on_canvases(appearances, objects)

    difference = float((product() - canvases()).abs().max())
    seconds = in_turn({"canvases": canvases, "product": product}, repeats)
    peaks = {"canvases": peak_bytes(canvases), "product": peak_bytes(product)}
    found = ratio(seconds["canvases"], seconds["product"])
    memory = peaks["product"] / peaks["canvases"]
    return record(
        f"compositor on canvases / as a product, {batch_size} images",
        found,
        ">= 4, with at most 1/3 of the memory",
        found["median"] >= 4 and memory <= 1 / 3,
        objects_per_image=COMPOSED,
        peak_memory_ratio=memory,
        peak_mebibytes={name: peak / 2**20 for name, peak in peaks.items()},
        largest_difference=difference,
        seconds={name: spread(values) for name, values in seconds.items()},
    )


# Start-up and data -----------------------------------------------------------------------------------------


def startup_records(repeats: int) -> list[Record]:
    def wall(*command: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, *command], check=True, capture_output=True)

    call = "import sys; sys.argv = ['ssdir', '--help']; from ssdir.cli import main; main()"
    commands = {"ssdir --help": wall("-c", call), "import ssdir": wall("-c", "import ssdir")}
    commands["an empty program"] = wall("-c", "")
    seconds = in_turn(commands, repeats)
    empty = spread(seconds["an empty program"])
    return [
        record(
            f"{name}, seconds",
            spread(seconds[name]),
            "<= 0.5",
            spread(seconds[name])["median"] <= 0.5,
            empty=empty,
        )
        for name in ("ssdir --help", "import ssdir")
    ]


def scatter_record(num_images: int, repeats: int) -> Record:
    """One core: images are generated one after another in this process; writing them is not counted."""
    glyphs, config = load_glyphs("digits", "train"), ScatterConfig(canvas=128)

    def scatter() -> None:
        for index in range(num_images):
            scatter_image(glyphs, config, image_rng(0, "train", index))

    seconds = in_turn({"scatter": scatter}, repeats)["scatter"]
    rate = spread([num_images / value for value in seconds])
    return record("scattered images of 128 x 128, per second and core", rate, ">= 800", rate["median"] >= 800)


def show(records: list[Record]) -> None:
    table = Table("measured", "median", "min", "max", "goal", "met")
    for entry in records:
        numbers = [f"{entry[key]:.3g}" for key in ("median", "min", "max")]
        table.add_row(entry["name"], *numbers, entry["goal"], "yes" if entry["met"] else "no")
        for name in ("objects_per_image", "peak_memory_ratio"):
            if name in entry:
                table.add_row(f"  {name.replace('_', ' ')}", f"{entry[name]:.3g}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
