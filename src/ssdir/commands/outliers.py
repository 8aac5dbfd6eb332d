"""`ssdir outliers`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssdir.commands.options import AnalysisTable, AsJson, Encoder, Force, ImageGrid, Objects, PerView
from ssdir.console import next_step, print_json, print_table, progress, say


def outliers(
    objects: Objects,
    out: AnalysisTable,
    model: Encoder = None,
    embeddings_only: Annotated[
        bool,
        typer.Option("--embeddings-only", help="Rank by the distance to other objects alone, without images."),
    ] = False,
    image_grid: ImageGrid = None,
    per_view: PerView = False,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Rank objects by outlier score: distance to other objects, and error of the reconstruction."""
    from ssdir.analysis.outliers import rank_outliers_file
    from ssdir.analysis.output import AnalysisOutput

    output = AnalysisOutput(out, image_grid, force)
    with progress("comparing") as advance:
        ranking = rank_outliers_file(objects, output, model, embeddings_only, advance, per_view)
    top = ranking.order[:10].tolist()
    measures = {"outlier_score": ranking.score, **ranking.measures}
    rows = [{"row": row, **{name: float(each[row]) for name, each in measures.items()}} for row in top]
    if as_json:
        print_json([{**values, "image": ranking.images[values["row"]]} for values in rows])
        return
    cells = [[*values.values(), Path(ranking.images[values["row"]]).name] for values in rows]
    print_table(["row", *measures, "image"], cells)
    say(f"{out}; see {image_grid}" if image_grid else f"{out}")
    next_step("index", objects, "--out", "index")
