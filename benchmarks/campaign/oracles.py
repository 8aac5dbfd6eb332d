"""Counts the images and objects of an input, and its classes, by the plainest reading.

Readings know nothing of sizes, types or rules. Where one fails, the input says nothing.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow.parquet as pq
import yaml

Counts = dict[str, Any]
"""Images and objects by split, and the names of classes; or other counts."""

SUFFIXES = (".png", ".jpg", ".tif", ".gif", ".webp", ".bmp")


def says(layout: str, root: Path) -> Counts | None:
    """Returns the counts of an input; None if it can't be read."""
    if any(path.is_fifo() for path in root.rglob("*")):
        return None
    try:
        return READERS[layout](root) if layout in READERS else None
    except Exception:  # Any reason will do: then it says nothing.
        return None


def _coco(root: Path) -> Counts:
    counts: Counts = {}
    names: set[str] = set()
    for path in sorted(root.rglob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        split = path.stem.removeprefix("instances_")
        split = path.parent.name if path.name.startswith("_annotations") else split
        counts[{"result": "train", "valid": "val"}.get(split, split)] = (
            len(content["images"]),
            len(content["annotations"]),
        )
        names |= {str(each["name"]) for each in content["categories"]}
    return {**counts, "names": sorted(names)}


def _yolo(root: Path) -> Counts:
    names = yaml.load((root / "data.yaml").read_text(encoding="utf-8"), yaml.BaseLoader)["names"]
    counts: Counts = {
        "names": sorted(str(name) for name in (names.values() if isinstance(names, dict) else names))
    }
    for split in ("train", "val"):
        labels = (root / "labels" / split).glob("*.txt")
        counts[split] = (_pictures(root / "images" / split), sum(_filled(path) for path in labels))
    return counts


def _darknet(root: Path) -> Counts:
    names = [
        line.strip() for line in (root / "obj.names").read_text(encoding="utf-8").splitlines() if line.strip()
    ]
    listed = [line for line in (root / "train.txt").read_text(encoding="utf-8").splitlines() if line.strip()]
    stems = {Path(line.strip()).stem for line in listed}
    objects = sum(_filled(root / "obj_train_data" / f"{stem}.txt") for stem in stems)
    return {"names": sorted(names), "train": (len(listed), objects)}


def _voc(root: Path) -> Counts:
    names = [
        line.strip() for line in (root / "classes.txt").read_text(encoding="utf-8").splitlines() if line.strip()
    ]
    counts: Counts = {"names": sorted(names)}
    for split in ("train", "val"):
        text = (root / "ImageSets/Main" / f"{split}.txt").read_text(encoding="utf-8")
        stems = [line.split()[0] for line in text.splitlines() if line.strip()]
        trees = [ElementTree.parse(root / "Annotations" / f"{stem}.xml") for stem in stems]
        counts[split] = (len(stems), sum(len(tree.findall(".//bndbox")) for tree in trees))
    return counts


def _widerface(root: Path) -> Counts:
    counts: Counts = {"names": ["face"]}
    for split in ("train", "val"):
        text = (root / f"wider_face_split/wider_face_{split}_bbx_gt.txt").read_text(encoding="utf-8")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        boxes = [line for line in lines if re.fullmatch(r"[-\d.]+( [-\d.]+){3,}", line)]
        counts[split] = (sum(line.endswith(".png") for line in lines), len(boxes))
    return counts


def _clevr(root: Path) -> Counts:
    counts: Counts = {}
    for split in ("train", "val"):
        scenes = json.loads((root / f"scenes/CLEVR_{split}_scenes.json").read_text(encoding="utf-8"))["scenes"]
        counts[split] = (len(scenes), sum(len(scene["objects"]) for scene in scenes))
    return counts


def _masks(root: Path) -> Counts:
    counts: Counts = {}
    names = set()
    for split in ("train", "val"):
        lines = (root / f"objects/{split}.jsonl").read_text(encoding="utf-8").split("\n")
        objects = [item for line in lines if line.strip() for item in json.loads(line)["objects"]]
        names |= {item.get("category", "object") for item in objects}
        counts[split] = (_pictures(root / "images" / split), len(objects))
    return {**counts, "names": sorted(names)}


def _photos(root: Path) -> Counts:
    return {"images": _pictures(root / "photos")}


def _objects(root: Path) -> Counts:
    return {"rows": pq.ParquetFile(next(root.glob("*.parquet"))).metadata.num_rows}


def _boxes_csv(root: Path) -> Counts:
    with (root / "boxes.csv").open(encoding="utf-8", newline="") as file:
        return {"rows": sum(bool(row) for row in csv.reader(file)) - 1}


def _boxes_parquet(root: Path) -> Counts:
    return {"rows": pq.ParquetFile(root / "boxes.parquet").metadata.num_rows}


def _boxes_json(root: Path) -> Counts:
    return {"rows": len(json.loads((root / "boxes.json").read_text(encoding="utf-8"))["annotations"])}


def _results_json(root: Path) -> Counts:
    return {"rows": len(json.loads((root / "results.json").read_text(encoding="utf-8")))}


def _pictures(folder: Path) -> int:
    return sum(path.suffix in SUFFIXES and path.is_file() for path in folder.iterdir())


def _filled(path: Path) -> int:
    return sum(bool(line.strip()) for line in path.read_text(encoding="utf-8").splitlines())


READERS: Mapping[str, Callable[[Path], Counts]] = {
    "coco": _coco,
    "yolo": _yolo,
    "darknet": _darknet,
    "voc": _voc,
    "widerface": _widerface,
    "clevr": _clevr,
    "masks": _masks,
    "photos": _photos,
    "objects": _objects,
    "boxes.csv": _boxes_csv,
    "boxes.parquet": _boxes_parquet,
    "boxes.json": _boxes_json,
    "results.json": _results_json,
}
