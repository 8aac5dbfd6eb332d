"""`ssdir classify fit`, `ssdir classify predict`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ssdir.commands.counts import print_counts
from ssdir.commands.group import PlainCommand, command_group
from ssdir.commands.options import AnalysisTable, AsJson, Encoder, Force, ImageGrid, Objects, PerView, Seed
from ssdir.console import next_step, print_json, print_table, say

classify_app = command_group("Train a classifier of objects on a few labelled ones.")


@classify_app.command(
    cls=PlainCommand,
    epilog="Example: ssdir classify fit objects.parquet --labels labels.csv --out digits.json",
)
def fit(
    objects: Objects,
    out: Annotated[Path, typer.Option(help="Classifier to write, as JSON.")],
    labels: Annotated[Path | None, typer.Option(help="CSV with the columns row, from 0, and label.")] = None,
    column: Annotated[
        str | None, typer.Option(help="Column of OBJECTS that holds the labels, instead of --labels.")
    ] = None,
    model: Encoder = None,
    seed: Seed = 0,
    per_view: PerView = False,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Train on labelled objects, and measure the accuracy on held-out ones."""
    from ssdir.analysis.classifier import fit_file

    validation = fit_file(objects, out, labels, column, model, seed, force, per_view)
    if as_json:
        print_json(asdict(validation))
        return
    print_table(["class", "labelled"], validation.counts.items())
    say(validation.sentence())
    next_step("classify", "predict", out, objects, "--out", "predicted.csv", "--image-grid", "predicted.png")


@classify_app.command(
    cls=PlainCommand,
    epilog="Example: ssdir classify predict digits.json objects.parquet --out p.csv --image-grid p.png",
)
def predict(
    classifier: Annotated[Path, typer.Argument(metavar="CLASSIFIER", help="File that ssdir classify fit wrote.")],
    objects: Objects,
    out: AnalysisTable,
    image_grid: ImageGrid = None,
    model: Encoder = None,
    per_view: PerView = False,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Predict each object's class and its probability."""
    from ssdir.analysis.classifier import predict_file
    from ssdir.analysis.output import AnalysisOutput

    counts = predict_file(classifier, objects, AnalysisOutput(out, image_grid, force), model, per_view)
    print_counts("class", counts, objects, out, image_grid, as_json)
