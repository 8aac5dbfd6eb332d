"""Measures the time of encoding with each engine that can run a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from ssdir.benchmark.timing import Spread, in_turn, ratio
from ssdir.config import Record
from ssdir.console import Advance, no_progress
from ssdir.data.images import Image8, read_image
from ssdir.data.scatter.generator import ScatterConfig, image_rng, scatter_image
from ssdir.data.scatter.glyphs import load_glyphs
from ssdir.device import seeded
from ssdir.export.onnx import export_model
from ssdir.export.quantize import quantize_encoder
from ssdir.export.runtime import OnnxEncoder
from ssdir.inference.predictor import Predictor
from ssdir.models.base import ObjectModel
from ssdir.models.detected.model import DetectedModel, detector_of
from ssdir.models.detected.vae import DetectedVAE
from ssdir.models.detector.ssd import SSD
from ssdir.models.ssdir import SSDIR, SSDIRConfig
from ssdir.object_arrays import ObjectArrays
from ssdir.objects import Objects
from ssdir.training.recipe import read_recipe

PLAIN = "torch, as trained"
ENGINES = {
    PLAIN: "batch norm separate, channels first: the form of the published code",
    "torch": "as ssdir.load encodes",
    "torch, bf16": "as ssdir.load(…, precision='bf16') encodes",
    "torch.compile": "the same with its backbone compiled",
    "torch.compile, bf16": "both",
    "ONNX Runtime": "as ssdir encode FILE.onnx",
    "ONNX Runtime, int8": "from ssdir export --int8, calibrated by the same images",
}
"""The engines in the order of the report; models that can't be exported have only those of torch."""

Encode = Callable[[], "Objects | ObjectArrays"]


class EngineCost(Record):
    """Time of encoding with an engine.

    Attributes:
        engine: one of `ENGINES`.
        seconds: time per image, in seconds.
        speedup: how many times as fast as `PLAIN`, in the same rounds.
        objects: mean number of objects detected in an image.
    """

    engine: str
    seconds: Spread
    speedup: Spread
    objects: float


def measure_engines(
    model: ObjectModel, pixels: Image8, repeats: int, on_progress: Advance = no_progress
) -> list[EngineCost]:
    """Measures every engine in turn on the same images, on the CPU.

    Args:
        model: the model, on the CPU.
        pixels: uint8 (B, S, S, 3) of the model's image size.
        repeats: number of measured rounds, after one warm-up round.
        on_progress: called with (rounds done, all rounds).
    """
    with _engines(model, pixels) as engines:
        objects = {name: len(encode()) / len(pixels) for name, encode in engines.items()}
        seconds = in_turn(engines, repeats, on_progress)
    return [
        EngineCost(
            engine=name,
            seconds=Spread.of(value / len(pixels) for value in seconds[name]),
            speedup=ratio(seconds[PLAIN], seconds[name]),
            objects=objects[name],
        )
        for name in engines
    ]


@contextmanager
def _engines(model: ObjectModel, pixels: Image8) -> Iterator[dict[str, Encode]]:
    batch = rearrange(torch.from_numpy(pixels), "b h w c -> b c h w").contiguous().float() / 255
    engines: dict[str, Encode] = {
        PLAIN: lambda: model.eval().encode(batch),
        "torch": _torch_engine(Predictor(model), batch),
    }
    if detector_of(model) is not None:
        engines["torch, bf16"] = _torch_engine(Predictor(model, precision="bf16"), batch)
        engines["torch.compile"] = _torch_engine(_compiled(Predictor(model)), batch)
        engines["torch.compile, bf16"] = _torch_engine(_compiled(Predictor(model, precision="bf16")), batch)
    with TemporaryDirectory() as folder:
        if isinstance(model, (SSD, DetectedVAE)):
            engines |= {
                name: _onnx_engine(file, pixels) for name, file in _exported(model, pixels, Path(folder)).items()
            }
        yield engines


def _torch_engine(predictor: Predictor, batch: Tensor) -> Encode:
    channels_last = batch.contiguous(memory_format=torch.channels_last)
    return lambda: predictor.encode_batch(channels_last)


def _compiled(predictor: Predictor) -> Predictor:
    """Compiles the backbone as one graph, but not the selection, whose shapes depend on the detections."""
    detector: Any = detector_of(predictor.encoder)
    detector.backbone = torch.compile(detector.backbone)
    return predictor


def _exported(model: SSD | DetectedVAE, pixels: Image8, folder: Path) -> dict[str, Path]:
    single, eight = folder / "encoder.onnx", folder / "int8.onnx"
    export_model(model, single)
    pictures = [folder / f"{number}.png" for number in range(len(pixels))]
    for picture, image in zip(pictures, pixels, strict=True):
        Image.fromarray(image).save(picture)
    quantize_encoder(single, eight, pictures, in_single=0)  # An untrained model's detections can't be compared.
    return {"ONNX Runtime": single, "ONNX Runtime, int8": eight}


def _onnx_engine(file: Path, pixels: Image8) -> Encode:
    encoder = OnnxEncoder(file, "cpu")
    return lambda: encoder.encode_pixels(pixels)


def scattered_pictures(size: int, count: int, seed: int = 0) -> Image8:
    """Generates images of scattered digits, uint8 (count, size, size, 3)."""
    glyphs, config = load_glyphs("digits", "train"), ScatterConfig(canvas=size)
    grey = [scatter_image(glyphs, config, image_rng(seed, "train", index)).image for index in range(count)]
    return np.stack([read_image(image) for image in grey])


def preset_model(preset: str, objects_per_image: float) -> SSDIR:
    """Builds a preset's untrained SSDIR of ten classes that detects about `objects_per_image` objects."""
    config = read_recipe(preset).model
    assert isinstance(config, SSDIRConfig)
    with seeded(0):
        model = SSDIR(config, [str(digit) for digit in range(10)])
    detect_about(model, scattered_pictures(config.image_size, 8), objects_per_image)
    return model


def detect_about(model: DetectedModel, pixels: Image8, objects_per_image: float) -> None:
    """Sets the bias of an untrained detector's first class, by bisection, so that it detects a number of objects.

    Args:
        model: the model, which is changed in place.
        pixels: uint8 (B, S, S, 3) of the model's image size.
        objects_per_image: wanted mean number of detections; it is met approximately, since suppression makes
            jumps.
    """
    detector = model.eval().detector
    batch = rearrange(torch.from_numpy(pixels), "b h w c -> b c h w").contiguous().float() / 255
    A = detector.config.anchors.num_per_cell
    with torch.no_grad():
        features = detector.backbone(batch)

        def count(bias: float) -> float:
            for head in detector.class_heads:
                assert isinstance(head, torch.nn.Conv2d)
                assert head.bias is not None
                head.bias.view(A, -1)[:, 1] = bias
            return len(detector.select(detector.heads(features))) / len(batch)

        low, high = -30.0, 30.0
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (low, middle) if count(middle) > objects_per_image else (middle, high)
        count(low)
