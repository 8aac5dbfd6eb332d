"""Writes the tables of README and docs from the committed results.

A page holds a generated table or sentence between two comments:

    <!-- table: NAME -->

    …

    <!-- end -->

`make docs-tables` writes what `TABLES[NAME]` returns between them. With `--check` the tool changes nothing, and
exits with 1 where a page is stale.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"^<!-- table: (?P<name>[\w-]+) -->\n.*?^<!-- end -->$", re.MULTILINE | re.DOTALL)
TABLES: dict[str, Callable[[], str]] = {}
"""The text of each table, by the name in its comment."""

Metrics = Mapping[str, float]
Quoted = tuple[str, int]
"""A metric, and the digits that it is quoted with."""


def generated(build: Callable[[], str]) -> Callable[[], str]:
    """Registers a table under the name of its function."""
    TABLES[build.__name__.replace("_", "-")] = build
    return build


# Reading results.


@cache
def content(name: str) -> Any:
    """The JSON of `results/NAME.json`."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def records(file: str, run: str) -> list[dict[str, Any]]:
    """All trainings of a run that an experiment's file holds."""
    return [record for record in content(file)["records"] if record["group"] == run]


def measured(*addresses: str) -> dict[str, float]:
    """Metrics at `FILE`, or means over the trainings at `FILE:RUN`; several addresses are merged."""
    merged: dict[str, float] = {}
    for address in addresses:
        file, _, run = address.partition(":")
        each = [record["metrics"] for record in records(file, run)] if run else [content(file)["metrics"]]
        merged |= {name: statistics.fmean(metrics[name] for metrics in each) for name in (each[0] if each else ())}
    return merged


def spread(file: str, run: str, metric: str = "probe/accuracy") -> float:
    """Standard deviation of a metric over the trainings of a run."""
    return statistics.pstdev(record["metrics"][metric] for record in records(file, run))


def training_seconds(provenance: Mapping[str, Any]) -> float:
    """Seconds of all stages of a training."""
    return float(sum(provenance["training"]["wall_seconds"].values()))


# Writing tables.


def figure(metrics: Metrics, quoted: Quoted) -> str:
    """A metric as it is quoted; a dash where there is none."""
    name, digits = quoted
    return f"{metrics[name]:.{digits}f}" if name in metrics else "–"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; columns of numbers are aligned to the right."""
    columns = list(zip(*rows, strict=True))
    numeric = [all(re.match(r"[-±0-9]|$|–", cell) for cell in column) for column in columns]
    rule = ["---:" if right and index else "---" for index, right in enumerate(numeric)]
    return "\n".join(f"| {' | '.join(cells)} |".replace("  ", " ") for cells in (head, rule, *rows))


def by_model(models: Mapping[str, Metrics], columns: Mapping[str, Quoted], corner: str = "") -> str:
    """A table with a row for each model and a column for each metric."""
    rows = [[name, *(figure(metrics, quoted) for quoted in columns.values())] for name, metrics in models.items()]
    return table([corner, *columns], rows)


def by_metric(rows: Mapping[str, Quoted], models: Mapping[str, Metrics]) -> str:
    """A table with a row for each metric and a column for each model."""
    cells = [[label, *(figure(metrics, quoted) for metrics in models.values())] for label, quoted in rows.items()]
    return table(["", *models], cells)


Goal = tuple[str, float, float]
"""A sign, a goal and what was measured."""


def shortfall(sign: str, goal: float, value: float) -> float:
    """Distance from a goal that is missed, 0 for one that is met."""
    return max(0.0, goal - value if sign == "≥" else value - goal)


def verdict(goals: Sequence[Goal], digits: int = 3) -> str:
    """Says whether all goals are met, and by how much those are missed that are not."""
    misses = [f"{miss:.{digits}f}" for miss in (shortfall(*goal) for goal in goals) if miss > 0]
    return f"**missed** by {'; '.join(misses)}" if misses else "met"


def goal_row(label: str, *goals: Goal, digits: int = 3) -> list[str]:
    """Label, goal, measurement and verdict."""
    signs = goals[0][0] + " " + ", ".join(dict.fromkeys(f"{goal:g}" for _, goal, _ in goals))
    values = ", ".join(f"{value:.{digits}f}" for *_, value in goals)
    return [label, signs, values, verdict(goals, digits)]


# README.


@generated
def readme_results() -> str:
    rows: dict[str, tuple[Quoted, dict[str, str]]] = {
        "AP50": (("detection/ap50", 3), {"demo": "≥ 0.90", "agnostic": "≥ 0.97"}),
        "latents per true object": (("detection/latents_per_object", 3), {"demo": "≤ 1.05", "agnostic": "≤ 1.02"}),
        "reconstruction MSE": (("reconstruction/mse", 4), {"demo": "≤ 0.012", "agnostic": "≤ 0.006"}),
        "digit probe, conditional": (
            ("probe/accuracy", 3),
            {"demo": "≥ 0.90", "agnostic": "≥ 0.97", "aware": "≥ 0.985"},
        ),
        "digit probe, end to end": (("probe/accuracy_end_to_end", 3), {"demo": "≥ 0.85", "agnostic": "≥ 0.94"}),
        "floor: the same probe on the detector's pooled features": (("probe/pooled_features/accuracy", 3), {}),
        "floor: the same probe on pixels": (("probe/raw_pixels/accuracy", 3), {}),
        "the same digit retrieved at 4 times the size": (("scale/retrieval_at_1", 3), {}),
    }
    models = {
        "demo": measured("demo/metrics"),
        "agnostic": measured("reference/class-agnostic"),
        "aware": measured("reference/class-aware"),
        "shipped": measured("reference/tiny-mnist"),
    }
    cells = []
    for label, (quoted, goals) in rows.items():
        row = [label]
        for model, metrics in models.items():
            goal = goals.get(model, "")
            sign, _, limit = goal.partition(" ")
            missed = bool(goal) and shortfall(sign, float(limit), metrics[quoted[0]]) > 0
            limits = f" ({sign}&nbsp;{limit})" if goal else ""
            row.append(figure(metrics, quoted) + limits + (" **missed**" if missed else ""))
        cells.append(row)
    head = [
        "",
        "demo, class-agnostic",
        "MNIST, class-agnostic",
        "MNIST, class-aware",
        "`tiny-mnist`, class-agnostic",
    ]
    return table(head, cells)


@generated
def readme_paper() -> str:
    models = {
        "class-agnostic, 50,000 images, four minutes of a GPU": measured("paper/table2:better"),
        "class-aware, the same": measured("paper/table2:better-taught"),
        "class-agnostic, 21,000 images, two CPU cores": measured("cpu/probes:ssdir-more-all"),
        "class-aware, the same ": measured("cpu/probes:ssdir-aware-all"),
        "the paper's own model, 50,000 images, trained here for six minutes": measured("paper/paper-mnist"),
        "the paper": {"probe/largest_overlap/accuracy": 0.9789},
    }
    columns = {
        "detected digits": ("probe/accuracy", 3),
        "all digits": ("probe/accuracy_end_to_end", 3),
        "by the paper's labels": ("probe/largest_overlap/accuracy", 3),
    }
    return by_model(models, columns)


# Experiments: the reference runs, the demo, CLEVR, WIDER FACE and single-scale digits.

PROBES: dict[str, Quoted] = {
    "digit probe, conditional": ("probe/accuracy", 3),
    "digit probe, end to end": ("probe/accuracy_end_to_end", 3),
    "digit probe at the true boxes": ("probe/true_boxes/accuracy", 3),
}
SCALES: dict[str, Quoted] = {
    "digit probe, small objects": ("scale/probe/accuracy_small", 3),
    "digit probe, large objects": ("scale/probe/accuracy_large", 3),
    "a probe of small objects, tested on large ones": ("scale/small_to_large/accuracy", 3),
    "the reverse": ("scale/large_to_small/accuracy", 3),
    "the same digit retrieved at 4 times the size": ("scale/retrieval_at_1", 3),
    "drift of an embedding from size to size": ("scale/drift", 3),
}


@generated
def reference_goals() -> str:
    metrics = measured("reference/class-agnostic")
    aware = measured("reference/class-aware")
    return table(
        ["", "goal", "measured", ""],
        [
            goal_row("class-agnostic: AP50", ("≥", 0.97, metrics["detection/ap50"])),
            goal_row("latents per true object", ("≤", 1.02, metrics["detection/latents_per_object"])),
            goal_row("reconstruction MSE", ("≤", 0.006, metrics["reconstruction/mse"]), digits=4),
            goal_row("digit probe, conditional", ("≥", 0.97, metrics["probe/accuracy"])),
            goal_row("digit probe, end to end", ("≥", 0.94, metrics["probe/accuracy_end_to_end"])),
            goal_row("class-aware: digit probe, conditional", ("≥", 0.985, aware["probe/accuracy"])),
        ],
    )


@generated
def reference() -> str:
    rows: dict[str, Quoted] = {
        "AP50": ("detection/ap50", 3),
        "AP over all overlaps": ("detection/ap", 3),
        "latents per true object": ("detection/latents_per_object", 3),
        "reconstruction MSE": ("reconstruction/mse", 4),
        "structural similarity (SSIM)": ("reconstruction/ssim", 3),
        **PROBES,
        "floor: the detector's pooled features": ("probe/pooled_features/accuracy", 3),
        **SCALES,
        "k-means clusters: NMI with the digits": ("clusters/nmi", 3),
    }
    models = {
        "class-agnostic": measured("reference/class-agnostic"),
        "by Muon": measured("reference/class-agnostic-muon"),
        "without the refiner": measured("reference/ssd-boxes"),
        "class-aware": measured("reference/class-aware"),
    }
    return by_metric(rows, models)


@generated
def supervised() -> str:
    rows = {
        "all test digits": ("accuracy", 3),
        "the small third": ("accuracy_small", 3),
        "the large third": ("accuracy_large", 3),
    }
    return by_metric(rows, {"supervised classifier": measured("reference/supervised")})


@generated
def demo() -> str:
    metrics = measured("demo/metrics")
    return table(
        ["", "goal", "measured", ""],
        [
            goal_row("AP50", ("≥", 0.9, metrics["detection/ap50"])),
            goal_row("digit probe, conditional", ("≥", 0.9, metrics["probe/accuracy"])),
            goal_row("digit probe, end to end", ("≥", 0.85, metrics["probe/accuracy_end_to_end"])),
            goal_row("latents per true object", ("≤", 1.05, metrics["detection/latents_per_object"])),
            goal_row("reconstruction MSE", ("≤", 0.012, metrics["reconstruction/mse"]), digits=4),
            goal_row(
                "minutes of all stages",
                ("≤", 6, content("demo/metrics")["provenance"]["wall_seconds"] / 60),
                digits=1,
            ),
        ],
    )


@generated
def clevr() -> str:
    rows: dict[str, Quoted] = {
        "AP50": ("detection/ap50", 3),
        "AP over all overlaps": ("detection/ap", 3),
        "latents per true object": ("detection/latents_per_object", 3),
        "foreground ARI of the masks from alpha": ("masks/fg_ari", 3),
        "mIoU of the masks": ("masks/miou", 3),
        "nearer of two overlapping objects": ("depth/order_accuracy", 3),
        "material": ("properties/material/accuracy", 3),
        "size": ("properties/size/accuracy", 3),
        "colour": ("properties/colour/accuracy", 3),
        "shape": ("properties/shape/accuracy", 3),
        "shape, floor: the detector's pooled features": ("probe/pooled_features/accuracy", 3),
        "shape at the true boxes": ("probe/true_boxes/accuracy", 3),
    }
    models = {
        "`clevr-128`": measured("clevr/clevr-128"),
        "without the refiner, 8×8 samples": measured("clevr/ssd-boxes-own-level"),
    }
    return by_metric(rows, models)


@generated
def clevr_shape() -> str:
    names = ("properties/shape/accuracy", "probe/true_boxes/accuracy")
    samples = {
        "own level, 8×8 samples": ("clevr/ssd-boxes-own-level", "clevr/own-level"),
        "all levels, 16×16 samples": ("clevr/ssd-boxes-all-levels", "clevr/clevr-128"),
    }
    rows = [
        [f"{label} ({', '.join(f'`{Path(run).name}.json`' for run in runs)})"]
        + [figure(measured(run), (name, 3)) for run in runs for name in names]
        for label, runs in samples.items()
    ]
    return table(["", "at SSD's boxes", "at the true boxes", "at refined boxes", "at the true boxes"], rows)


@generated
def widerface() -> str:
    rows: dict[str, Quoted] = {
        "AP50": ("detection/ap50", 3),
        "AP, small faces": ("detection/ap_small", 3),
        "AP, large faces": ("detection/ap_large", 3),
        "recall": ("detection/recall", 3),
        "precision": ("detection/precision", 3),
        "MSE of the objects": ("reconstruction/object_mse", 4),
        "blur": ("properties/blur/accuracy", 3),
        "blur, the most frequent answer": ("properties/blur/majority", 3),
        "pose": ("properties/pose/accuracy", 3),
        "pose, the most frequent answer": ("properties/pose/majority", 3),
    }
    models = {
        "`widerface-128`": measured("widerface/widerface-128"),
        "without the refiner": measured("widerface/ssd-boxes"),
    }
    return by_metric(rows, models)


@generated
def single() -> str:
    cells = []
    for name, file in (("SPACE", "single/space"), ("SPAIR", "single/spair")):
        metrics = measured(file)
        minutes = training_seconds(content(file)["provenance"]) / 60
        names = ("detection/ap50", "detection/count_error", "probe/accuracy", "probe/raw_pixels/accuracy")
        cells.append([name, *(figure(metrics, (each, 3)) for each in names), f"{minutes:.0f}"])
    head = ["", "AP50", "count error per image", "digit probe", "floor: pixels", "minutes of training"]
    return table(head, [["goal", "≥ 0.80", "≤ 0.5", "≥ 0.85", "", ""], *cells])


@generated
def methods() -> str:
    models = {
        "SSDIR, `tiny`": measured("multi/ssdir"),
        "GlimpseVAE, `tiny-glimpses`": measured("multi/glimpse-vae"),
        "PooledFeatures, `tiny-pooled`": measured("multi/pooled-features"),
        "SPACE, at 64×64": measured("multi/space"),
        "SPAIR, at 64×64": measured("multi/spair"),
    }
    columns = {
        "AP50": ("detection/ap50", 3),
        "count error": ("detection/count_error", 2),
        "digit probe": ("probe/accuracy", 3),
        "end to end": ("probe/accuracy_end_to_end", 3),
        "MSE": ("reconstruction/mse", 4),
        "the same digit at 4 × the size": ("scale/retrieval_at_1", 3),
        "probe, small to large": ("scale/small_to_large/accuracy", 3),
    }
    return by_model(models, columns)


# Experiments: the scale `cpu`.


@generated
def cpu_goals() -> str:
    ours, aware = measured("cpu/table2:ssdir"), measured("cpu/table2:ssdir-aware")
    more, scale = measured("cpu/probes:ssdir-more-all"), measured("cpu/scale:ssdir")
    masks, properties = measured("cpu/masks:clevr"), measured("cpu/properties:clevr")
    error_ratio = (1 - ours["probe/accuracy"]) / (1 - ours["probe/pooled_features/accuracy"])
    transfer = [("≥", 0.93, scale[f"scale/{name}/accuracy"]) for name in ("small_to_large", "large_to_small")]
    properties_of_clevr = {"colour": 0.95, "shape": 0.85, "material": 0.9, "size": 0.97}
    return table(
        ["", "goal", "measured", ""],
        [
            goal_row("Table 2, SSDIR, class-aware, conditional", ("≥", 0.985, aware["probe/accuracy"])),
            goal_row(
                "the same, by probes that learn from all images, as the paper's do",
                ("≥", 0.985, measured("cpu/probes:ssdir-aware-all")["probe/accuracy"]),
            ),
            goal_row("Table 2, SSDIR, class-agnostic, conditional", ("≥", 0.975, ours["probe/accuracy"])),
            goal_row("the same, end to end", ("≥", 0.95, ours["probe/accuracy_end_to_end"])),
            goal_row(
                "its probe error, over that of its detector's pooled features", ("≤", 0.5, error_ratio), digits=2
            ),
            goal_row(
                "class-agnostic, [more of everything](#more-of-everything), by probes that learn from all images",
                ("≥", 0.975, more["probe/accuracy"]),
            ),
            goal_row("the same, end to end", ("≥", 0.95, more["probe/accuracy_end_to_end"])),
            goal_row("a probe of small objects, tested on large ones; the reverse", *transfer),
            goal_row("the same digit retrieved at 4 times the size", ("≥", 0.8, scale["scale/retrieval_at_1"])),
            goal_row(
                "CLEVR: nearer of two overlapping objects",
                ("≥", 0.9, measured("cpu/depth:clevr")["depth/order_accuracy"]),
            ),
            goal_row(
                "CLEVR: foreground ARI, mIoU of masks",
                ("≥", 0.9, masks["masks/fg_ari"]),
                ("≥", 0.7, masks["masks/miou"]),
            ),
            goal_row(
                "CLEVR: colour, shape, material, size",
                *(
                    ("≥", goal, properties[f"properties/{name}/accuracy"])
                    for name, goal in properties_of_clevr.items()
                ),
            ),
        ],
    )


@generated
def order_of_methods() -> str:
    runs = {"SSDIR": "ssdir", "GlimpseVAE": "glimpses", "SPAIR": "spair", "SPACE": "space"}
    rows = []
    for name, run in runs.items():
        metrics = measured(f"cpu/table2:{run}")
        names = ("probe/accuracy", "probe/accuracy_end_to_end", "probe/true_boxes/accuracy", "detection/recall")
        rows.append([name, *(figure(metrics, (each, 3)) for each in names), f"{spread('cpu/table2', run):.3f}"])
    return table(["", "conditional", "end to end", "at the true boxes", "digits detected", "± over seeds"], rows)


@generated
def more_of_everything() -> str:
    rows: dict[str, Quoted] = {
        "digit probe, small objects": ("scale/probe/accuracy_small", 3),
        "digit probe, medium objects": ("scale/probe/accuracy_medium", 3),
        **{label: quoted for label, quoted in SCALES.items() if label != "digit probe, small objects"},
    }
    models = {"Table 2's": measured("cpu/scale:ssdir"), "more of everything": measured("cpu/scale:ssdir-more")}
    return by_metric(rows, models)


@generated
def probes_of_all_images() -> str:
    columns = {
        "conditional": ("probe/accuracy", 3),
        "end to end": ("probe/accuracy_end_to_end", 3),
        "by the paper's labels": ("probe/largest_overlap/accuracy", 3),
        "at the true boxes": ("probe/true_boxes/accuracy", 3),
        "floor: pooled features": ("probe/pooled_features/accuracy", 3),
        "floor: untrained encoder": ("probe/random_encoder/accuracy", 3),
        "the detector's own classes": ("probe/labels/accuracy", 3),
    }
    runs = {"class-agnostic, more of everything": "ssdir-more-all", "class-aware": "ssdir-aware-all"}
    rows = []
    for label, run in runs.items():
        metrics = measured(f"cpu/probes:{run}")
        cells = [figure(metrics, quoted) for quoted in columns.values()]
        rows.append([label, f"{cells[0]} ± {spread('cpu/probes', run):.3f}", *cells[1:]])
    return table(["", *columns], rows)


@generated
def muon() -> str:
    rows: dict[str, tuple[str, str]] = {
        "digit probe, class-agnostic, conditional": ("ssdir", "probe/accuracy"),
        "the same, end to end": ("ssdir", "probe/accuracy_end_to_end"),
        "the same, at the true boxes": ("ssdir", "probe/true_boxes/accuracy"),
        "digits detected, of all": ("ssdir", "detection/recall"),
        "a probe of small objects, tested on large ones": ("ssdir", "scale/small_to_large/accuracy"),
        "the reverse": ("ssdir", "scale/large_to_small/accuracy"),
        "drift of an embedding from size to size": ("ssdir", "scale/drift"),
        "GlimpseVAE, conditional": ("glimpses", "probe/accuracy"),
    }
    cells = []
    for label, (run, name) in rows.items():
        folders = [measured(f"{folder}/table2:{run}", f"{folder}/scale:{run}") for folder in ("adamw", "cpu")]
        cells.append([label, *(figure(metrics, (name, 3)) for metrics in folders)])
    return table(["", "AdamW", "Muon"], cells)


@generated
def classes() -> str:
    labels = {
        "aware-short": "no label, no features of the refiner",
        "aware-look": "embeddings read the refiner's features",
        "aware-taught": "embeddings are supervised with the classes",
        "aware-both": "both",
        "aware-muon": "both, by Muon",
        "aware-muon-taught": "supervised with the classes alone, by Muon",
    }
    models = {}
    for folder in ("adamw", "cpu"):
        for record in content(f"{folder}/classes")["records"]:
            models[labels[record["group"]]] = record["metrics"]
    columns = {
        "digit probe": ("probe/accuracy", 3),
        "nearest neighbours": ("probe/knn_accuracy", 3),
        "k-means clusters are digits": ("clusters/accuracy", 3),
        "the same digit at 4 × the size": ("scale/retrieval_at_1", 3),
        "MSE": ("reconstruction/mse", 4),
        "the detector's own classes": ("probe/labels/accuracy", 3),
    }
    return by_model(models, columns)


@generated
def class_aware_floors() -> str:
    models = {
        "10,500 images, AdamW": ("adamw/table2:ssdir-aware", "adamw/table2:pooled-aware"),
        "21,000 images, Muon": ("cpu/table2:ssdir-aware", "cpu/table2:pooled-aware"),
    }
    rows = []
    for label, (ours, pooled) in models.items():
        metrics = measured(ours) | {"pooled": measured(pooled)["probe/accuracy"]}
        names = ("probe/accuracy", "probe/labels/accuracy", "pooled", "probe/random_encoder/accuracy")
        rows.append([label, *(figure(metrics, (name, 3)) for name in names)])
    return table(
        ["", "SSDIR", "the detector's own classes", "floor: pooled features", "floor: untrained encoder"], rows
    )


@generated
def ablation() -> str:
    labels = {
        "short": "SSDIR, one epoch",
        "own-places": "second views of whole images, not copy-paste views",
        "no-consistency": "no consistency term",
        "cells": "encoder reads a cell, not the box",
        "frozen": "no copy of the backbone",
        "weighted": "weighted merge, no alpha",
        "one-start": "decoder from one cell",
        "small-code": "64 latents",
        "all-detections": "all detections kept",
        "paper-weights": "likelihoods have weights of 10",
        "as-paper": "as the paper, but for NMS",
    }
    models = {labels[record["group"]]: record["metrics"] for record in content("cpu/ablation")["records"]}
    columns = {
        "digit probe": ("probe/accuracy", 3),
        "MSE": ("reconstruction/mse", 4),
        "the same digit at 4 × the size": ("scale/retrieval_at_1", 3),
    }
    return by_model(models, columns)


@generated
def figure4() -> str:
    errors: dict[str, dict[str, str]] = {}
    for record in content("cpu/figure4")["records"]:
        scatter = record["scatter"]
        grids = f"grids {min(scatter['grids'])}–{max(scatter['grids'])}"
        sides = f"{scatter['min_size']:.2f}–{scatter['max_size']:.2f}"
        errors.setdefault(sides, {})[grids] = f"{record['metrics']['reconstruction/mse']:.4f}"
    grids = list(next(iter(errors.values())))
    rows = [[sides, *(by_grid[each] for each in grids)] for sides, by_grid in errors.items()]
    return table(["sides of digits, of the image's", *grids], rows)


@generated
def clevr_methods() -> str:
    runs = {
        "SSDIR, `clevr-128`": "clevr",
        "the same, objects read from their own level": "clevr-own-level",
        "GlimpseVAE, on the same detector": "clevr-glimpses",
        "SPACE": "clevr-space",
        "SPAIR": "clevr-spair",
    }
    files = ("cpu/masks", "cpu/properties", "cpu/depth")
    models = {label: measured(*(f"{file}:{run}" for file in files)) for label, run in runs.items()}
    columns = {
        "FG-ARI": ("masks/fg_ari", 3),
        "mIoU": ("masks/miou", 3),
        "nearer of two": ("depth/order_accuracy", 3),
        **{
            name: (f"properties/{name}/accuracy_end_to_end", 3) for name in ("colour", "shape", "material", "size")
        },
    }
    return by_model(models, columns)


@generated
def widerface_methods() -> str:
    runs = {
        "SSDIR, `widerface-128`": "faces",
        "GlimpseVAE, on the same detector": "faces-glimpses",
        "SPACE": "faces-space",
        "SPAIR": "faces-spair",
    }
    models = {label: measured(f"cpu/figure2:{run}") for label, run in runs.items()}
    return by_model(models, {"AP50": ("detection/ap50", 3), "recall": ("detection/recall", 3)})


# Experiments: the scale `paper`.


@generated
def paper_scale() -> str:
    runs = {"better-taught": "class-aware", "better": "class-agnostic", "glimpses": "GlimpseVAE, class-agnostic"}
    columns = {
        "end to end": ("probe/accuracy_end_to_end", 3),
        "by the paper's labels": ("probe/largest_overlap/accuracy", 3),
        "at the true boxes": ("probe/true_boxes/accuracy", 3),
        "nearest neighbours": ("probe/knn_accuracy", 3),
        "floor: pooled features": ("probe/pooled_features/accuracy", 3),
        "floor: untrained encoder": ("probe/random_encoder/accuracy", 3),
        "the detector's own classes": ("probe/labels/accuracy", 3),
    }
    rows = []
    for run, label in runs.items():
        trained = records("paper/table2", run)
        metrics = measured(f"paper/table2:{run}")
        seconds = statistics.fmean(training_seconds(record["provenance"]) for record in trained)
        deviation = f" ± {spread('paper/table2', run):.4f}" if len(trained) > 1 else ""
        cells = [figure(metrics, quoted) for quoted in columns.values()]
        rows.append([label, f"{metrics['probe/accuracy']:.4f}{deviation}", *cells, f"{seconds:.0f}"])
    return table(["", "conditional", *columns, "seconds of training"], rows)


@generated
def paper_goals() -> str:
    agnostic, aware = measured("paper/table2:better"), measured("paper/table2:better-taught")
    scale = measured("paper/scale:better")
    transfer = [("≥", 0.93, scale[f"scale/{name}/accuracy"]) for name in ("small_to_large", "large_to_small")]
    return table(
        ["", "goal", "measured", ""],
        [
            goal_row("class-aware, conditional", ("≥", 0.985, aware["probe/accuracy"])),
            goal_row("class-agnostic, conditional", ("≥", 0.975, agnostic["probe/accuracy"])),
            goal_row("the same, end to end", ("≥", 0.95, agnostic["probe/accuracy_end_to_end"])),
            goal_row("class-agnostic: a probe of small objects, tested on large ones; the reverse", *transfer),
            goal_row(
                "class-agnostic: the same digit retrieved at 4 times the size",
                ("≥", 0.8, scale["scale/retrieval_at_1"]),
            ),
        ],
    )


@generated
def papers_own_model() -> str:
    rows: dict[str, Quoted] = {
        "conditional": ("probe/accuracy", 3),
        "by the paper's labels": ("probe/largest_overlap/accuracy", 3),
        "end to end": ("probe/accuracy_end_to_end", 3),
        "at the true boxes": ("probe/true_boxes/accuracy", 3),
        "floor: the detector's own classes": ("probe/labels/accuracy", 3),
        "floor: an untrained encoder": ("probe/random_encoder/accuracy", 3),
        "floor: the detector's pooled features": ("probe/pooled_features/accuracy", 3),
        "AP50 of the detector": ("detection/ap50", 3),
        "objects detected": ("detection/recall", 3),
        "latents per true object": ("detection/latents_per_object", 3),
        "mean squared error of reconstructions": ("reconstruction/mse", 3),
    }
    paper = {"probe/largest_overlap/accuracy": 0.9789}
    return by_metric(rows, {"measured": measured("paper/paper-mnist"), "the paper": paper})


# Speed.

SPEED = {
    "`encode` / its own backbone and heads alone": "encode / backbone and heads alone",
    "`encode` at 50 objects / at 1 object per image": "SSDIR: encode at 50 objects / at 1 object per image",
    "the same with glimpses": "GlimpseVAE: encode at 50 objects / at 1 object per image",
    "encode in the published form / best in single precision": (
        "encode in the published form / by the best engine in single precision"
    ),
    "the same / best in bfloat16": "encode in the published form / by the best engine in bfloat16",
    "the same / in int8": "encode in the published form / in int8",
    "encode, best in single precision / in int8": "encode by the best engine in single precision / in int8",
    "compositor on full canvases / in regions, 20 objects, 1 image": (
        "compositor on canvases / as a product, 1 images"
    ),
    "the same, 8 images": "compositor on canvases / as a product, 8 images",
    "peak memory of composing 100 objects / 1 object, 1024×1024": (
        "peak memory of composing 100 objects / 1 object, 1024 x 1024"
    ),
    "training step with the backbone / on cached features": "training step with the backbone / on cached features",
    "training step with four encoder passes / with one": "training step with four encoder passes / with one",
    "`ssdir --help`, seconds": "ssdir --help, seconds",
    "`import ssdir`, seconds": "import ssdir, seconds",
    "`ssdir encode MODEL.onnx` of one image, seconds": "ssdir encode MODEL.onnx, seconds",
}
"""Rows of the table of goals, and the records that they are from."""


@generated
def speed_goals() -> str:
    found = {record["name"]: record for record in content("bench/speed")["records"]}
    rows = []
    for label, name in SPEED.items():
        record = found[name]
        goal = record["goal"].partition(",")[0].replace(">=", "≥").replace("<=", "≤")
        missed = ", **missed**" if record["met"] is False else ""
        rows.append([label, goal or "–", f"{record['median']:.2f}{missed}"])
        if name == "compositor on canvases / as a product, 8 images":
            rows.append(
                ["memory in regions / on full canvases, 8 images", "≤ 0.25", f"{record['peak_memory_ratio']:.2f}"]
            )
    return table(["", "goal", "measured"], rows)


@generated
def engines() -> str:
    name = "encode in the published form / by the best engine in single precision"
    record = next(entry for entry in content("bench/speed")["records"] if entry["name"] == name)
    seconds = {engine: values["median"] for engine, values in record["seconds_per_image"].items()}
    as_trained = seconds["torch, as trained"]
    rows = [[engine, f"{1000 * each:.0f}", f"{as_trained / each:.1f}"] for engine, each in seconds.items()]
    return table(["", "ms per image", "times as fast"], rows)


@generated
def precision() -> str:
    columns = ("detection/ap", "probe/accuracy", "probe/accuracy_end_to_end")
    rows = []
    for record in content("bench/precision")["records"]:
        loss = f"{record['loss']['probe/accuracy']:.3f}" if record["loss"] else ""
        rows.append([record["engine"], *(figure(record["metrics"], (name, 3)) for name in columns), loss])
    return table(["`tiny-digits`", "AP", "probe, conditional", "probe, end to end", "loss of the probe"], rows)


@generated
def precision_of_tiny_mnist() -> str:
    engines = {"float32": "single precision", "bf16": "bfloat16", "int8": "int8"}
    models = {label: measured(f"bench/tiny-mnist-{name}") for name, label in engines.items()}
    columns = {"AP": ("detection/ap", 3), "probe, conditional": ("probe/accuracy", 3)}
    return by_model(models, columns, corner="`tiny-mnist`")


@generated
def gpu() -> str:
    rows = [
        [
            record["name"],
            f"{record['images_per_second']['median']:.0f}",
            *(f"{100 * record[share]:.0f} %" for share in ("share_of_products", "share_of_copies", "gpu_busy")),
            str(record["launches"]),
        ]
        for record in content("bench/gpu")["records"]
    ]
    head = ["", "images/s", "of the rate of products", "of the rate of copies", "GPU busy", "kernels"]
    return table(head, rows)


@generated
def gpu_rates() -> str:
    rates = content("bench/gpu")["rates"]
    products, copies = rates["flop_per_second"] / 1e12, rates["bytes_per_second"] / 1e12
    return f"In the same run, this GPU reaches {products:.0f} TFLOP/s in products and copies {copies:.2f} TB/s."


@generated
def costs() -> str:
    costs = [cost for cost in content("bench/models")["costs"] if cost["image_size"] == 128]
    cases = {(cost["model"], cost["objects"]): cost["parameters"] for cost in costs}
    found = {(cost["model"], cost["objects"], cost["stage"]): cost for cost in costs}
    rows = []
    for (model, objects), parameters in cases.items():
        stages = [found.get((model, objects, stage)) for stage in ("encode", "decode", "train", "train_cached")]
        rows.append(
            [
                model,
                "any" if objects is None else str(objects),
                f"{parameters / 1e6:.2f} M",
                *(f"{1000 * stage['seconds']['median']:.1f}" if stage else "–" for stage in stages),
                *(f"{found[model, objects, stage]['memory_mb']:.0f}" for stage in ("encode", "train")),
            ]
        )
    times = ["encode, ms", "decode, ms", "training step, ms", "on cached features, ms"]
    head = ["", "objects", "parameters", *times, "memory of encoding, MB", "of a step, MB"]
    return table(head, rows)


# Other pages.


@generated
def loading() -> str:
    times = content("bench/loading")["metrics"]["times_training"]
    return (
        f"Reading faces for `widerface-128` is {times['preloaded']:.1f} times as fast as training on them with "
        f"the same core, and {times['files']:.1f} times as fast where every epoch reads the files again "
        "(`results/bench/loading.json`)."
    )


@generated
def few_photographs() -> str:
    results = content("bench/few-photographs")["results"]
    rows = [
        [
            name.replace("_", " "),
            str(result["epochs"]),
            f"{result['ap50_validation']:.3f}",
            f"{result['ap50_test']:.3f}",
        ]
        for name, result in results.items()
    ]
    return table(["recipe", "epochs", "AP50, validation", "AP50, other photographs"], rows)


@generated
def studio_edits() -> str:
    edits = content("bench/studio")
    names = {"move": "moving an object", "knob": "turning a knob"}
    rows = [
        [names[record["act"]], f"≤ {1000 * record['goal']:.0f} ms", f"{1000 * record['seconds']['median']:.0f} ms"]
        for record in edits["records"]
    ]
    return table([f"a scene of {edits['objects']} objects, two cores", "goal", "median"], rows)


@generated
def robustness() -> str:
    results = content("robustness")
    parts = {
        "damaged inputs": results["inputs"],
        "kills": results["kills"],
        "full disks and read-only folders": results["disks"],
        "two commands at once": results["two_at_once"],
    }
    rows = []
    for label, part in parts.items():
        tried, failures = part.get("total", part)["tried"], len(part["failures"])
        rows.append([label, str(tried), str(tried - failures), str(failures)])
    studio = results["studio"]
    wrong = studio["requests"] - studio["answered_right"]
    requests = f"requests to the studio by {studio['clients']} clients at once"
    rows.append([requests, str(studio["requests"]), str(studio["answered_right"]), str(wrong)])
    return table(["part", "tried", "as promised", "failures"], rows)


@generated
def robustness_memory() -> str:
    memory = content("robustness")["memory"]
    peaks = " and ".join(
        f"{peak:,.0f} MiB for {images:,}"
        for peak, images in zip(memory["peak_mib"], memory["images"], strict=True)
    )
    return f"`encode` needs no more memory for many small pictures than for few: at most {peaks}."


@generated
def clevr_boxes() -> str:
    results = content("clevr/boxes")
    rows = [
        [split, shape, str(iou["objects"]), *(f"{iou[name]:.3f}" for name in ("mean", "p5", "p1"))]
        for split in ("train", "val")
        for shape, iou in results[split]["iou_90_percent_visible"].items()
    ]
    return table(["split", "shape", "objects", "mean", "5th percentile", "1st percentile"], rows)


@generated
def clevr_box_facts() -> str:
    variants = content("clevr/boxes")["train"]["iou_90_percent_visible_of_variants"]
    shapes = ("all", "cube", "sphere", "cylinder")
    rows = [[name, *(f"{iou[shape]['mean']:.3f}" for shape in shapes)] for name, iou in variants.items()]
    return table(["boxes", *shapes], rows)


@generated
def clevr_few_objects() -> str:
    rows = [
        [
            str(number),
            f"{errors['position_median']:.4f}",
            f"{errors['position_max']:.3f}",
            f"{errors['box_iou_mean']:.3f}",
            f"{errors['box_iou_p5']:.3f}",
        ]
        for number, errors in enumerate(content("clevr/boxes")["camera_from_few_objects"].values())
    ]
    head = ["n", "position off, median", "largest", "mean IoU of all the scene's boxes", "5th percentile"]
    return table(head, rows)


# The pages.


def rewritten(page: str) -> str:
    """The text of a page with its tables written anew."""

    def block(match: re.Match[str]) -> str:
        name = match["name"]
        return f"<!-- table: {name} -->\n\n{TABLES[name]()}\n\n<!-- end -->"

    return BLOCK.sub(block, page)


def main() -> int:
    """Rewrites the pages, or says which are stale."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 where a page is stale")
    check = parser.parse_args().check
    stale = []
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        new = rewritten(text)
        if new != text:
            stale.append(path)
            if not check:
                path.write_text(new, encoding="utf-8")
    for path in stale:
        print(f"{'stale' if check else 'wrote'}: {path.relative_to(ROOT)}")
    return int(check and bool(stale))


if __name__ == "__main__":
    raise SystemExit(main())
