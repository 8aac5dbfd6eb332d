"""A demonstration in minutes on any computer: images, training, metrics, and a report."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssdir.console import next_step, progress, say
from ssdir.data.dataset import ObjectDataset
from ssdir.data.scatter.generator import ScatterConfig
from ssdir.data.scatter.writer import write_scatter
from ssdir.device import choose_device
from ssdir.documents import json_text
from ssdir.evaluation.evaluate import Evaluation, EvaluationOptions, evaluate
from ssdir.evaluation.probing import LATENTS
from ssdir.formatting import format_seconds
from ssdir.models.detected.vae import DetectedVAE
from ssdir.models.io import load_model
from ssdir.outputs import atomic_dir
from ssdir.reports import sections
from ssdir.reports.glossary import Metric
from ssdir.reports.report import Report, Section, metrics_table
from ssdir.training.fit import RunSummary, train
from ssdir.training.recipe import Recipe, read_recipe
from ssdir.training.session import Session

PRESET = "demo"
SOURCE = "digits"
CANVAS = 128
TRAIN_IMAGES, VAL_IMAGES, TEST_IMAGES = 3000, 300, 600
PROBE_IMAGES = 1000
"""Number of training images whose objects the probes learn from."""
SCALE_GLYPHS = 60
"""Number of unseen digits that are shown at several sizes."""
HERO_IMAGES, SHOWN_IMAGES = (0, 1), (2, 3, 4, 5, 6, 7)

HEADLINE = (
    Metric("detection/ap50", "objects detected, AP50"),
    Metric("probe/accuracy", "digits predicted from embeddings, accuracy"),
    Metric("reconstruction/mse", "reconstructed images, MSE", spec=".4f"),
)


def run_demo(out: Path, *, seed: int = 0, force: bool = False, device: str | None = None) -> None:
    """Generates scattered digits, trains on them, measures the model, and writes a report.

    `out` gets `report.html`, `metrics.json`, `model/`, which `ssdir.load` takes, `data/`, and `run/` with
    the training's logs; either all of it or nothing.

    Args:
        out: the folder to make.
        seed: seed of data, training and measurement.
        force: replace an earlier demo.
        device: where to train and to measure, see `choose_device`.

    Raises:
        InputError: if `out` exists (without `force`) or can't be written.
    """
    recipe = read_recipe(PRESET, [f"seed={seed}"])
    clock = _Clock(stages=4)
    with atomic_dir(out, force) as folder:
        with clock.stage("generating images"):
            _generate(folder / "data", seed)
        with clock.stage("training"):
            summary = train(recipe, folder / "data", folder / "run", force=True, session=Session(device=device))
        with clock.stage("measuring"):
            evaluation = _measure(summary.model_dir, folder / "data", seed, device)
            metrics, test = evaluation.metrics, evaluation.data
        model = load_model(summary.model_dir, choose_device(device))
        assert isinstance(model, DetectedVAE)
        with clock.stage("rendering pictures"):
            pictures = _pictures(model, test, evaluation, folder / "run", seed)
            hero = sections.scenes_figure(model, test, HERO_IMAGES)
        config = recipe.model_dump(mode="json")
        record = {**evaluation.provenance, "config": config, "wall_seconds": round(clock.total, 3)}
        times = sections.timing_section(_times(clock.seconds, summary))
        report = Report(
            "Objects detected, embedded, and reconstructed",
            _lead(recipe, clock.total),
            [(metric.value(metrics), metric.label) for metric in HEADLINE],
            hero,
            [_numbers(metrics, recipe), *pictures, times, sections.provenance_section(record)],
        )
        (folder / "report.html").write_text(report.html(), encoding="utf-8")
        text = json_text({**evaluation.to_dict(), "provenance": record})
        (folder / "metrics.json").write_text(text, encoding="utf-8")
        _tidy(folder, summary)
    say(", ".join(f"{metric.label} {metric.value(metrics)}" for metric in HEADLINE))
    say(f"report: {out / 'report.html'}")
    next_step("encode", out / "model", out / "data" / "test" / "000000.png", "--out", "objects.parquet")


class _Clock:
    """Prints stages and measures their times."""

    def __init__(self, stages: int) -> None:
        self.seconds: dict[str, float] = {}
        self._stages = stages

    @property
    def total(self) -> float:
        """Seconds of all stages so far."""
        return sum(self.seconds.values())

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        say(f"{len(self.seconds) + 1}/{self._stages} {title}")
        started = time.perf_counter()
        yield
        self.seconds[title] = time.perf_counter() - started
        say(f"    {format_seconds(self.seconds[title])}")


def _generate(data: Path, seed: int) -> None:
    config = ScatterConfig(canvas=CANVAS, train=TRAIN_IMAGES, val=VAL_IMAGES, test=TEST_IMAGES, seed=seed)
    with progress("generating images") as advance:
        write_scatter(data, SOURCE, config, workers=os.cpu_count() or 1, progress=advance)


def _measure(model_dir: Path, data: Path, seed: int, device: str | None) -> Evaluation:
    options = EvaluationOptions(seed=seed, max_train_images=PROBE_IMAGES, num_glyphs=SCALE_GLYPHS)
    with progress("measuring") as advance:
        return evaluate(model_dir, data, options=options, device=device, progress=advance)


def _pictures(
    model: DetectedVAE, test: ObjectDataset, evaluation: Evaluation, run: Path, seed: int
) -> list[Section]:
    assert evaluation.train is not None, "digits have categories, so there are probes"
    learned, detected = evaluation.train.embeddings[LATENTS], evaluation.test.embeddings[LATENTS]
    names = test.category_names
    captions = {
        "detector": "The detector, on true boxes: how far boxes are off, and what is an object.",
        "representation": "Encoders and decoder, on the objects of the frozen detector (the paper's eq. 7). "
        "nll: negative log-likelihood of the image and the single objects; kl: divergence of the posteriors from "
        "their priors; mse is only watched.",
    }
    return [
        sections.reconstruction_section(model, test, SHOWN_IMAGES),
        sections.embedding_section(detected, names, seed),
        sections.probe_section(learned, detected, names, seed),
        sections.traversal_section(model, detected),
        sections.training_section(run, captions),
    ]


def _lead(recipe: Recipe, seconds: float) -> str:
    supervision = "boxes, but not with classes" if recipe.classes == "object" else "boxes and classes"
    return (
        f"A small SSDIR model, made in {format_seconds(seconds)} from {TRAIN_IMAGES:,} images of scattered "
        f"handwritten digits. Its detector was supervised with {supervision}; the model learned their "
        "appearance by reconstructing images. All figures are of test images, with digits that it has never seen."
    )


def _numbers(metrics: dict[str, float], recipe: Recipe) -> Section:
    classes = (
        "without the digits' classes (the paper does not say whether its detector had them)"
        if recipe.classes == "object"
        else "with the digits' classes"
    )
    caption = (
        "Paper: Table 2, for MNIST's 28 × 28 digits and a full training. This demo: the 1,797 digits of 8 × 8 "
        f"pixels that come with scikit-learn, scattered over {CANVAS} × {CANVAS} pixels, a detector trained "
        f"{classes}, and a few minutes of training. The paper's figures are for orientation; this is no "
        "like-for-like comparison. “±” is the standard deviation over three samples of the objects that the "
        "classifier learns from (in the paper: over three trainings)."
    )
    return Section("Metrics", table=metrics_table(metrics, caption=caption))


def _times(seconds: dict[str, float], summary: RunSummary) -> dict[str, float]:
    """Times of the stages, with the training split into its parts."""
    parts = {f"training: {stage}": value for stage, value in summary.seconds.items()}
    parts["training: reading, caching"] = max(0.0, seconds["training"] - sum(parts.values()))
    times: dict[str, float] = {}
    for name, value in seconds.items():
        times.update(parts if name == "training" else {name: value})
    return times


def _tidy(folder: Path, summary: RunSummary) -> None:
    """Moves the model to the demo's folder, and removes what only a resumed training needs."""
    shutil.move(summary.model_dir, folder / "model")
    for checkpoints in (folder / "run").glob("*/checkpoints"):
        shutil.rmtree(checkpoints)
