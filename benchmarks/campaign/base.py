"""Makes the undamaged inputs: a small model, its export, its objects, an index, a run."""

from __future__ import annotations

import json
import shutil
import traceback
from pathlib import Path

from campaign import samples

RECIPE = """\
name: small
classes: all
model:
  ssd:
    image_size: 64
    backbone: {kind: conv, channels: [8, 16, 16], num_levels: 2, top_down: 16}
    anchors: {min_sizes: [8, 24], max_sizes: [24, 56]}
    max_objects: 8
  encoder: {kind: pyramid, latent_dim: 8, num_hidden: 1, hidden_channels: 16}
  decoder: {stem: 16, channels: [16, 8, 8], alpha: true}
detector: {epochs: 1, batch_size: 4}
representation: {epochs: 1, batch_size: 4}
precision: single
"""


PLAN = """\
about: A trial.
measure: {train_images: 24, glyphs: 4, shown: [0, 1]}
cost: {detector: {tiny: 0.02}, representation: {tiny: 0.03}, measure: 1, probes: 0.05}
data:
  digits: {source: digits, scatter: {canvas: 64, train: 24, val: 8, test: 16}}
runs:
  ssdir:
    preset: tiny
    data: digits
    seeds: 1
    overrides:
      - "model.ssd={image_size: 64, max_objects: 8}"
      - "model.ssd.backbone={channels: [8, 16, 16], num_levels: 2, top_down: 16}"
      - "model.ssd.anchors={min_sizes: [8, 24], max_sizes: [24, 56]}"
      - "model.encoder={latent_dim: 8, mlp_channels: 16, hidden_channels: 16}"
      - "model.decoder={stem: 16, channels: [16, 16, 16]}"
      - "detector={epochs: 1, batch_size: 12}"
      - "representation={epochs: 1, batch_size: 12}"
experiments:
  depth: [ssdir]
"""


def save_small_model(folder: Path, names: list[str], seed: int = 0) -> None:
    """An untrained model that detects a few objects in `samples.photos`."""
    import torch

    from ssdir.device import seeded
    from ssdir.models.backbones.conv import ConvConfig
    from ssdir.models.decoder import DecoderConfig
    from ssdir.models.detected.encoders import PyramidEncoderConfig
    from ssdir.models.detector.ssd import AnchorConfig, SSDConfig
    from ssdir.models.io import save_model
    from ssdir.models.ssdir import SSDIR, SSDIRConfig

    config = SSDIRConfig(
        ssd=SSDConfig(
            image_size=samples.SIDE,
            backbone=ConvConfig(channels=(8, 16, 16), num_levels=2, top_down=16),
            anchors=AnchorConfig(min_sizes=(8, 24), max_sizes=(24, 56)),
            max_objects=8,
        ),
        encoder=PyramidEncoderConfig(latent_dim=8, num_hidden=1, hidden_channels=16),
        decoder=DecoderConfig(stem=16, channels=(16, 8, 8), alpha=True),
    )
    with seeded(seed):
        model = SSDIR(config, names)
    with torch.no_grad():
        for head in model.detector.class_heads:
            head.weight *= 8
    save_model(model.eval(), folder, "untrained")


def run(*arguments: object) -> None:
    """Runs a command of ssdir, which must succeed."""
    from ssdir.cli import app

    try:
        app([str(argument) for argument in arguments])
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"ssdir {arguments} ended with {end.code}") from None


def make_base(base: Path, *, quick: bool = False) -> None:
    """Fills the folder; `quick` leaves out what takes long to make."""
    base.mkdir(parents=True, exist_ok=True)
    (base / "recipe.yaml").write_text(RECIPE)
    save_small_model(base / "model", samples.NAMES)
    save_small_model(base / "agnostic", ["object"])
    samples.photos(base / "photos")
    samples.coco(base / "coco")
    slow = () if quick else (_make_export, _make_run, _make_scene, _make_results)
    for part in (_make_objects, *slow):
        try:
            part(base)
        except Exception:  # Whatever it is, the formats that need this part can't be tried; the others can.
            traceback.print_exc()


def _make_objects(base: Path) -> None:
    """Makes encoded objects, an index of them, labels of some, and a classifier."""
    run("encode", base / "model", base / "photos", "--out", base / "objects.parquet", "--force")
    run("index", base / "objects.parquet", "--out", base / "index", "--force")
    labels = ["row,label", *(f"{row},{'ab'[row % 2]}" for row in range(10))]
    (base / "labels.csv").write_text("\n".join(labels) + "\n")
    fit = ("classify", "fit", base / "objects.parquet", "--labels", base / "labels.csv")
    run(*fit, "--out", base / "classifier.json", "--force")


def _make_export(base: Path) -> None:
    run("export", base / "model", "--out", base / "model.onnx", "--force")


def _make_run(base: Path) -> None:
    """Makes a training that was interrupted in its second stage, after an epoch."""
    run("train", base / "recipe.yaml", "--data", base / "coco", "--out", base / "run", "--force")
    shutil.rmtree(base / "run" / "model")
    file = base / "run" / "representation" / "summary.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "ended": False}))


def _make_scene(base: Path) -> None:
    """Makes the files that the studio writes of an edited scene."""
    import ssdir
    from ssdir.data.images import read_image
    from ssdir.identity import Identity
    from ssdir.studio.scene_files import scene_parquet

    predictor = ssdir.load(base / "model", "cpu")
    picture = read_image(base / "photos" / "a.png")
    objects = predictor.encode([picture])
    identity = Identity.of(str(base / "model"), predictor)
    scene = scene_parquet(objects, str(base / "photos" / "a.png"), picture.shape[:2], identity)
    (base / "scene.parquet").write_bytes(scene)


def _make_results(base: Path) -> None:
    """Makes the results of a plan of one small training, and of `bench`."""
    (base / "plan.yaml").write_text(PLAN)
    folders = ("--out", base / "results", "--runs", base / "runs")
    run("reproduce", "depth", "--scale", base / "plan.yaml", *folders)
    bench = (
        "bench",
        base / "model",
        "--objects",
        1,
        "--batch-size",
        1,
        "--repeats",
        1,
        "--no-memory",
        "--no-engines",
    )
    run(*bench, "--out", base / "bench.json", "--force")
