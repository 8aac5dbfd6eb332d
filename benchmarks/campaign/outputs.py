"""Reads what a command wrote: it must be finite, and its images and objects are counted."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from campaign.oracles import Counts

SKIPPED = ("events.out.tfevents", ".ckpt", ".yaml", ".txt", ".xml", ".lance", ".html", ".md", "metrics.csv")


class BadOutput(Exception):
    """An output that can't be read, or holds a number that is not finite."""


def check_outputs(folder: Path, stdout: str, as_json: bool) -> Counts:
    """Reads all that a command wrote.

    Returns:
        What is counted in it: images and objects by split, names, rows.

    Raises:
        BadOutput: if something can't be read, or is not finite.
    """
    counts: Counts = {}
    if as_json:
        counts |= _count_json(_strict_json(stdout, "stdout"), "stdout")
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if not any(part in str(path.relative_to(folder)) for part in SKIPPED):
            now = _read(path)
            if "names" in now:  # Each split's file has the classes of its own.
                now["names"] = sorted({*now["names"], *counts.get("names", [])})
            counts |= now
    return counts


def _read(path: Path) -> Counts:
    try:
        if path.suffix == ".parquet":
            return _parquet(path)
        if path.suffix == ".json":
            return _count_json(_strict_json(path.read_text(encoding="utf-8"), path.name), path.stem)
        if path.suffix == ".jsonl":
            for line in path.read_text(encoding="utf-8").splitlines():
                _strict_json(line, path.name)
        if path.suffix == ".csv":
            return _csv(path)
        if path.suffix == ".npz":
            for name, values in np.load(path).items():
                _finite(values, f"{path.name}: {name}")
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            for name, values in load_file(path).items():
                _finite(values, f"{path.name}: {name}")
        if path.suffix == ".png" and "Images" not in str(path):
            from PIL import Image

            with Image.open(path) as image:
                image.load()
    except BadOutput:
        raise
    except Exception as error:
        raise BadOutput(f"{path.name} can't be read: {type(error).__name__}: {str(error)[:200]}") from None
    return {}


def _finite(values: Any, where: str) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise BadOutput(f"{where} is not finite")


def _strict_json(text: str, where: str) -> Any:
    def refuse(constant: str) -> None:
        raise BadOutput(f"{where} has {constant}")

    try:
        return json.loads(text, parse_constant=refuse)
    except ValueError as error:
        raise BadOutput(f"{where} is not JSON ({error})") from None


def _count_json(content: Any, name: str) -> Counts:
    if isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys():
        names = {"names": [each["name"] for each in content["categories"]]}
        return {name.removeprefix("instances_"): (len(content["images"]), len(content["annotations"])), **names}
    return {"rows": len(content)} if isinstance(content, list) else {}


def _csv(path: Path) -> Counts:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    for row in rows[1:]:
        for name, cell in zip(rows[0], row, strict=True):
            try:
                number = float(cell)
            except ValueError:
                continue
            if not math.isfinite(number) and name not in ("class", "image"):
                raise BadOutput(f"{path.name} has {cell} in column {name}")
    return {"rows": len(rows) - 1}


def _parquet(path: Path) -> Counts:
    file = pq.ParquetFile(path)
    table = file.read()
    for name in table.column_names:
        column = table[name].combine_chunks()
        kind = column.type
        if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind):
            column = column.flatten()
        if pa.types.is_floating(column.type):
            values = column.drop_null().to_numpy(zero_copy_only=False)
            if not name.startswith("given_"):
                _finite(values, f"{path.name}: {name}")
    header = json.loads((table.schema.metadata or {}).get(b"ssdir", b"{}"))
    images = {"images": header["images_seen"]} if "images_seen" in header else {}
    return {"rows": len(table), **images}
