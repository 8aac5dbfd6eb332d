"""`ssdir cluster`."""

from __future__ import annotations

from typing import Annotated

import typer

from ssdir.commands.counts import print_counts
from ssdir.commands.options import AnalysisTable, AsJson, Encoder, Force, ImageGrid, Objects, PerView, Seed
from ssdir.console import progress


def cluster(
    objects: Objects,
    out: AnalysisTable,
    k: Annotated[
        int | None,
        typer.Option("-k", min=1, help="Number of clusters; by default the number that separates best."),
    ] = None,
    image_grid: ImageGrid = None,
    model: Encoder = None,
    seed: Seed = 0,
    per_view: PerView = False,
    mixture: Annotated[
        bool,
        typer.Option("--mixture", help="Take the classes of the model's mixture prior, not k-means."),
    ] = False,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Cluster objects that look alike."""
    from ssdir.analysis.clusters import cluster_file
    from ssdir.analysis.output import AnalysisOutput

    output = AnalysisOutput(out, image_grid, force)
    with progress("clustering") as advance:
        counts = cluster_file(objects, output, k, model, seed, advance, per_view, mixture)
    print_counts("cluster", counts, objects, out, image_grid, as_json)
