"""Measures the speed of parts of the library, as ratios of variants that run side by side.

    python benchmarks/speed.py --out FILE [--force] [--quick]

With --force, ratios that have become worse than in the replaced file are marked: those whose every repeat is worse
than every earlier repeat.

Each comparison runs its variants in turn, so that other load on the machine affects all of them, and reports the
median with the smallest and largest repeat. A ratio is the median of the repeats' own ratios.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from ssdir.benchmark.engines import PLAIN, measure_engines, preset_model, scattered_pictures
from ssdir.benchmark.memory import peak_bytes
from ssdir.benchmark.timing import Spread, in_turn, is_worse, ratio
from ssdir.console import warn
from ssdir.data.scatter.generator import ScatterConfig, image_rng, scatter_image
from ssdir.data.scatter.glyphs import load_glyphs
from ssdir.device import seeded
from ssdir.errors import InputError
from ssdir.evaluation.provenance import other_cpu, provenance
from ssdir.export.onnx import export_model
from ssdir.models.detected.vae import DetectedVAE
from ssdir.models.glimpse_vae import GlimpseVAE, GlimpseVAEConfig
from ssdir.models.io import load_model
from ssdir.models.ssdir import SSDIR, SSDIRConfig
from ssdir.objects import Objects
from ssdir.ops.boxes import to_xyxy
from ssdir.ops.compositing import composite_weighted, image_softmax
from ssdir.outputs import atomic_file, claim
from ssdir.training.recipe import read_recipe

PRESET, SHIPPED = "paper-mnist", "tiny-digits"
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
    model = preset_model(PRESET, OBJECTS_PER_IMAGE)
    before = last_records(options.out)
    records = [
        encode_record(model, repeats),
        *(objects_record(build, repeats) for build in (model, glimpse_model())),
        *engine_records(model, repeats),
        *(compositor_record(batch, 10 * repeats) for batch in (1, BATCH)),  # milliseconds each
        many_objects_record(),
        training_record(model, repeats),
        passes_record(model, repeats),
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
    show(records, slower(records, before))


def last_records(file: Path) -> dict[str, Record]:
    """Reads the records of the file to replace, by name, if they are from the same kind of CPU."""
    if not file.is_file():
        return {}
    content = json.loads(file.read_text(encoding="utf-8"))
    if difference := other_cpu(content["provenance"]):
        warn(difference)
        return {}
    return {entry["name"]: entry for entry in content["records"]}


def slower(records: list[Record], before: dict[str, Record]) -> set[str]:
    """Returns the names of records whose every repeat is worse than every earlier repeat."""
    worse = set()
    for entry in records:
        old = before.get(entry["name"])
        if old is None:
            continue
        now, then = (Spread.model_validate(each) for each in (entry, old))
        if is_worse(now, then, low_is_good=not entry["goal"].startswith(">")):
            worse.add(entry["name"])
    return worse


def record(name: str, value: Spread, goal: str, met: bool | None, **details: Any) -> Record:
    return {"name": name, **value.model_dump(), "goal": goal, "met": met, **details}


def spreads(seconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    return {name: Spread.of(values).model_dump() for name, values in seconds.items()}


# The model -------------------------------------------------------------------------------------------------


def glimpse_model() -> DetectedVAE:
    """Builds the paper's detector with an encoder of glimpses, untrained."""
    detector = SSDIRConfig.model_validate(read_recipe(PRESET).model.model_dump()).detector
    with seeded(0):
        return GlimpseVAE(GlimpseVAEConfig(ssd=detector), ["object"]).eval()


def pictures() -> Tensor:
    """Generates images of scattered digits, float (BATCH, 3, CANVAS, CANVAS)."""
    return torch.from_numpy(scattered_pictures(CANVAS, BATCH)).permute(0, 3, 1, 2).contiguous().float() / 255


def encode_record(model: SSDIR, repeats: int) -> Record:
    images, detector = pictures(), model.detector

    def encode() -> object:
        with torch.inference_mode():
            return model.encode(images)

    def detect() -> object:
        with torch.inference_mode():
            return detector.heads(detector.backbone(images))

    seconds = in_turn({"encode": encode, "detector": detect}, repeats)
    measured = ratio(seconds["encode"], seconds["detector"])
    per_image = len(model.encode(images)) / BATCH
    return record(
        "encode / backbone and heads alone",
        measured,
        "<= 1.05",
        measured.median <= 1.05,
        batch_size=BATCH,
        objects_per_image=per_image,
        seconds=spreads(seconds),
    )


def objects_record(model: DetectedVAE, repeats: int) -> Record:
    """Measures the paper's claim: the time per image does not depend on the number of objects."""
    images = pictures()

    def encode(count: int) -> Callable[[], object]:
        g = torch.Generator().manual_seed(0)
        low = 0.7 * torch.rand(BATCH * count, 2, generator=g)
        z_where = torch.cat([low + 0.1, torch.full_like(low, 0.2)], dim=1)
        boxes = Objects(torch.arange(BATCH).repeat_interleave(count), BATCH, z_where)

        def run() -> object:
            with torch.inference_mode():
                return model.embed(images, boxes)

        return run

    # The goal lies within 3 % of 1: that takes more repeats than the others do.
    seconds = in_turn({"50 objects": encode(50), "1 object": encode(1)}, 3 * repeats)
    measured, ours = ratio(seconds["50 objects"], seconds["1 object"]), isinstance(model, SSDIR)
    return record(
        f"{type(model).__name__}: encode at 50 objects / at 1 object per image",
        measured,
        "<= 1.03" if ours else "",
        measured.median <= 1.03 if ours else None,
        batch_size=BATCH,
        seconds=spreads(seconds),
    )


def engine_records(model: SSDIR, repeats: int) -> list[Record]:
    """Measures encoding with every engine, in exact arithmetic and in 8 bits."""
    costs = {cost.engine: cost for cost in measure_engines(model, scattered_pictures(CANVAS, BATCH), repeats)}
    eight = "ONNX Runtime, int8"
    exact = [cost for name, cost in costs.items() if name != eight and "bf16" not in name]
    fastest = min(exact, key=lambda cost: cost.seconds.median)
    half = min((cost for name, cost in costs.items() if "bf16" in name), key=lambda cost: cost.seconds.median)
    seconds = {name: cost.seconds.model_dump() for name, cost in costs.items()}
    shared: Record = {"batch_size": BATCH, "objects_per_image": costs[PLAIN].objects, "seconds_per_image": seconds}
    own = costs[eight].speedup
    over_exact = Spread.model_validate(
        {name: getattr(own, name) / value for name, value in fastest.speedup.model_dump().items()}
    )
    return [
        record(
            "encode in the published form / by the best engine in single precision",
            fastest.speedup,
            ">= 2",
            fastest.speedup.median >= 2,
            engine=fastest.engine,
            **shared,
        ),
        record(
            "encode in the published form / by the best engine in bfloat16",
            half.speedup,
            ">= 2",
            half.speedup.median >= 2,
            engine=half.engine,
        ),
        record("encode in the published form / in int8", own, ">= 2", own.median >= 2, engine=eight),
        record(
            "encode by the best engine in single precision / in int8",
            over_exact,
            ">= 1.8",
            over_exact.median >= 1.8,
            engine=fastest.engine,
        ),
    ]


def training_record(model: SSDIR, repeats: int) -> Record:
    images = pictures()
    with torch.no_grad():
        objects, features = model.detector.detect(images)
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6, fused=True)

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
    measured = ratio(seconds["with the backbone"], seconds["on cached features"])
    return record(
        "training step with the backbone / on cached features",
        measured,
        ">= 25",
        measured.median >= 25,
        batch_size=BATCH,
        objects_per_image=len(objects) / BATCH,
        seconds=spreads(seconds),
    )


def passes_record(model: SSDIR, repeats: int) -> Record:
    """Compares the published training step, which evaluates the encoder four times, with ours, which does once."""
    images = pictures()
    with torch.no_grad():
        objects = model.detector.encode(images)
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6, fused=True)

    def step(passes: int) -> Callable[[], object]:
        def run() -> None:
            for number in range(passes):
                with torch.no_grad():
                    _, features = model.detector.detect(images)
                if number < passes - 1:
                    model.infer(objects, images, features)
            optimizer.zero_grad()
            model.loss_of(images, objects, features)["total"].backward()
            optimizer.step()

        return run

    seconds = in_turn({"four passes": step(4), "one pass": step(1)}, max(2, repeats // 2))
    model.eval()
    measured = ratio(seconds["four passes"], seconds["one pass"])
    return record(
        "training step with four encoder passes / with one",
        measured,
        ">= 3.5",
        measured.median >= 3.5,
        batch_size=BATCH,
        seconds=spreads(seconds),
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
    """Composites as the paper's code does: a spatial transformer pastes each object on a canvas of its own."""
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
    place = (boxes, objects.z_depth, objects.image_index, objects.per_image, (CANVAS, CANVAS))

    def product() -> Tensor:
        with torch.inference_mode():
            return composite_weighted(appearances, *place)

    def canvases() -> Tensor:
        with torch.inference_mode():
            return compose_on_canvases(appearances, objects)

    difference = float((product() - canvases()).abs().max())
    seconds = in_turn({"canvases": canvases, "product": product}, repeats)
    peaks = {"canvases": peak_bytes(canvases), "product": peak_bytes(product)}
    measured = ratio(seconds["canvases"], seconds["product"])
    memory = peaks["product"] / peaks["canvases"]
    return record(
        f"compositor on canvases / as a product, {batch_size} images",
        measured,
        ">= 5, with at most 1/4 of the memory",
        measured.median >= 5 and memory <= 1 / 4,
        objects_per_image=COMPOSED,
        peak_memory_ratio=memory,
        peak_mebibytes={name: peak / 2**20 for name, peak in peaks.items()},
        largest_difference=difference,
        seconds=spreads(seconds),
    )


def many_objects_record() -> Record:
    """Makes a record of memory, which is counted and so doesn't vary between repeats."""
    peaks = {}
    for count in (100, 1):
        g = torch.Generator().manual_seed(0)
        side = torch.full((count, 2), 0.1)
        z_where = torch.cat([0.1 + 0.8 * torch.rand(count, 2, generator=g), side], dim=1)
        image_index = torch.zeros(count, dtype=torch.int64)
        place = (to_xyxy(z_where), torch.zeros(count), image_index, [count], (1024, 1024))
        appearances = torch.rand(count, 3, SIDE, SIDE, generator=g)

        def compose(given: Tensor = appearances, where: Any = place) -> object:
            with torch.inference_mode():
                return composite_weighted(given, *where)

        peaks[count] = peak_bytes(compose)
    value = peaks[100] / peaks[1]
    return record(
        "peak memory of composing 100 objects / 1 object, 1024 x 1024",
        Spread.of([value]),
        "<= 1.5",
        value <= 1.5,
        peak_mebibytes={str(count): peak / 2**20 for count, peak in peaks.items()},
    )


# Start-up and data -----------------------------------------------------------------------------------------


def startup_records(repeats: int) -> list[Record]:
    def wall(*command: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, *command], check=True, capture_output=True)

    main = "import sys; from ssdir.cli import main; main()"
    goals = {"ssdir --help": 0.3, "import ssdir": 0.1, "ssdir encode MODEL.onnx": 1.0}
    with TemporaryDirectory() as folder:
        model, picture, out = (
            str(Path(folder) / name) for name in ("model.onnx", "picture.png", "objects.parquet")
        )
        export_model(load_model(SHIPPED), model)
        Image.fromarray(scattered_pictures(CANVAS, 1)[0]).save(picture)
        commands = {
            "ssdir --help": wall("-c", main, "--help"),
            "import ssdir": wall("-c", "import ssdir"),
            "ssdir encode MODEL.onnx": wall("-c", main, "encode", model, picture, "--out", out, "--force"),
            "an empty program": wall("-c", ""),
        }
        seconds = in_turn(commands, repeats)
    empty = Spread.of(seconds["an empty program"]).model_dump()
    return [
        record(f"{name}, seconds", measured, f"<= {goal}", measured.median <= goal, empty=empty)
        for name, goal, measured in ((name, goal, Spread.of(seconds[name])) for name, goal in goals.items())
    ]


def scatter_record(num_images: int, repeats: int) -> Record:
    """Measures image generation on one core, in this process, without writing the images."""
    glyphs, config = load_glyphs("digits", "train"), ScatterConfig(canvas=128)

    def scatter() -> None:
        for index in range(num_images):
            scatter_image(glyphs, config, image_rng(0, "train", index))

    seconds = in_turn({"scatter": scatter}, repeats)["scatter"]
    rate = Spread.of([num_images / value for value in seconds])
    return record("scattered images of 128 x 128, per second and core", rate, ">= 800", rate.median >= 800)


def show(records: list[Record], worse: set[str]) -> None:
    table = Table("measured", "median", "min", "max", "goal", "met", "than before")
    for entry in records:
        numbers = [f"{entry[key]:.3g}" for key in ("median", "min", "max")]
        table.add_row(
            entry["name"],
            *numbers,
            entry["goal"],
            {True: "yes", False: "no", None: ""}[entry["met"]],
            "worse" if entry["name"] in worse else "",
        )
        for name in ("objects_per_image", "peak_memory_ratio"):
            if name in entry:
                table.add_row(f"  {name.replace('_', ' ')}", f"{entry[name]:.3g}")
    Console(width=125).print(table)


if __name__ == "__main__":
    main()
