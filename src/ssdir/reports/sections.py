"""The sections of a report on one model: each turns measurements into a `Section`."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssdir import plots
from ssdir.analysis.projections import MIN_TSNE_POINTS, PrincipalAxes, traverse, tsne
from ssdir.data.dataset import ObjectDataset
from ssdir.documents import yaml_text
from ssdir.evaluation.probing import LabelledLatents, fit_probe
from ssdir.formatting import format_seconds
from ssdir.inference.sample_grid import sample_grid
from ssdir.models.base import GenerativeModel
from ssdir.models.detected.vae import DetectedVAE
from ssdir.reports.report import Details, Figure, Section, facts_table

SHARP = 1.6
"""Pixels of a chart for each pixel of the page."""

TRAVERSED_OBJECTS, TRAVERSED_DIRECTIONS = 3, 4


def scenes_figure(
    model: GenerativeModel, dataset: ObjectDataset, images: Sequence[int], cell: int = 240
) -> Figure:
    """Image grid of inputs, detected boxes, reconstructions and decoded objects."""
    return Figure(
        plots.to_png(sample_grid(model, dataset, images, cell)),
        "For each image: the input, the detected boxes, the reconstruction, and single decoded objects.",
        scale=cell / 180,
        wide=True,
    )


def reconstruction_section(model: GenerativeModel, dataset: ObjectDataset, images: Sequence[int]) -> Section:
    """Reconstructions of images that the model has not seen."""
    return Section(
        "Reconstructions",
        [
            "Images that the model was not trained on. Each detected object becomes a box, a depth and an "
            "embedding of its appearance; the reconstruction is decoded from these alone. On the right, the "
            "objects of highest score, each decoded from its embedding, framed in the colour of its box, with its "
            "score.",
        ],
        figures=[scenes_figure(model, dataset, images)],
    )


def embedding_section(test: LabelledLatents, names: Sequence[str], seed: int = 0) -> Section:
    """Map of embeddings by category (the paper's Fig. 3)."""
    title = "t-SNE map of embeddings"
    if len(test) < MIN_TSNE_POINTS:
        return Section(title, ["Too few objects were detected for a map of their embeddings."])
    projection = tsne(test.latents, seed)
    png = plots.embedding_map(projection.points, test.labels.numpy()[projection.rows], names)
    return Section(
        title,
        [
            f"The embeddings (z_what) of {len(projection.rows):,} test objects, projected to the plane by t-SNE: "
            "similar embeddings are neighbours, as in the paper's Fig. 3. Colours are the true categories.",
        ],
        figures=[Figure(png, "t-SNE map of the objects' embeddings, coloured by category.", scale=SHARP)],
    )


def probe_section(train: LabelledLatents, test: LabelledLatents, names: Sequence[str]) -> Section:
    """Confusion matrix of the linear probe."""
    title = "Confusion matrix"
    if not len(train) or not len(test):
        return Section(title, ["Too few objects were detected to train a classifier on their embeddings."])
    probe = fit_probe(train)
    assert probe is not None
    predicted = probe.predict(test.latents.numpy())
    png = plots.confusion_matrix(test.labels.numpy(), predicted, names)
    return Section(
        title,
        [
            f"A linear classifier predicts the category from the embedding. It was trained on {len(train):,} "
            f"objects and tested on {len(test):,} others. Each row is a true category, in per cent.",
        ],
        figures=[Figure(png, "Confusion matrix of the classifier.", scale=SHARP)],
    )


def traversal_section(model: DetectedVAE, test: LabelledLatents) -> Section:
    """Traversals of the embedding space along its principal components."""
    title = "Latent traversals"
    if len(test) <= TRAVERSED_DIRECTIONS:
        return Section(title, ["Too few objects were detected to traverse the space of their embeddings."])
    device = model.device
    directions = PrincipalAxes.fit(test.latents, TRAVERSED_DIRECTIONS).directions
    traversals = traverse(lambda z_what: model.decoder(z_what.to(device))[0].cpu(), _typical(test), directions)
    return Section(
        title,
        [
            "Any embedding can be decoded to pixels. In the middle of each row is an object as it is; to its left "
            "and right, its embedding is moved along a principal component (PC) of all embeddings by up to three "
            "standard deviations (σ).",
        ],
        figures=[
            Figure(
                plots.to_png(plots.traversal_grid(traversals)),
                "Decoded objects along the principal components of the embeddings.",
                wide=True,
            )
        ],
    )


def _typical(test: LabelledLatents) -> Tensor:
    """Returns, for a few categories, the embedding nearest to the mean of its category."""
    classes = torch.unique(test.labels)
    chosen = classes[torch.linspace(0, len(classes) - 1, min(TRAVERSED_OBJECTS, len(classes))).long()]
    typical = []
    for label in chosen:
        latents = test.latents[test.labels == label]
        typical.append(latents[(latents - latents.mean(dim=0)).square().sum(dim=1).argmin()])
    return torch.stack(typical)


def read_curves(path: Path) -> dict[str, plots.Curve]:
    """Reads the curves of a `metrics.csv` by name, over epochs counted from 1."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if "/" in name and value:
                    epochs, values = curves.setdefault(name, ([], []))
                    epochs.append(int(row["epoch"]) + 1)
                    values.append(float(value))
    return dict(curves)


def training_section(run: Path, stages: Mapping[str, str]) -> Section:
    """Builds the curves of training and validation losses of each stage.

    Args:
        run: the training run's folder.
        stages: by the name of a stage's folder, a caption.
    """
    figures = []
    for stage, caption in stages.items():
        curves = read_curves(run / stage / "metrics.csv")
        png = plots.loss_curves(curves, "epoch")
        figures.append(Figure(png, f"Losses of the stage {stage}.", caption, scale=SHARP, wide=True))
    text = "Losses on the training split and on the validation split. Lower is better."
    return Section("Training and validation losses", [text], figures=figures)


def timing_section(seconds: Mapping[str, float]) -> Section:
    """Builds a bar chart of the time of each stage."""
    text = f"{format_seconds(sum(seconds.values()))} in total on this machine, see Provenance."
    figure = Figure(plots.timing_bar(seconds), "Time of each stage.", scale=SHARP)
    return Section("Time by stage", [text], figures=[figure])


def provenance_section(provenance: Mapping[str, Any]) -> Section:
    """Everything that is needed to make the same again.

    Args:
        provenance: the record of `ssdir.evaluation.provenance.provenance`.
    """
    versions = provenance.get("versions", {})
    facts = {
        "seed": provenance.get("seed"),
        "test data": provenance.get("data_hash"),
        "device": provenance.get("device"),
        "platform": provenance.get("platform"),
        "CPU cores": provenance.get("cpu_count"),
        "CPU": provenance.get("cpu"),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()) or None,
    }
    config = yaml_text(provenance.get("config", {}))
    return Section(
        "Provenance",
        table=facts_table(facts),
        details=[Details("The whole configuration", config.rstrip())],
    )
