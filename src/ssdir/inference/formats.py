"""Stored objects for other tools: COCO results, FiftyOne, NumPy, CSV. Arrow and pandas read the store itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from ssdir.documents import read_json
from ssdir.errors import InputError
from ssdir.inference.identity import Identity
from ssdir.inference.store import BOX_COLUMNS, StoreInfo, image_paths, read_table
from ssdir.outputs import atomic_file

FORMATS = ("coco", "csv", "fiftyone", "npz")


def convert_objects(
    path: str | Path,
    to: str,
    out: str | Path,
    annotations: str | Path | None = None,
    identity: Identity | None = None,
) -> int:
    """Writes a file of `ssdir encode` in another format, whole or not at all.

    Args:
        path: the Parquet file.
        to: one of `FORMATS`.
        out: file to write or replace; COCO results get their ids beside them, see `sidecar`.
        annotations: for COCO results, the COCO file whose ids of images and categories they are to have.
        identity: of the model that encoded, where the file no longer names it, see `read_info`.

    Returns:
        The number of objects.

    Raises:
        InputError: if a file can't be read, or images or classes are not in `annotations`.
    """
    if to not in FORMATS:
        raise InputError(f"unknown format '{to}': expected one of {', '.join(FORMATS)}")
    if annotations is not None and to != "coco":
        raise InputError("annotations give COCO results their ids: leave them out for other formats")
    table, info = read_table(path, identity)
    images = image_paths(table, info)
    with atomic_file(out, force=True) as temporary:
        if to == "coco":
            results, ids = coco_results(table, info, images, annotations)
            _write_json(results, temporary)
            with atomic_file(sidecar(out), force=True) as beside:
                _write_json(ids, beside)
        elif to == "fiftyone":
            _write_json(fiftyone_samples(table, images), temporary)
        elif to == "npz":
            _write_npz(table, info, images, temporary)
        else:
            _write_csv(table, temporary)
    return int(table.num_rows)


def sidecar(out: str | Path) -> Path:
    """Where the ids of COCO results are written: `results.json` has `results.ids.json` beside it."""
    return Path(out).with_suffix(".ids.json")


def coco_results(
    table: pa.Table, info: StoreInfo, images: list[str], annotations: str | Path | None = None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Detections as COCO's results have them: bbox is xywh in pixels, counted from 0.

    Args:
        table: see `read_table`.
        info: what the file says of itself.
        images: path of each image.
        annotations: COCO file to take ids from, images by file name and categories by name. Objects of a model
            that knows no classes are of its only category, or of a new one, `object`. Without the file, images
            count from 1 in the order of the store, categories from 1 in that of the model's classes.

    Returns:
        The list of detections, and `images` and `categories` in the form of COCO's data sets.
    """
    if annotations is None:
        image_ids = list(range(1, len(images) + 1))
        categories = [{"id": i, "name": name} for i, name in enumerate(info.class_names, start=1)]
    else:
        image_ids, categories = _known_ids(Path(annotations), images, info.class_names)
    boxes = _corners(table)
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).tolist()
    results = [
        {"image_id": image_ids[image], "category_id": categories[label]["id"], "bbox": bbox, "score": score}
        for image, label, bbox, score in zip(
            table["image_index"].to_pylist(),
            table["label"].to_pylist(),
            xywh,
            table["score"].to_pylist(),
            strict=True,
        )
    ]
    ids = {
        "images": [{"id": i, "file_name": path} for i, path in zip(image_ids, images, strict=True)],
        "categories": categories,
    }
    return results, ids


def fiftyone_samples(table: pa.Table, images: list[str]) -> dict[str, Any]:
    """The `samples` of FiftyOne's `FiftyOneDataset` layout, in which every class is named by `_cls`.

    Boxes are xywh relative to the image; `z_what`, `z_what_scale` and `z_depth` are attributes of each detection.
    """
    detections: list[list[dict[str, Any]]] = [[] for _ in images]
    scale = np.stack([table[name].to_numpy() for name in ("image_width", "image_height")] * 2, axis=1)
    relative = _corners(table) / scale
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


def _write_npz(table: pa.Table, info: StoreInfo, images: list[str], out: Path) -> None:
    """An array per column, and `images`, `class_names`; columns of nulls are left out. Nothing is pickled."""
    arrays: dict[str, Any] = {
        name: _column(table, name)
        for name in table.column_names
        if not (len(table) and table[name].null_count == len(table))
    }
    arrays["images"] = np.asarray(images, dtype=str)
    arrays["class_names"] = np.asarray(info.class_names, dtype=str)
    with out.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def _write_csv(table: pa.Table, out: Path) -> None:
    """A row per object; vectors become columns `z_what_0`, `z_what_1`, …."""
    columns: dict[str, Any] = {}
    for field in table.schema:
        if not pa.types.is_fixed_size_list(field.type):
            columns[field.name] = table[field.name]
        elif not (len(table) and table[field.name].null_count == len(table)):
            values = _column(table, field.name)
            columns |= {f"{field.name}_{i}": values[:, i] for i in range(values.shape[1])}
    pyarrow.csv.write_csv(pa.table(columns), out)


def _column(table: pa.Table, name: str) -> Any:
    column = table[name].combine_chunks()
    if pa.types.is_string(column.type):
        return np.asarray(column.to_pylist(), dtype=str)
    if not pa.types.is_fixed_size_list(column.type):
        return column.to_numpy(zero_copy_only=False)
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(table), column.type.list_size)


def _corners(table: pa.Table) -> Any:
    """Boxes (M, 4), xyxy in pixels, as float64, so that differences are exact."""
    return np.stack([table[name].to_numpy() for name in BOX_COLUMNS], axis=1).astype(np.float64)


def _known_ids(path: Path, images: list[str], class_names: list[str]) -> tuple[list[int], list[dict[str, Any]]]:
    content = read_json(path)
    try:
        by_name = {Path(image["file_name"]).name: int(image["id"]) for image in content["images"]}
        categories = {str(category["name"]): int(category["id"]) for category in content["categories"]}
    except (ValueError, KeyError, TypeError):
        raise InputError(f"'{path}' is not a COCO file with images and categories") from None
    if len(by_name) < len(content["images"]):
        raise InputError(f"'{path}' has images of the same name in several folders: ids can't be told by name")
    unknown = next((image for image in images if Path(image).name not in by_name), None)
    if unknown is not None:
        raise InputError(f"'{path}' has no image '{Path(unknown).name}': encode the images of that data set")
    image_ids = [by_name[Path(image).name] for image in images]
    if class_names == ["object"]:
        if len(categories) == 1:
            class_names = list(categories)
        else:
            categories.setdefault("object", max(categories.values(), default=0) + 1)
    missing = next((name for name in class_names if name not in categories), None)
    if missing is not None:
        raise InputError(f"'{path}' has no category '{missing}', which the model has")
    return image_ids, [{"id": categories[name], "name": name} for name in class_names]


def _write_json(content: object, path: Path) -> None:
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")
