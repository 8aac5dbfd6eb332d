"""`ssdir encode`: images to a file of objects."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from ssdir.commands.options import BatchSize, Device, Force, Precision, ScoreThreshold, Strict
from ssdir.console import next_step, progress, say, warn
from ssdir.errors import InputError
from ssdir.formatting import counted, quote
from ssdir.outputs import atomic_file, claim

if TYPE_CHECKING:
    from ssdir.inference.encode_boxes import PlacedBoxes
    from ssdir.inference.files import EncodedBatch
    from ssdir.inference.predictor import Predictor
    from ssdir.object_arrays import BoxUnit

SUSPICIOUS_OBJECTS = 100
"""Objects in an image, in the mean, from which on it is asked whether the detector has learned."""


def encode(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A shipped model's name, a model's or run's folder, or a .onnx file."
        ),
    ],
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Images, folders or 'patterns*'.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write, a row per object.")],
    batch_size: BatchSize = 32,
    score_threshold: ScoreThreshold = None,
    strict: Strict = False,
    boxes: Annotated[
        Path | None,
        typer.Option(help="Describe these boxes instead of finding any: COCO .json, .csv or .parquet."),
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option(help="COCO file that names the images, where --boxes are COCO's results.")
    ] = None,
    box_unit: Annotated[
        Literal["pixels", "relative"], typer.Option(help="Unit of the boxes of a .csv or .parquet table.")
    ] = "pixels",
    force: Force = False,
    device: Device = None,
    engine: Annotated[
        Literal["torch", "onnx"] | None, typer.Option(help="What runs the model; by default as MODEL needs.")
    ] = None,
    precision: Precision = None,
) -> None:
    """Find the objects of images, with boxes, classes, scores, embeddings and depth, as Parquet.

    With --boxes, describe those of your own detector or tracker instead.
    """
    claim(out, force, (".parquet",))
    told = annotations is not None or box_unit != "pixels"
    if boxes is None and told:
        raise InputError("--annotations and --box-unit tell of a file of boxes: give it by --boxes")
    if boxes is not None:
        _check_can_describe(model, engine, score_threshold)
    from ssdir.data.image_files import find_images
    from ssdir.inference.engines import load_encoder
    from ssdir.inference.files import encode_files, none_readable
    from ssdir.store.objects_file import ObjectWriter

    started = time.perf_counter()
    files = find_images(paths)
    placed = None if boxes is None else _place(boxes, annotations, box_unit, files)
    encoder = load_encoder(model, engine, device, precision)
    unreadable: list[str] = []
    refused = 0
    with progress("encoding") as advance, atomic_file(out, force) as temporary:
        batches: Iterator[EncodedBatch[Any]]
        if placed is None:
            class_names, further = encoder.class_names, None
            batches = encode_files(encoder, files, batch_size, strict, advance, score_threshold=score_threshold)
        else:
            from ssdir.inference.encode_boxes import describe_files

            class_names, further = placed.table.class_names, placed.table.given.schema
            batches = describe_files(cast("Predictor", encoder), placed, files, batch_size, strict, advance)
        source = str(Path(model).resolve()) if Path(model).exists() else model
        about = (class_names, encoder.latent_dim, encoder.fingerprint, further)
        with ObjectWriter(temporary, source, *about) as writer:
            for batch in batches:
                writer.write(batch.objects, batch.paths, batch.sizes, batch.given)
                unreadable += batch.skipped
                refused += len(batch.refused)
                for problem in (*batch.skipped, *batch.refused):
                    warn(f"skipped: {problem}")
        if len(unreadable) == len(files):
            raise InputError(none_readable(unreadable))
    seconds = time.perf_counter() - started
    counts = [
        counted(writer.images_seen, "image"),
        counted(writer.objects_written, "object"),
        f"{len(unreadable)} skipped",
        *([f"{counted(refused, 'box', 'boxes')} skipped"] if refused else []),
        f"{seconds:.1f} s",
    ]
    say(f"{', '.join(counts)}: {out}")
    each = writer.objects_written / max(1, writer.images_seen)
    if placed is None and each >= SUSPICIOUS_OBJECTS:
        warn(
            f"{each:.0f} objects in an image, in the mean: if there are not as many, the detector has learned too "
            "little (raise detector.epochs) or accepts too much (raise --score-threshold)"
        )
    if writer.objects_written:
        next_step("index", out, "--out", "index")
    elif placed is None:
        say("nothing was found: try a lower --score-threshold")


def _check_can_describe(model: str, engine: str | None, score_threshold: float | None) -> None:
    if score_threshold is not None:
        raise InputError("--score-threshold chooses among found objects: leave it out where --boxes are given")
    if engine == "onnx" or model.lower().endswith(".onnx"):
        raise InputError(
            "exported models find objects only: give the model itself, by name or folder, for --boxes"
        )


def _place(boxes: Path, annotations: Path | None, unit: BoxUnit, files: list[Path]) -> PlacedBoxes:
    """Reads the boxes, and says where they and the images given don't meet."""
    from ssdir.inference.encode_boxes import place
    from ssdir.store.box_files import read_boxes

    placed = place(read_boxes(boxes, annotations, unit), files)
    if placed.unknown:
        number, first = len(placed.unknown), placed.unknown[0]
        warn(
            f"left out are the boxes of {counted(number, 'image')} of '{boxes}' not given here: {quote(first)} ..."
        )
    if placed.imageless:
        rows = placed.imageless
        warn(f"left out are {counted(len(rows), 'row')} of '{boxes}' that name no image: row {rows[0]} ...")
    if placed.without:
        warn(f"no boxes in '{boxes}' for {counted(len(placed.without), 'image')}: '{placed.without[0]}' ...")
    return placed
