"""Measures how often shipped models say that images are unlike their training data.

python tools/measure_domain.py DATA --out results/domain.json

DATA has the folders `voc`, `coco128`, `clevr-mini`, `widerface`, `tracking` and `MNIST`. A model's own images are
those of its validation or test split on which its limit (`ObjectModel.familiar_error`) was not measured.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from ssdir.data.image_files import find_images
from ssdir.data.readers.registry import read_annotations
from ssdir.data.scatter.generator import ScatterConfig
from ssdir.data.scatter.writer import write_scatter
from ssdir.documents import json_text
from ssdir.inference.domain import check_domain, validation_indices
from ssdir.inference.predictor import load
from ssdir.outputs import atomic_file

OWN = {"tiny-digits": "scattered digits", "tiny-mnist": "scattered MNIST", "photos": "VOC"}
"""The kind of image that each shipped model was trained on."""
IMAGES = 100
"""Images of each kind, evenly spread."""
SCATTER = {"scattered digits": ("digits", None), "scattered MNIST": ("mnist", "MNIST/raw")}
FOLDERS = {
    "COCO128": "coco128/images",
    "CLEVR": "clevr-mini/images",
    "WIDER FACE": "widerface/WIDER_val",
    "pedestrians in a street (TUD-Campus)": "tracking/TUD-Campus",
    "fluorescent cells (GOWT1)": "tracking/Fluo-N2DH-GOWT1-01",
}


def main(
    data: Annotated[Path, typer.Argument(help="Folder of the data sets.")],
    out: Annotated[Path, typer.Option(help="JSON to write.")],
    force: Annotated[bool, typer.Option(help="Replace it.")] = False,
) -> None:
    """Writes, for each shipped model and kind of image, the share reported as unlike and the AUROC."""
    report: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        kinds = _images(data, Path(folder))
        for name, own in OWN.items():
            errors = {kind: _errors(name, paths) for kind, paths in kinds.items()}
            limit = load(name, "cpu").model.familiar_error
            assert limit is not None, f"{name} was shipped without its limit"
            rows = {kind: _row(values, errors[own], limit) for kind, values in errors.items()}
            report[name] = {"familiar_error": limit, "own": own, "kinds": rows}
            typer.echo(f"{name}: {report[name]}")
    with atomic_file(out, force) as temporary:
        temporary.write_text(json_text(report), encoding="utf-8")


def _images(data: Path, folder: Path) -> dict[str, list[Path]]:
    kinds: dict[str, list[Path]] = {}
    for kind, (source, root) in SCATTER.items():
        target = folder / source
        config = ScatterConfig(train=1, val=1, test=IMAGES, seed=1)
        write_scatter(target, source, config, root=None if root is None else data / root)
        kinds[kind] = find_images([str(target / "test")])
    photographs = read_annotations(data / "voc/VOCdevkit/VOC2012", "val").image_paths
    measured = set(validation_indices(len(photographs)))
    kinds["VOC"] = _some([path for index, path in enumerate(photographs) if index not in measured])
    return kinds | {kind: _some(find_images([str(data / place)])) for kind, place in FOLDERS.items()}


def _some(paths: list[Path]) -> list[Path]:
    return [paths[index] for index in np.unique(np.linspace(0, len(paths) - 1, IMAGES).round().astype(int))]


def _errors(name: str, paths: list[Path]) -> NDArray[np.float64]:
    check = check_domain(load(name, "cpu"), paths)
    assert check is not None
    return check.errors


def _row(values: NDArray[np.float64], own: NDArray[np.float64], limit: float) -> dict[str, float | int | None]:
    compared, familiar = values[np.isfinite(values)], own[np.isfinite(own)]
    if not len(compared):
        return {"images": len(values), "with_objects": 0, "reported": None, "auroc": None}
    labels = np.repeat([0, 1], [len(familiar), len(compared)])
    return {
        "images": len(values),
        "with_objects": len(compared),
        "reported": float((compared > limit).mean()),
        "auroc": None if values is own else float(roc_auc_score(labels, np.concatenate([familiar, compared]))),
    }


if __name__ == "__main__":
    typer.run(main)
