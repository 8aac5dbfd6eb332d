"""`ssdir encode`: images to a file of objects."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from ssdir.commands.options import (
    AsJson,
    BatchSize,
    Device,
    Force,
    ImagePaths,
    ModelOrExport,
    Precision,
    ScoreThreshold,
    Strict,
)
from ssdir.console import next_step, print_json, progress, say, warn
from ssdir.errors import InputError


def encode(
    model: ModelOrExport,
    paths: ImagePaths,
    out: Annotated[Path, typer.Option(help="Parquet file to write, a row per object.")],
    batch_size: BatchSize = 32,
    score_threshold: ScoreThreshold = None,
    strict: Strict = False,
    boxes: Annotated[
        Path | None,
        typer.Option(help="Boxes to encode instead of detecting any: COCO's .json, .csv or .parquet."),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(help="COCO annotations that name the images, if --boxes is a file of COCO results."),
    ] = None,
    box_unit: Annotated[
        Literal["pixels", "relative"], typer.Option(help="Unit of the boxes of a .csv or .parquet table.")
    ] = "pixels",
    force: Force = False,
    device: Device = None,
    engine: Annotated[
        Literal["torch", "onnx"] | None,
        typer.Option(help="What runs the model; by default onnx for .onnx files, else torch."),
    ] = None,
    precision: Precision = None,
    as_json: AsJson = False,
) -> None:
    """Detect the objects of images and write their boxes, classes, scores, embeddings and depth as Parquet.

    With --boxes, the boxes of your own detector or tracker are encoded instead.
    """
    if boxes is None and (annotations is not None or box_unit != "pixels"):
        raise InputError("--annotations and --box-unit describe a file of boxes: give it by --boxes")
    from ssdir.inference.encode_to_file import BoxFile, EncodeOptions, encode_to_file

    started = time.perf_counter()
    given = None if boxes is None else BoxFile(boxes, annotations, box_unit)
    options = EncodeOptions(batch_size, score_threshold, strict, device, engine, precision)
    with progress("encoding") as advance:
        encoded = encode_to_file(model, paths, out, options, given, force, advance)
    for problem in (*encoded.skipped_images, *encoded.skipped_boxes):
        warn(f"skipped: {problem}")
    seconds = time.perf_counter() - started
    if as_json:
        print_json({**asdict(encoded), "seconds": round(seconds, 2), "out": out})
        return
    say(f"{encoded.summary()}, {seconds:.1f} s: {out}")
    if encoded.objects:
        next_step("index", out, "--out", "index")
    elif boxes is None:
        say("nothing was detected: try a lower --score-threshold")
