"""`ssdir outliers`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssdir.commands.options import AnalysisTable, AsJson, Encoder, Force, ImageGrid, Objects
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
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Rank objects by outlier score: distance to other objects, and error of the reconstruction."""
    from ssdir.analysis.outliers import rank_outliers_file
    from ssdir.analysis.output import AnalysisOutput

    output = AnalysisOutput(out, image_grid, force)
    with progress("comparing") as advance:
        ranking = rank_outliers_file(objects, output, model, embeddings_only, advance)
    top = ranking.order[:10].tolist()
    if as_json:
        print_json([{"row": row, "outlier_score": float(ranking.score[row])} for row in top])
        return
    measures = [ranking.score, *ranking.measures.values()]
    rows = [[row, *(float(each[row]) for each in measures), Path(ranking.images[row]).name] for row in top]
    print_table(["row", "outlier_score", *ranking.measures, "image"], rows)
    say(f"{out}; see {image_grid}" if image_grid else f"{out}")
    next_step("index", objects, "--out", "index")
