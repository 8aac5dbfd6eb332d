"""Measures average precision and probe accuracy in bfloat16 and int8, compared with single precision.

It measures the shipped `tiny-digits` on scattered digits that its training never saw (the test split); probes
learn from the train split, and the int8 encoder is calibrated on it.

Run: python benchmarks/precision.py --out results/bench/precision.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from ssdir.data.dataset import fingerprint
from ssdir.data.image_files import find_images
from ssdir.data.readers.registry import open_dataset
from ssdir.data.scatter.generator import ScatterConfig
from ssdir.data.scatter.writer import write_scatter
from ssdir.evaluation.measure import measure
from ssdir.evaluation.protocols import Model
from ssdir.evaluation.provenance import provenance
from ssdir.export.model import OnnxModel
from ssdir.export.onnx import export_model
from ssdir.export.quantize import quantize_encoder
from ssdir.export.runtime import OnnxEncoder
from ssdir.inference.predictor import load
from ssdir.outputs import atomic_file, claim

MODEL, SEED = "tiny-digits", 1
IMAGES = {"train": 1000, "test": 500}
METRICS = ("detection/ap", "detection/ap50", "probe/accuracy", "probe/accuracy_end_to_end")


def encoders(folder: Path, calibrate: Path) -> Iterator[tuple[str, Model]]:
    """Returns the model in each precision, by name."""
    single = load(MODEL, "cpu")
    yield "torch", single.encoder
    yield "torch, bf16", load(MODEL, "cpu", "bf16").encoder
    files = {"ONNX Runtime": folder / "single.onnx", "ONNX Runtime, int8": folder / "int8.onnx"}
    export_model(single.model, files["ONNX Runtime"])
    quantize_encoder(files["ONNX Runtime"], files["ONNX Runtime, int8"], find_images([calibrate]))
    for name, file in files.items():
        yield name, OnnxModel(OnnxEncoder(file, "cpu"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--force", action="store_true")
    arguments = parser.parse_args()
    claim(arguments.out, arguments.force)
    started, records = time.perf_counter(), []
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_scatter(folder / "data", "digits", ScatterConfig(canvas=128, val=0, seed=SEED, **IMAGES))
        splits = {name: open_dataset(folder / "data", name, "object", 128) for name in IMAGES}
        for name, model in encoders(folder, folder / "data" / "train"):
            metrics = measure(model, splits["test"], splits["train"]).metrics
            chosen = {metric: metrics[metric] for metric in METRICS}
            loss = (
                {metric: records[0]["metrics"][metric] - chosen[metric] for metric in METRICS} if records else {}
            )
            records.append({"engine": name, "metrics": chosen, "loss": loss})
            print(json.dumps(records[-1]))
        digest = fingerprint(splits["test"])
    config = {"model": MODEL, "images": IMAGES}
    record = provenance(config, SEED, digest, "cpu", time.perf_counter() - started)
    with atomic_file(arguments.out, arguments.force) as file:
        file.write_text(json.dumps({"records": records, "provenance": record}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
