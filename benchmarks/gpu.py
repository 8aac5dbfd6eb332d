"""Speed of the paper's model on a GPU: images per second, beside the peak rates of the GPU.

    python benchmarks/gpu.py --out FILE [--force] [--device cuda]

For encoding, and for a training step of each stage, it reports: images per second; the step's arithmetic and
memory traffic as shares of the GPU's peak rates, which are measured with large matrix products and copies; the
share of time in which kernels run; and the kernels that take most time. Arithmetic is counted by torch (products
and convolutions); traffic is what each operator reads and writes if nothing stays in caches, an upper bound.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ssdir.benchmark.engines import preset_model, scattered_pictures
from ssdir.benchmark.timing import Spread
from ssdir.data.readers.registry import open_dataset
from ssdir.data.scatter.generator import ScatterConfig
from ssdir.data.scatter.writer import write_scatter
from ssdir.device import choose_device, device_name
from ssdir.errors import InputError
from ssdir.evaluation.provenance import provenance
from ssdir.models.inference_form import inference_form
from ssdir.models.ssdir import SSDIR
from ssdir.objects import Objects
from ssdir.outputs import atomic_file, claim
from ssdir.training.graphs import DenseGraphs
from ssdir.training.loading import CachedDataset, ResidentDataset, make_loader
from ssdir.training.recipe import StageConfig, read_recipe
from ssdir.training.steps import Objective, build_optimizer

PRESET = "paper-mnist"
CANVAS, IMAGES = 512, 512
OBJECTS_PER_IMAGE = 10
BATCHES = (1, 8, 32, 128, 512)
TRAINING_BATCHES = (32, 128)  # The paper has 32.
SIDE = 8192
SHOWN_KERNELS = 8
Record = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write.")
    parser.add_argument("--force", action="store_true", help="Replace an existing file.")
    parser.add_argument("--device", default="cuda", help="Another than cuda shows whether it runs.")
    parser.add_argument("--quick", action="store_true", help="Few repeats: does it run?")
    options = parser.parse_args()
    try:
        claim(options.out, options.force)
        device = choose_device(options.device)
    except InputError as error:
        parser.error(str(error))
    started, repeats = time.perf_counter(), 2 if options.quick else 8
    rates = measure_rates(device, 256 if options.quick else SIDE)
    model = preset_model(PRESET, OBJECTS_PER_IMAGE).to(device)
    records = [
        *(encode_record(model, batch, rates, repeats) for batch in (BATCHES[:2] if options.quick else BATCHES)),
        *training_records(model, rates, repeats, 16 if options.quick else IMAGES),
    ]
    config = {"preset": PRESET, "repeats": repeats, "quick": options.quick}
    wall = time.perf_counter() - started
    content = {
        "rates": rates,
        "records": records,
        "provenance": provenance(config, 0, None, device_name(device), wall),
    }
    with atomic_file(options.out, options.force) as file:
        file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    show(rates, records)


# The GPU ---------------------------------------------------------------------------------------------------


def measure_rates(device: torch.device, side: int) -> dict[str, float]:
    """Measures peak rates: operations per second of large bfloat16 products, bytes per second of copies."""
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    products = seconds_of(lambda: left @ right, device, 10)
    source = torch.empty(4 * side**2 * 4, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    copies = seconds_of(lambda: target.copy_(source), device, 10)
    return {
        "flop_per_second": 2 * side**3 / min(products),
        "bytes_per_second": 2 * source.numel() / min(copies),
    }


def seconds_of(step: Callable[[], object], device: torch.device, repeats: int, calls: int = 5) -> list[float]:
    """Measures the seconds of a step, each a mean over `calls` calls, after some that are not counted."""
    for _ in range(3):
        step()
    rounds = []
    for _ in range(repeats):
        wait(device)
        started = time.perf_counter()
        for _ in range(calls):
            step()
        wait(device)
        rounds.append((time.perf_counter() - started) / calls)
    return rounds


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# Measurements ---------------------------------------------------------------------------------------------


def encode_record(model: SSDIR, batch: int, rates: dict[str, float], repeats: int) -> Record:
    encoder = inference_form(model)
    encoder.in_bfloat16 = True
    pixels = torch.from_numpy(scattered_pictures(model.image_size, batch)).to(model.device)
    images = pixels.permute(0, 3, 1, 2).float().div_(255)  # its memory stays channels-last

    def step() -> object:
        return encoder.encode(images)

    work = count_work(step)
    return measure_step(f"encode, batch {batch}", step, batch, work, model.device, rates, repeats)


def training_records(model: SSDIR, rates: dict[str, float], repeats: int, images: int) -> list[Record]:
    """Yields a training step of each stage, batches included, like those of `training.loop`, but without logging.

    Each step runs by CUDA graphs, as in trainings, and kernel by kernel.
    """
    recipe, device = read_recipe(PRESET), model.device
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "data"
        write_scatter(folder, "digits", ScatterConfig(canvas=CANVAS, train=images, val=0, test=0), workers=8)
        split = open_dataset(folder, "train", "all", model.image_size, preload=True)
    batches = [batch for batch in TRAINING_BATCHES if batch <= images] or [images]
    detector = Objective(model.detector)
    name = "detector, training step"
    records = stage_records(name, detector, recipe.detector, split, batches, rates, repeats)
    # True boxes are used, because an untrained detector does not detect a realistic number of objects.
    objects = []
    for batch in make_loader(split, 32, device):
        anchor_index = model.detector.assign(batch.objects.z_where.to(device)).to("cpu")
        objects.append(batch.objects.to("cpu").replace(anchor_index=anchor_index))
    kept = CachedDataset(split, Objects.cat(objects), [])
    name, stage = "representation, training step", Objective(model)
    return records + stage_records(name, stage, recipe.representation, kept, batches, rates, repeats)


def stage_records(
    name: str,
    stage: Objective,
    config: StageConfig,
    split: Any,
    batches: Sequence[int],
    rates: dict[str, float],
    repeats: int,
) -> list[Record]:
    ways = (True, False) if next(stage.parameters()).is_cuda else (False,)
    return [
        stage_record(name, stage, config, split, batch, by_graphs, rates, repeats)
        for by_graphs in ways
        for batch in batches
    ]


def stage_record(
    name: str,
    stage: Objective,
    config: StageConfig,
    split: Any,
    batch_size: int,
    by_graphs: bool,
    rates: dict[str, float],
    repeats: int,
) -> Record:
    device = next(stage.parameters()).device
    stage.train().requires_grad_(True)
    if isinstance(stage.model, SSDIR):
        stage.model.detector.requires_grad_(False)
    parameters = [p for p in stage.parameters() if p.requires_grad]
    optimizer = build_optimizer(stage, config)
    held, order = ResidentDataset(split, device), torch.randperm(len(split)).tolist()
    place = 0

    def precise() -> AbstractContextManager[object]:
        return torch.autocast(device.type, torch.bfloat16) if device.type == "cuda" else nullcontext()

    def step() -> None:
        nonlocal place
        if place + batch_size > len(order):
            place = 0
        batch = held.__getitems__(order[place : place + batch_size])
        place += batch_size
        with precise():
            losses = stage(batch)
        optimizer.zero_grad()
        losses["total"].backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, float("inf"))
        torch.stack([*(value.detach().float() for value in losses.values()), norm]).tolist()
        optimizer.step()

    work, graphs = count_work(step), DenseGraphs()
    if by_graphs:
        with precise():
            graphs.capture(stage, batch_size)
    how = "" if by_graphs else ", kernel by kernel"
    try:
        return measure_step(f"{name}, batch {batch_size}{how}", step, batch_size, work, device, rates, repeats)
    finally:
        graphs.release()


def count_work(step: Callable[[], object]) -> tuple[float, float]:
    """Counts the operations and bytes of a step that runs kernel by kernel; CUDA graphs would hide them."""
    with FlopCounterMode(display=False) as arithmetic:
        step()
    with Traffic() as traffic:
        step()
    return float(arithmetic.get_total_flops()), float(traffic.bytes)


def measure_step(
    name: str,
    step: Callable[[], object],
    images: int,
    work: tuple[float, float],
    device: torch.device,
    rates: dict[str, float],
    repeats: int,
) -> Record:
    """Measures a step on a batch of images."""
    seconds = seconds_of(step, device, repeats)
    kernels = kernel_seconds(step, device)
    middle = Spread.of(seconds).median
    (flop, moved), running = work, sum(kernels.values())
    longest = sorted(kernels.items(), key=lambda item: -item[1])[:SHOWN_KERNELS]
    record = {
        "name": name,
        "images_per_second": Spread.of(images / each for each in seconds).model_dump(),
        "seconds": middle,
        "share_of_products": flop / middle / rates["flop_per_second"],
        "share_of_copies": moved / middle / rates["bytes_per_second"],
        "gpu_busy": running / middle,
        "kernels": [{"name": kernel[:80], "share": each / max(running, 1e-12)} for kernel, each in longest],
        "launches": count_launches(step, device),
    }
    print(json.dumps({key: value for key, value in record.items() if key != "kernels"}), flush=True)
    return record


class Traffic(TorchDispatchMode):
    """Counts the bytes that operators read and write; views move none."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        if not func.is_view:
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return result


def _profiled(step: Callable[[], object], device: torch.device, calls: int) -> list[tuple[str, float]]:
    """Returns the kernels and copies that ran, and the seconds of each."""
    if device.type != "cuda":
        return []
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        for _ in range(calls):
            step()
        wait(device)
    events = [
        event
        for event in profiler.events()
        if event.device_type == torch.autograd.DeviceType.CUDA and not event.is_user_annotation
    ]
    return [(event.name, event.time_range.elapsed_us() / 1e6) for event in events]


def kernel_seconds(step: Callable[[], object], device: torch.device, calls: int = 5) -> dict[str, float]:
    """Returns the seconds of each kernel in one step."""
    kernels: dict[str, float] = defaultdict(float)
    for name, seconds in _profiled(step, device, calls):
        kernels[name] += seconds / calls
    return kernels


def count_launches(step: Callable[[], object], device: torch.device) -> int:
    """Counts the kernels and copies that a step launches."""
    return len(_profiled(step, device, 1))


# Report ----------------------------------------------------------------------------------------------------


def show(rates: dict[str, float], records: list[Record]) -> None:
    console = Console()
    products, copies = (rates[name] / 1e12 for name in ("flop_per_second", "bytes_per_second"))
    console.print(f"products {products:.0f} TFLOP/s, copies {copies:.2f} TB/s")
    table = Table("", "images/s", "of products", "of copies", "GPU busy", "kernels")
    for record in records:
        table.add_row(
            record["name"],
            f"{record['images_per_second']['median']:.0f}",
            f"{record['share_of_products']:.0%}",
            f"{record['share_of_copies']:.0%}",
            f"{record['gpu_busy']:.0%}",
            str(record["launches"]),
        )
    console.print(table)


if __name__ == "__main__":
    main()
