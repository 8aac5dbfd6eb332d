"""The experiments whose results are figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from ssdir import plots
from ssdir.analysis.projections import MIN_TSNE_POINTS, tsne
from ssdir.documents import read_bytes
from ssdir.errors import InputError
from ssdir.evaluation.collect import Collector, collect
from ssdir.evaluation.probing import LATENTS
from ssdir.models.base import GenerativeModel
from ssdir.outputs import atomic_file
from ssdir.reports.glossary import MISSING
from ssdir.reports.paper import NOTEBOOK, SURFACE, Generation
from ssdir.reports.report import Figure, Row, RowGroup, Section, Table, is_png
from ssdir.reports.sections import SHARP, scenes_figure
from ssdir.reproduce.experiments import Experiment, Results
from ssdir.reproduce.jobs import Job
from ssdir.reproduce.records import Record, Trainings, make_record
from ssdir.reproduce.runner import Runner
from ssdir.reproduce.surface import CHANGES, Errors, measured_errors, order, rank_correlation
from ssdir.reproduce.trained import TrainedJob


@dataclass(frozen=True)
class Pictures(Experiment):
    """A picture of the first training of each group.

    Attributes:
        name: prefix of its files' names.
        render: renders a PNG of a trained job; None where there is nothing to show.
        alt: description for readers who can't see it.
        scale: see `Figure`.
        wide: see `Figure`.
    """

    name: str
    render: Callable[[TrainedJob], bytes | None]
    alt: str
    scale: float
    wide: bool

    every_seed: ClassVar = False

    def measure(self, runner: Runner, jobs: Sequence[Job], figures: Path) -> list[Record]:
        """Renders pictures, and names them in the records; None where there is nothing to show."""
        records = []
        for job in jobs:
            png = runner.ensure_picture(job, self.name, self.render)
            record = make_record(job, runner.ensure_measured(job), ("detection/", "reconstruction/mse"))
            picture = None
            if png is not None:
                picture = f"{self.name}-{job.group}"
                with atomic_file(figures / f"{picture}.png", force=True) as temporary:
                    temporary.write_bytes(png)
            records.append({**record, "picture": picture})
        return records

    def section(self, results: Results) -> Section:
        """Builds the section with all pictures, each with its method as the caption."""
        figures = []
        for record in results.records:
            if record.get("picture") is None:
                continue
            name = Trainings([record]).name
            png = read_picture(results.figures / f"{record['picture']}.png")
            caption = f"{name}, on {record['data']}."
            alt = f"{self.alt}: {name}, on {record['data']}."
            figures.append(Figure(png, alt, caption, self.scale, self.wide, record["picture"]))
        return Section(self.title, self.paragraphs(results), figures=figures)


def read_picture(file: Path) -> bytes:
    """Reads a PNG that a report refers to.

    Raises:
        InputError: if it is missing, or is no PNG.
    """
    png = read_bytes(file)
    if not is_png(png):
        raise InputError(f"'{file}' is not a PNG picture: restore it, or remove it to have it rendered again")
    return png


def scenes_png(trained: TrainedJob) -> bytes | None:
    """Renders Fig. 2: input, boxes, reconstruction, single objects of a few test images."""
    model = trained.load()
    if not isinstance(model, GenerativeModel):
        return None
    shown = [index for index in trained.job.measure.shown if index < len(trained.test)]
    return scenes_figure(model, trained.test, shown).png


@torch.no_grad()
def embedding_png(trained: TrainedJob) -> bytes | None:
    """Renders Fig. 3: t-SNE of the embeddings of detected test objects, coloured by category."""
    model, test = trained.load(), trained.test
    split = collect(Collector(model, kept="embeddings"), test, max_images=trained.job.measure.test_images)
    latents = split.embeddings[LATENTS]
    if len(latents) < MIN_TSNE_POINTS:
        return None
    projection = tsne(latents.latents)
    return plots.embedding_map(projection.points, latents.labels.numpy()[projection.rows], test.category_names)


@dataclass(frozen=True)
class Surface(Experiment):
    """Fig. 4: the reconstruction error by the smallest size, the largest size and the grids of generated data."""

    prefixes: ClassVar = ("reconstruction/", "detection/ap50")

    def measure(self, runner: Runner, jobs: Sequence[Job], figures: Path) -> list[Record]:
        """Measures reconstructions, and records how the data were generated."""
        records = super().measure(runner, jobs, figures)
        return [
            {**record, "scatter": job.data.plan.scatter.model_dump(mode="json")}
            for job, record in zip(jobs, records, strict=True)
        ]

    def section(self, results: Results) -> Section:
        """Builds the section with the measured surface beside the authors', and their order."""
        ours = measured_errors(results.records)
        if not ours:
            return Section(self.title, self.paragraphs(results))
        theirs = {point: error for point, error in SURFACE.items() if point in ours}
        sides = sorted({(point.smallest, point.largest) for point in ours})
        grids = sorted({point.grids for point in ours})
        panels = {
            name: np.array([[errors.get(Generation(each, *side), np.nan) for each in grids] for side in sides])
            for name, errors in (("measured here", ours), ("the authors", theirs))
            if errors
        }
        png = plots.heatmaps(
            panels,
            [f"{smallest:.2f}–{largest:.2f}" for smallest, largest in sides],
            [f"{first}–{last}" for first, last in grids],
            ("sides of digits", "grids", "MSE of images"),
        )
        figure = Figure(
            png,
            "Mean squared error of reconstructions by the sides of digits and the grids, here and by the authors.",
            "Sides are relative to the image's. Each cell is a data set and a training of its own. Each panel has "
            f"its own scale of colours. The authors' errors: {NOTEBOOK}.",
            SHARP,
            True,
            "figure4",
        )
        return Section(self.title, self.paragraphs(results), figures=[figure], table=order_table(ours))


def order_table(ours: Errors) -> Table:
    """Builds the table of how often harder data have the larger error, here and by the authors, and of how alike
    both surfaces are.
    """
    surfaces = (ours, {point: error for point, error in SURFACE.items() if point in ours}, SURFACE)
    rows = []
    for field, change in CHANGES.items():
        orders = [order(errors, field) for errors in surfaces]
        if orders[0].pairs:
            note = "Pairs of neighbouring data sets of which the harder one has the larger error."
            rows.append(Row(change, note, [each.text if each.pairs else MISSING for each in orders]))
    correlation = rank_correlation(ours, SURFACE)
    if correlation is not None:
        note = "Spearman's; 1 where both surfaces rank the data sets equally."
        rows.append(
            Row("rank correlation with the authors' errors", note, [f"{correlation:.2f}", MISSING, MISSING])
        )
    header = ["", "measured here", "the authors, same data sets", f"the authors, all {len(SURFACE)} data sets"]
    return Table(header, [RowGroup("", rows)])
