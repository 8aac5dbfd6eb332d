"""Measures the share of a training step, on one CPU core, that forward and backward of its networks take.

The networks are the backbone, the heads, and the layers of refiner, encoder, decoder and projection head. They are
run again on the inputs of the step, so on as many objects. The rest of the step is data loading, matching,
RoIAlign, pasting, losses and the optimiser. Because other programs slow the machine down, all parts of a step are
timed in turn, and shares are medians over the turns. Everything runs in single precision, as on a CPU without
bfloat16 instructions.

Run: python benchmarks/training_step.py clevr-128=CLEVR_FOLDER --out results/bench/training-step.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from ssdir.data.scatter.generator import ScatterConfig
from ssdir.data.scatter.writer import write_scatter
from ssdir.data.transforms import build_augmentation
from ssdir.evaluation.provenance import provenance
from ssdir.models.detected.encoders import AlignedEncoder
from ssdir.models.detected.model import DetectedConfig
from ssdir.models.detector.ssd import SSD
from ssdir.models.registry import build_model, without_pretrained
from ssdir.models.ssdir import SSDIR
from ssdir.outputs import atomic_file, claim
from ssdir.training.devices import make_fabric
from ssdir.training.loading import CachedDataset
from ssdir.training.loop import Stage, StageLoop
from ssdir.training.recipe import Recipe, read_recipe
from ssdir.training.session import UNWATCHED

SEED = 0
WARM_UP, TURNS = 2, 15
IMAGES = {"train": 256, "val": 16, "test": 0}

FUNCTIONS = {
    "matching": ("ssdir.models.detector.ssd.match_anchors",),
    "RoIAlign": (
        "ssdir.models.detector.refiner.crop_levels",
        "ssdir.models.detected.encoders.crop_levels",
        "ssdir.models.detected.encoders.crop_glimpses",
    ),
    "crops of images": ("ssdir.models.detected.elbo.crop_glimpses",),
    "pasting": ("ssdir.models.scenes.composite_alpha", "ssdir.models.detected.elbo.pixel_shares"),
    "views": ("ssdir.models.detected.vae.second_view",),
}
"""The functions that make up each part of a step, by the module that calls them."""


@dataclass(frozen=True)
class Call:
    """A recorded call of a function or module, which can be repeated with its backward pass."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]

    def again(self) -> None:
        """Repeats the call, and computes the gradient of those outputs that have one."""
        outputs = self.function(*(_detached(argument) for argument in self.arguments))
        if roots := [tensor for tensor in _tensors(outputs) if tensor.requires_grad]:
            torch.autograd.backward(roots, [torch.ones_like(tensor) for tensor in roots])


def _detached(argument: Any) -> Any:
    if isinstance(argument, Tensor) and argument.requires_grad:
        # Inputs are views, because in-place layers must not change leaf tensors.
        return argument.detach().requires_grad_().clone()
    return [_detached(each) for each in argument] if isinstance(argument, list) else argument


def _tensors(outputs: Any) -> Iterator[Tensor]:
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, (list, tuple)):
        for each in outputs:
            yield from _tensors(each)


def network(model: nn.Module) -> list[nn.Module]:
    """Returns the parts of a model that are networks, whose forward passes call nothing else."""
    if isinstance(model, SSD):
        refiner = [] if model.refiner is None else [*model.refiner.inputs, model.refiner.net]
        return [model.backbone, *model.class_heads, *model.box_heads, *refiner]
    assert isinstance(model, SSDIR)
    assert isinstance(model.encoder, AlignedEncoder)
    parts = [model.backbone, *model.encoder.inputs, model.encoder.net, model.decoder, model.projection]
    return [part for part in parts if part is not None]


def recorded_step(loop: StageLoop, batch: Any) -> dict[str, list[Call]]:
    """Runs a step, and returns the calls of each part."""
    calls: dict[str, list[Call]] = {name: [] for name in ("network", *FUNCTIONS)}

    def recording(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            calls[part].append(Call(lambda *given: function(*given, **options), arguments))
            return function(*arguments, **options)

        return wrapped

    def hook(part: nn.Module) -> Callable[..., None]:
        # The input is copied, because layers may change it in place.
        return lambda _, inputs: calls["network"].append(Call(part, tuple(_kept(each) for each in inputs)))

    with ExitStack() as stack:
        for name, places in FUNCTIONS.items():
            for place in places:
                module, _, function = place.rpartition(".")
                original = getattr(__import__(module, fromlist=[function]), function)
                stack.enter_context(patch(place, recording(name, original)))
        for part in network(loop.objective.model):
            # A slice of a sequence of layers calls the layers, not the sequence.
            called = part[0] if isinstance(part, nn.Sequential) and type(part) is nn.Sequential else part
            handle = called.register_forward_pre_hook(hook(part))
            stack.callback(handle.remove)
        loop.step(batch)
    return calls


def _kept(argument: Any) -> Any:
    if isinstance(argument, Tensor):
        return argument.detach().clone().requires_grad_(argument.requires_grad)
    return [_kept(each) for each in argument] if isinstance(argument, list) else argument


def seconds(action: Callable[[], Any]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def measure(loop: StageLoop) -> dict[str, Any]:
    """Times the parts of a step in turn."""
    batches = iter(loop.train_loader)
    batch = next(batches)
    for _ in range(WARM_UP):
        loop.step(batch)
    calls = {part: recorded for part, recorded in recorded_step(loop, batch).items() if recorded}
    limit = loop.stage.config.grad_clip

    def optimise() -> None:
        nn.utils.clip_grad_norm_(loop.parameters, limit or 1e9)
        loop.optimizer.step()

    def load() -> None:
        nonlocal batches
        if next(batches, None) is None:
            batches = iter(loop.train_loader)

    turns: list[dict[str, float]] = []
    for _ in range(TURNS):
        turn = {"step": seconds(lambda: loop.step(batch)), "data": seconds(load), "optimiser": seconds(optimise)}
        for part, recorded in calls.items():
            turn[part] = sum(seconds(call.again) for call in recorded)
        turns.append(turn)

    def median(share: Callable[[dict[str, float]], float]) -> float:
        return round(statistics.median(share(turn) for turn in turns), 3)

    whole = [turn["step"] + turn["data"] for turn in turns]
    ratio = statistics.median(each / turn["network"] for each, turn in zip(whole, turns, strict=True))
    parts = ["data", "optimiser", *calls]
    shares = {part: median(lambda turn, part=part: turn[part] / (turn["step"] + turn["data"])) for part in parts}
    return {
        "objects_per_image": round(len(batch.objects) / len(batch.images), 2),
        "batch_size": len(batch.images),
        "step_over_network": round(ratio, 3),
        "shares": {**shares, "losses and the rest": round(1 - sum(shares.values()), 3)},
    }


def loops(recipe: Recipe, data: Path, out: Path) -> Iterator[tuple[str, StageLoop]]:
    """Returns the training loop of each stage of a recipe; the representation learns from the true boxes."""
    fabric = make_fabric(recipe, "cpu")
    splits = {name: recipe.open_data(data, name, preload=True) for name in ("train", "val")}
    class_names = splits["train"].class_names
    assert isinstance(recipe.model, DetectedConfig)
    torch.manual_seed(SEED)
    detector = SSD(recipe.model.ssd, class_names)
    augmented = splits["train"].with_transform(build_augmentation(recipe.augment, recipe.model.image_size))
    stage = Stage(detector, augmented, splits["val"], recipe, recipe.detector, out / "detector")
    yield "detector", StageLoop(fabric, stage, UNWATCHED)
    model = build_model(without_pretrained(recipe.model), class_names, detector)
    cached = {}
    for name, split in splits.items():
        objects = split.all_objects()
        anchors = detector.assign(objects.z_where)
        cached[name] = CachedDataset(split, objects.replace(anchor_index=anchors), [])
    assert isinstance(model, SSDIR)
    if model.reads_detector:
        raise SystemExit(
            f"{recipe.name}: its encoder reads the detector's maps, which this benchmark doesn't keep"
        )
    folder = out / "representation"
    stage = Stage(model, cached["train"], cached["val"], recipe, recipe.representation, folder)
    yield "representation", StageLoop(fabric, stage, UNWATCHED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", nargs="*", metavar="PRESET=FOLDER", help="further recipes and their data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--force", action="store_true")
    arguments = parser.parse_args()
    claim(arguments.out, arguments.force)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    started, records = time.perf_counter(), []
    with TemporaryDirectory() as temporary:
        digits = Path(temporary) / "digits"
        write_scatter(digits, "digits", ScatterConfig(canvas=128, seed=SEED, **IMAGES))
        given = dict(each.split("=", 1) for each in arguments.data)
        for preset, data in {"tiny": digits, **given}.items():
            recipe = read_recipe(preset, ["precision=single"])
            for stage, loop in loops(recipe, Path(data), Path(temporary) / recipe.name):
                size = recipe.model.image_size
                records.append({"preset": recipe.name, "stage": stage, "image_size": size, **measure(loop)})
                print(json.dumps(records[-1]))
    config = {"turns": TURNS, "presets": [record["preset"] for record in records]}
    record = provenance(config, SEED, "", "cpu", time.perf_counter() - started)
    with atomic_file(arguments.out, arguments.force) as file:
        file.write_text(json.dumps({"records": records, "provenance": record}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
