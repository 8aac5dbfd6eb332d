"""Stored objects for other tools: COCO results, FiftyOne, NumPy, CSV. Arrow and pandas read the Parquet itself."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from ssdir.documents import json_text
from ssdir.errors import InputError, InputWarning
from ssdir.identity import Identity
from ssdir.outputs import atomic_file, claim
from ssdir.store.coco_results import CLASS_AGNOSTIC, coco_results, corners
from ssdir.store.columns import numbers
from ssdir.store.objects_file import find_picture, read_stored

SUFFIXES = {"coco": ".json", "csv": ".csv", "fiftyone": ".json", "npz": ".npz"}
"""Suffix of each format's file."""


def convert_objects(
    path: str | Path,
    to: str,
    out: str | Path,
    annotations: str | Path | None = None,
    identity: Identity | None = None,
    force: bool = False,
) -> int:
    """Writes a file of `ssdir encode` in another format, whole or not at all.

    An `InputWarning` says where images without objects are not known, or categories of a COCO file mean nothing.

    Args:
        path: the Parquet file.
        to: one of `SUFFIXES`.
        out: file to write; COCO results get their ids beside them, see `sidecar`.
        annotations: for COCO results, the COCO file whose ids of images and categories they are to have.
        identity: of the model that encoded, where the file no longer names it, see `read_info`.
        force: replace existing files.

    Returns:
        The number of objects.

    Raises:
        InputError: as `check_output`; if a file can't be read, or images or classes are not in `annotations`.
    """
    check_output(to, out, force)
    if annotations is not None and to != "coco":
        raise InputError("annotations give COCO results their ids: leave them out for other formats")
    stored = read_stored(path, identity)
    table, images = stored.by_image()
    class_names = stored.info.class_names
    if stored.info.images_seen is None:
        _warn(f"rows of '{path}' were selected since it was encoded: images without objects are not known")
    with atomic_file(out, force) as temporary:
        if to == "coco":
            results, ids = coco_results(table, class_names, images, annotations)
            _write_json(results, temporary, path)
            with atomic_file(sidecar(out), force) as beside:
                _write_json(ids, beside, path)
        elif to == "fiftyone":
            pictures = [str(find_picture(image, Path.cwd(), Path(path).absolute().parent)) for image in images]
            _write_json(fiftyone_samples(table, pictures), temporary, path)
        elif to == "npz":
            _write_npz(table, class_names, images, temporary)
        else:
            _write_csv(table, temporary)
    if annotations is not None and class_names == CLASS_AGNOSTIC:
        _warn(
            "the model is class-agnostic, so all objects have the id of one category of the annotations: compare "
            "boxes alone (of pycocotools, COCOeval's params.useCats = 0)"
        )
    return len(stored)


def check_output(to: str, out: str | Path, force: bool = False) -> None:
    """Checks, before any work is done, that `convert_objects` can write its files.

    Raises:
        InputError: if there is no such format, the suffix is another format's, or a file is there already.
    """
    if to not in SUFFIXES:
        raise InputError(f"unknown format '{to}': expected one of {', '.join(SUFFIXES)}")
    claim(out, force, (SUFFIXES[to],))
    if to == "coco":
        claim(sidecar(out), force)


def how_to_read(to: str, out: Path, annotations: Path | None = None) -> str:
    """Returns how another tool reads a converted file, as code or a sentence."""
    ids = str(annotations or sidecar(out))
    return {
        "coco": f"from pycocotools.coco import COCO; COCO({ids!r}).loadRes({str(out)!r})",
        "csv": f"import pandas; pandas.read_csv({str(out)!r})",
        "fiftyone": f"add the samples of {out} to a FiftyOne dataset, see docs/interop.md",
        "npz": f"import numpy; numpy.load({str(out)!r})",
    }[to]


def sidecar(out: str | Path) -> Path:
    """Returns where the ids of COCO results are written: `results.json` has `results.ids.json` beside it."""
    return Path(out).with_suffix(".ids.json")


def fiftyone_samples(table: pa.Table, images: list[str]) -> dict[str, Any]:
    """Returns the `samples` of FiftyOne's `FiftyOneDataset` layout, in which every class is named by `_cls`.

    Boxes are xywh relative to the image; `z_what`, `z_what_scale` and `z_depth` are attributes of each detection.
    """
    detections: list[list[dict[str, Any]]] = [[] for _ in images]
    scale = np.stack([table[name].to_numpy() for name in ("image_width", "image_height")] * 2, axis=1)
    relative = corners(table) / scale
    for box, row in zip(relative.tolist(), table.to_pylist(), strict=True):
        detections[row["image_index"]].append(
            {
                "_cls": "Detection",
                "label": row["class"],
                "bounding_box": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                "confidence": row["score"],
                **{name: row[name] for name in ("z_what", "z_what_scale", "z_depth")},
            }
        )
    samples = [
        {"filepath": path, "tags": [], "objects": {"_cls": "Detections", "detections": found}}
        for path, found in zip(images, detections, strict=True)
    ]
    return {"samples": samples}


def _write_npz(table: pa.Table, class_names: list[str], images: list[str], out: Path) -> None:
    """Writes an array per column, and `images`, `class_names`, without pickle; columns of nulls are left out."""
    arrays: dict[str, Any] = {
        name: _column(table, name)
        for name in table.column_names
        if not (len(table) and table[name].null_count == len(table))
    }
    arrays["images"] = np.asarray(images, dtype=str)
    arrays["class_names"] = np.asarray(class_names, dtype=str)
    with out.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def _write_csv(table: pa.Table, out: Path) -> None:
    """Writes a row per object; vectors become columns `z_what_0`, `z_what_1`, …."""
    columns: dict[str, Any] = {}
    for field in table.schema:
        if not pa.types.is_fixed_size_list(field.type):
            columns[field.name] = table[field.name]
        elif not (len(table) and table[field.name].null_count == len(table)):
            values = _column(table, field.name)
            columns |= {f"{field.name}_{i}": values[:, i] for i in range(values.shape[1])}
    pyarrow.csv.write_csv(pa.table(columns), out)


def _warn(text: str) -> None:
    warnings.warn(InputWarning(text), stacklevel=3)


def _column(table: pa.Table, name: str) -> Any:
    column = table[name]
    return np.asarray(column.to_pylist(), dtype=str) if pa.types.is_string(column.type) else numbers(column)


def _write_json(content: object, path: Path, what: str | Path) -> None:
    try:
        path.write_text(json_text(content, None), encoding="utf-8")
    except ValueError:
        raise InputError(f"'{what}' holds numbers that are not finite, which JSON has no place for") from None
