"""`ssdir evaluate`: the metrics of a model, with their provenance."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from ssdir.commands.options import (
    AsJson,
    BatchSize,
    DataSet,
    Device,
    Extent,
    Force,
    ModelOrExport,
    Outside,
    Precision,
    ScoreThreshold,
    Seed,
    Vocabulary,
)
from ssdir.console import next_step, progress, say, stdout
from ssdir.outputs import atomic_file, claim


def evaluate(
    model: ModelOrExport,
    data: DataSet,
    out: Annotated[Path | None, typer.Option(help="JSON file to write: metrics and provenance.")] = None,
    split: Annotated[str, typer.Option(help="Split to measure.")] = "test",
    train_split: Annotated[
        str, typer.Option(help="Split that probes are trained on: another one, or none.")
    ] = "train",
    max_images: Annotated[int | None, typer.Option(min=1, help="Measure the first N images only.")] = None,
    max_train_images: Annotated[int, typer.Option(min=1, help="Train probes on the first N images only.")] = 4000,
    score_threshold: ScoreThreshold = None,
    min_side: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Leave out objects smaller than this share of the image's sides."),
    ] = None,
    drop_empty: Annotated[
        bool | None, typer.Option("--drop-empty/--keep-empty", help="Leave out images without objects.")
    ] = None,
    extent: Extent = None,
    vocabulary: Vocabulary = None,
    outside: Outside = None,
    glyph_root: Annotated[Path | None, typer.Option(help="Folder with MNIST's files.")] = None,
    similarity: Annotated[
        bool,
        typer.Option(
            "--similarity", help="Also measure SSIM and LPIPS of reconstructed objects; needs ssdir[lpips]."
        ),
    ] = False,
    true_boxes: Annotated[
        bool, typer.Option("--true-boxes", help="Of clips: track the true boxes in place of detections.")
    ] = False,
    seed: Seed = 0,
    batch_size: BatchSize = 32,
    as_json: AsJson = False,
    force: Force = False,
    device: Device = None,
    precision: Precision = None,
) -> None:
    """Measure a model: detection, reconstruction, masks, probes of the embedding, scale invariance, tracks.

    Annotations are read, and objects left out, as in the model's training, unless options say otherwise.
    """
    if out is not None:
        claim(out, force)
    from ssdir.evaluation.evaluate import EvaluationOptions
    from ssdir.evaluation.evaluate import evaluate as measure

    options = EvaluationOptions(
        train_split=None if train_split == "none" else train_split,
        max_images=max_images,
        max_train_images=max_train_images,
        score_threshold=score_threshold,
        min_side=min_side,
        drop_empty=drop_empty,
        read_options={"extent": extent, "vocabulary": vocabulary, "outside": outside},
        glyph_root=glyph_root,
        seed=seed,
        batch_size=batch_size,
        similarity=similarity,
        true_boxes=true_boxes,
    )
    with progress("evaluating") as advance:
        report = measure(model, data, split, options, device=device, precision=precision, progress=advance)
    if out is not None:
        with atomic_file(out, force) as temporary:
            temporary.write_text(report.to_json(), encoding="utf-8")
    if as_json:
        typer.echo(report.to_json(), nl=False)
        return
    left_out = report.provenance["config"]["min_side"]
    if left_out and min_side is None:
        say(f"objects under {left_out:.0%} of the image are left out, as in training; see --min-side")
    table = Table("metric", Column("value", justify="right"))
    for name, value in report.metrics.items():
        table.add_row(name, f"{value:.4f}" if math.isfinite(value) else "undefined")
    stdout().print(table)
    image = report.data.image_paths[0]
    if "tracking/hota" in report.metrics:
        next_step("track", model, image.parent, "--out", "tracks.parquet")
    elif "reconstruction/mse" in report.metrics:
        next_step("reconstruct", model, image, "--out", "reconstructions.png")
    else:
        next_step("encode", model, image, "--out", "objects.parquet")
