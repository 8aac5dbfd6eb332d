"""The demo: generated images, a small model trained on them, metrics and a report."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssdir.console import next_step, progress, say
from ssdir.data.scatter.generator import ScatterConfig
from ssdir.data.scatter.writer import write_scatter
from ssdir.device import choose_device
from ssdir.documents import json_text
from ssdir.evaluation.evaluate import Evaluation, EvaluationOptions, evaluate
from ssdir.evaluation.probing import LATENTS
from ssdir.formatting import counted, format_seconds
from ssdir.models.detected.vae import DetectedVAE
from ssdir.models.io import load_model
from ssdir.outputs import atomic_dir, claim
from ssdir.reports import sections
from ssdir.reports.glossary import Metric
from ssdir.reports.report import Command, Figure, Report, Section, dated, metrics_table
from ssdir.training.fit import RunSummary, train
from ssdir.training.recipe import Recipe, read_recipe
from ssdir.training.session import Session

PRESET = "demo"
SOURCE = "digits"
CANVAS = 128
VAL_IMAGES, TEST_IMAGES = 300, 600
PROBE_IMAGES = 1000
"""Number of training images whose objects the probes learn from."""
SCALE_GLYPHS = 60
"""Number of unseen digits that are shown at several sizes."""
HERO_IMAGES, SHOWN_IMAGES = (0, 1), (2, 3, 4, 5, 6, 7)

CAPTIONS = {
    "detector": "Detector, on true boxes. box: offsets of boxes; class: object or background; refine: corrections "
    "of detected boxes.",
    "representation": "Encoders and decoder, on the objects of the frozen detector (the paper's eq. 7). nll: "
    "negative log-likelihood of the image and of single objects; kl: divergence of the posteriors from their "
    "priors; consistency: distance between embeddings of two views of an object; mse is only measured.",
}
HEADLINE = (
    Metric("detection/ap50", "AP50 of detected boxes"),
    Metric("probe/accuracy", "digit accuracy of a linear probe"),
    Metric("reconstruction/mse", "MSE of reconstructed images", spec=".4f"),
    Metric("reconstruction/ssim", "SSIM of reconstructed images"),
)


@dataclass(frozen=True)
class DemoSize:
    """Size of a demo.

    Attributes:
        train_images: number of training images.
        overrides: changes of the preset, as `key=value`.
    """

    train_images: int
    overrides: tuple[str, ...] = ()


SMALL, FULL = DemoSize(1500), DemoSize(3000, ("detector.epochs=4", "representation.epochs=2"))


def run_demo(
    out: Path, *, full: bool = False, seed: int = 0, force: bool = False, device: str | None = None
) -> None:
    """Generates scattered digits, trains on them, measures the model, and writes a report.

    `out` gets `report.html`, `metrics.json`, `model/`, which `ssdir.load` takes, `data/`, and `run/` with
    the training's logs; either all of it or nothing. While the demo trains, `preview_of(out)` shows the newest
    reconstructions.

    Args:
        out: the folder to make.
        full: train on twice as many images.
        seed: seed of data, training and measurement.
        force: replace an earlier demo.
        device: where to train and to measure, see `choose_device`.

    Raises:
        InputError: if `out` exists (without `force`) or can't be written.
    """
    size = FULL if full else SMALL
    recipe = read_recipe(PRESET, [f"seed={seed}", *size.overrides])
    clock, preview = _Clock(stages=4), preview_of(out)
    session = Session(device=device, preview=preview)
    with _removed_at_the_end(preview, force), atomic_dir(out, force) as folder:
        with clock.stage("generating images"):
            _generate(folder / "data", size, seed)
        with clock.stage("training"):
            summary = train(recipe, folder / "data", folder / "run", force=True, session=session)
        with clock.stage("measuring"):
            evaluation = _measure(summary.model_dir, folder / "data", seed, device)
        with clock.stage("rendering pictures"):
            hero, pictures = _pictures(summary.model_dir, evaluation, seed, device)
        metrics = evaluation.metrics
        # Without standard deviations, which are in the appendix.
        headline = [(metric.value({metric.name: metrics.get(metric.name)}), metric.label) for metric in HEADLINE]
        config = recipe.model_dump(mode="json")
        cpu_seconds = {name: round(value, 1) for name, value in clock.cpu_seconds.items()}
        record = {**evaluation.provenance, "config": config, "wall_seconds": round(clock.total, 3)}
        record["cpu_seconds"] = cpu_seconds
        report = Report(
            dated("scattered handwritten digits"),
            _lead(recipe, size, clock.total, _machine(record)),
            headline,
            hero,
            [*pictures, _next_steps(out.name, full)],
            [
                _numbers(metrics, recipe),
                sections.training_section(folder / "run", CAPTIONS),
                sections.timing_section(_times(clock.seconds, summary)),
                sections.provenance_section(record),
            ],
        )
        (folder / "report.html").write_text(report.html(), encoding="utf-8")
        text = json_text({**evaluation.to_dict(), "provenance": record})
        (folder / "metrics.json").write_text(text, encoding="utf-8")
        _tidy(folder, summary)
    say(", ".join(f"{label} {value}" for value, label in headline))
    say(f"report: {out / 'report.html'}")
    next_step("encode", out / "model", out / "data" / "test" / "000000.png", "--out", "objects.parquet")


def preview_of(out: Path) -> Path:
    """Returns the path of the picture beside a demo's folder that shows reconstructions while it trains."""
    return out.with_name(f"{out.name}-preview.png")


@contextmanager
def _removed_at_the_end(file: Path, force: bool) -> Iterator[None]:
    """Claims a path for a file that is removed at the end of the block.

    Raises:
        InputError: if something is there already, without `force`.
    """
    claim(file, force)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


class _Clock:
    """Prints stages and measures their times.

    Attributes:
        seconds: by stage.
        cpu_seconds: of all cores and processes, by stage.
    """

    def __init__(self, stages: int) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}
        self._stages = stages

    @property
    def total(self) -> float:
        """Seconds of all stages so far."""
        return sum(self.seconds.values())

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        say(f"{len(self.seconds) + 1}/{self._stages} {title}")
        started, cpu_started = time.perf_counter(), _cpu_seconds()
        yield
        self.seconds[title] = time.perf_counter() - started
        self.cpu_seconds[title] = _cpu_seconds() - cpu_started
        say(f"    {format_seconds(self.seconds[title])}")


def _cpu_seconds() -> float:
    """Returns the CPU time so far of this process and of those that it started and that ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _generate(data: Path, size: DemoSize, seed: int) -> None:
    config = ScatterConfig(canvas=CANVAS, train=size.train_images, val=VAL_IMAGES, test=TEST_IMAGES, seed=seed)
    with progress("generating images") as advance:
        write_scatter(data, SOURCE, config, workers=os.cpu_count() or 1, progress=advance)


def _measure(model_dir: Path, data: Path, seed: int, device: str | None) -> Evaluation:
    options = EvaluationOptions(seed=seed, max_train_images=PROBE_IMAGES, num_glyphs=SCALE_GLYPHS)
    with progress("measuring") as advance:
        return evaluate(model_dir, data, options=options, device=device, progress=advance)


def _pictures(
    model_dir: Path, evaluation: Evaluation, seed: int, device: str | None
) -> tuple[Figure, list[Section]]:
    """Renders the picture at the top of the report, and the sections that are pictures."""
    model, test = load_model(model_dir, choose_device(device)), evaluation.data
    assert isinstance(model, DetectedVAE)
    assert evaluation.train is not None, "digits have categories, so there are probes"
    learned, detected = evaluation.train.embeddings[LATENTS], evaluation.test.embeddings[LATENTS]
    names = test.category_names
    return sections.scenes_figure(model, test, HERO_IMAGES), [
        sections.reconstruction_section(model, test, SHOWN_IMAGES),
        sections.embedding_section(detected, names, seed),
        sections.probe_section(learned, detected, names),
        sections.traversal_section(model, detected),
    ]


def _machine(provenance: Mapping[str, Any]) -> str:
    """Names what a time was measured on: `2 CPU cores (AVX2)`, or a GPU."""
    if provenance["device"] != "cpu":
        return str(provenance["device"])
    return f"{counted(provenance['cpu_count'], 'CPU core')} ({provenance['cpu']})"


def _lead(recipe: Recipe, size: DemoSize, seconds: float, machine: str) -> str:
    supervision = "boxes, but no classes" if recipe.classes == "object" else "boxes and classes"
    return (
        f"A small SSDIR model, made in {format_seconds(seconds)} on {machine} from {size.train_images:,} "
        f"generated images of handwritten digits. Its detector was supervised with {supervision}; the model "
        "learned what the digits look like by reconstructing the images. All figures are of test images, with "
        "digits that it has never seen."
    )


def _next_steps(name: str, full: bool) -> Section:
    """Section of commands that go on from a demo in the folder `name`."""
    more = [
        Command(
            "Train on twice as many images: reconstructions become sharper.", "ssdir demo --full --out demo-full"
        )
    ]
    return Section(
        "Next steps",
        [f"Type these commands in the folder that holds {name}."],
        commands=[
            Command("After make demo, first put the command ssdir on your path.", "source .venv/bin/activate"),
            Command(
                "Open the model in the browser: detections, edits of objects, a map of embeddings.",
                f"ssdir studio {name}/model",
            ),
            Command(
                "Encode images: the file has a row per object, with its box, score and embedding.",
                f"ssdir encode {name}/model {name}/data/test --out objects.parquet",
            ),
            Command(
                "Check your own annotated images: you get a recipe for them, and its time on this machine.",
                "ssdir data check YOUR-DATA --out checked",
            ),
            Command("Train that recipe.", "ssdir train checked/recommended.yaml --data YOUR-DATA --out run"),
            *([] if full else more),
        ],
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
        f"{classes}, and a short training. The paper's figures are for orientation; this is no "
        "like-for-like comparison. “±” is the standard deviation over the paper's three trainings."
    )
    return Section("All metrics", table=metrics_table(metrics, caption=caption))


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
