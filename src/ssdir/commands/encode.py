"""`ssdir encode`: images to a file or folder of objects."""

from __future__ import annotations

import re
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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
from ssdir.formatting import counted, quote

if TYPE_CHECKING:
    from ssdir.encoding.encode import Encoded

RAY = "Workers of --engine ray"
SHOWN_REASONS = 10
"""Most reasons for skipped images that are printed where a folder keeps all of them."""


def encode(
    model: ModelOrExport,
    paths: ImagePaths,
    out: Annotated[
        str,
        typer.Option(
            metavar="OUT",
            help="What to write, a row per object: a file that ends in .parquet, or a folder of such files.",
        ),
    ],
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
        Literal["torch", "onnx", "ray"] | None,
        typer.Option(
            help="What runs the model in this process, by default onnx for .onnx files, else torch; or ray, whose "
            "workers run it in many processes."
        ),
    ] = None,
    precision: Precision = None,
    images_per_part: Annotated[
        int | None,
        typer.Option(min=1, help="Images that are written at once; by default 500 to 10,000, by their number."),
    ] = None,
    share: Annotated[
        str | None,
        typer.Option(
            metavar="K/N", help="Encode the Kth of N shares, for N such commands that write to one folder."
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="Ray cluster to join, as HOST:PORT or auto; by default ray uses this machine.",
            rich_help_panel=RAY,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of workers; by default as many as there are cores or GPUs for.",
            rich_help_panel=RAY,
        ),
    ] = None,
    cpus_per_worker: Annotated[int, typer.Option(min=1, help="Cores of each worker.", rich_help_panel=RAY)] = 1,
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(min=0, help="GPUs of each worker; by default 1 where there are GPUs.", rich_help_panel=RAY),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Detect the objects of images and write their boxes, classes, scores, embeddings and depth as Parquet.

    PATH may also be a list of images (.txt or .parquet), and anything a URI such as s3://bucket/folder. An
    interrupted command goes on where it was when it is repeated. With --boxes, the boxes of your own detector or
    tracker are encoded instead.
    """
    if boxes is None and (annotations is not None or box_unit != "pixels"):
        raise InputError("--annotations and --box-unit describe a file of boxes: give it by --boxes")
    if engine != "ray" and (address, workers, cpus_per_worker, gpus_per_worker) != (None, None, 1, None):
        raise InputError("--address, --workers, --cpus-per-worker and --gpus-per-worker are for --engine ray")
    from ssdir.encoding.encode import encode_images
    from ssdir.encoding.options import BoxFile, EncodeOptions

    started = time.perf_counter()
    given = None if boxes is None else BoxFile(boxes, annotations, box_unit)
    own = None if engine == "ray" else engine
    options = EncodeOptions(
        batch_size, score_threshold, strict, device, own, precision, images_per_part, _share(share)
    )
    by_ray = None
    if engine == "ray":
        from ssdir.encoding.ray_engine import RayWorkers

        by_ray = RayWorkers(address, workers, cpus_per_worker, gpus_per_worker)
    with progress("encoding") as advance:
        encoded = encode_images(model, paths, out, options, given, force, advance, by_ray)
    _print_outcome(encoded, out, boxes is not None, time.perf_counter() - started, as_json)


def _print_outcome(encoded: Encoded, out: str, has_boxes: bool, seconds: float, as_json: bool) -> None:
    is_file = out.lower().endswith(".parquet")
    shown = encoded.reasons if is_file else encoded.reasons[:SHOWN_REASONS]
    for reason in shown:
        warn(f"skipped: {reason}")
    if further := encoded.skipped_images + encoded.skipped_boxes - len(shown):
        where = "" if is_file else f": see {out}/_skipped"
        warn(f"skipped: {further} more{where}")
    if as_json:
        print_json({**asdict(encoded), "seconds": round(seconds, 2), "out": out})
        return
    say(f"{encoded.summary()}, {seconds:.1f} s: {out}")
    if encoded.missing_parts:
        say(f"{counted(encoded.missing_parts, 'part')} of other shares are missing")
    elif encoded.objects:
        next_step("index", out, "--out", "index")
    elif not has_boxes:
        say("nothing was detected: try a lower --score-threshold")


def _share(text: str | None) -> tuple[int, int]:
    if text is None:
        return 1, 1
    if (match := re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)) is None:
        raise InputError(f"--share must look like 3/8, got {quote(text)}")
    return int(match[1]), int(match[2])
