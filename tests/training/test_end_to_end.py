"""A small training from images and boxes to embeddings."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssdir.config import parse
from ssdir.data.readers.registry import open_dataset
from ssdir.data.scatter.generator import ScatterConfig
from ssdir.data.scatter.writer import write_scatter
from ssdir.evaluation.measure import measure
from ssdir.models.io import load_model, random_encoder
from ssdir.training.fit import train
from ssdir.training.recipe import Recipe

from .common import SIZE

RECIPE = {
    "name": "small",
    "model": {
        "ssd": {
            "image_size": SIZE,
            "backbone": {"kind": "conv", "channels": [16, 32, 48], "num_levels": 2, "top_down": 0},
            "anchors": {"min_sizes": [20, 28], "max_sizes": [28, 36]},
        },
        "clone_backbone": True,
        "encoder": {"latent_dim": 32, "kind": "aligned", "samples": 6, "hidden_channels": 32, "mlp_channels": 128},
        "decoder": {"stem": 64, "channels": [64, 32, 16, 8], "alpha": True, "norm": True},
        "loss": {"image": 1, "objects": 4, "kl_what": 1, "kl_depth": 1},
    },
    "detector": {"epochs": 4, "batch_size": 16, "lr": 5e-3, "schedule": "one_cycle"},
    "representation": {"epochs": 10, "batch_size": 16, "lr": 5e-3, "schedule": "one_cycle"},
}


@pytest.mark.slow
def test_digits_are_detected_and_their_embeddings_encode_their_class(tmp_path: Path) -> None:
    scenes = ScatterConfig(canvas=SIZE, grids=(2,), min_size=0.35, max_size=0.5, train=500, val=20, test=100)
    write_scatter(tmp_path / "data", "digits", scenes)
    train(parse(Recipe, RECIPE, source="the test"), tmp_path / "data", tmp_path / "run")

    model = load_model(tmp_path / "run")
    splits = {split: open_dataset(tmp_path / "data", split, "object", SIZE) for split in ("train", "test")}
    metrics = measure(model, splits["test"], splits["train"], random_model=random_encoder(model)).metrics
    assert metrics["detection/ap50"] > 0.8
    assert metrics["detection/count_error"] < 0.5
    # Chance is 0.1 for ten classes. The detector was trained without them.
    assert metrics["probe/accuracy"] > 0.5
    assert metrics["probe/accuracy_end_to_end"] > 0.45
    assert metrics["reconstruction/mse"] < 0.03
