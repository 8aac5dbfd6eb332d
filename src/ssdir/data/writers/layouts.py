"""Writes the annotations of a split as COCO, YOLO or Pascal VOC."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import yaml
from numpy.typing import NDArray

from ssdir.data.annotations import AnnotationTable
from ssdir.data.clips import frame_rate
from ssdir.documents import json_text


def _rows_of_images(table: AnnotationTable) -> Iterator[NDArray[np.int64]]:
    """Yields the rows of each image's objects, in order."""
    order = np.argsort(table.image, kind="stable")
    counts = np.bincount(table.image, minlength=len(table.image_names))
    return iter(np.split(order, np.cumsum(counts)[:-1]))


def write_coco(folder: Path, split: str, table: AnnotationTable, file_names: Sequence[str]) -> None:
    """Writes `annotations/instances_<split>.json`; clips as `videos`, as TAO and CocoVID have them."""
    sizes = zip(file_names, table.image_sizes.tolist(), strict=True)
    videos, frames = _coco_videos(table)
    content = {
        "info": dict(table.info),
        "licenses": [],
        "categories": [
            {"id": i, "name": name, "supercategory": ""} for i, name in enumerate(table.category_names, start=1)
        ],
        **videos,
        "images": [
            {"id": i, "file_name": name, "width": width, "height": height, **frame}
            for i, ((name, (height, width)), frame) in enumerate(zip(sizes, frames, strict=True), start=1)
        ],
        "annotations": list(_coco_annotations(table)),
    }
    path = folder / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json_text(content, indent=None), "utf-8")


def _coco_videos(table: AnnotationTable) -> tuple[dict[str, Any], list[dict[str, int]]]:
    """Returns the list of videos as a key of the document, and the keys that each image has as a frame."""
    if table.clip is None or table.clip_names is None:
        return {}, [{} for _ in table.image_names]
    rates = {name: {"fps": rate} for name in table.clip_names if (rate := frame_rate(table, name)) is not None}
    videos = [{"id": i, "name": name, **rates.get(name, {})} for i, name in enumerate(table.clip_names, start=1)]
    starts = np.searchsorted(table.clip, table.clip)  # Images of a clip follow each other.
    frames = zip(table.clip.tolist(), (np.arange(len(starts)) - starts).tolist(), strict=True)
    return {"videos": videos}, [{"video_id": clip + 1, "frame_id": frame} for clip, frame in frames]


def _coco_annotations(table: AnnotationTable) -> Iterator[dict[str, Any]]:
    columns = {
        "draw_order": table.draw_order,
        "source_index": table.source_index,
        "difficult": None if table.difficult is None else table.difficult.astype(np.int64),
        "depth": table.depth,
        "visible": table.visible,
        "track_id": table.track_id,
    }
    known = {name: column.tolist() for name, column in columns.items() if column is not None}
    ids = count(1)
    for image, rows in enumerate(_rows_of_images(table), start=1):
        for row in rows.tolist():
            x1, y1, x2, y2 = table.boxes_px[row].tolist()
            yield {
                "id": next(ids),
                "image_id": image,
                "category_id": int(table.category[row]) + 1,
                "bbox": [_short(value) for value in (x1, y1, x2 - x1, y2 - y1)],
                "area": _short((x2 - x1) * (y2 - y1)),
                "iscrowd": int(table.ignored[row]),
                **{name: column[row] for name, column in known.items() if math.isfinite(column[row])},
                **_attributes(table, row),
            }


def _short(value: float) -> float:
    """Removes the digits that are rounding errors, and the fraction of whole numbers."""
    short = float(f"{value:.12g}")
    return int(short) if short.is_integer() else short


def _attributes(table: AnnotationTable, row: int) -> dict[str, dict[str, str]]:
    if table.attributes is None or table.attribute_names is None:
        return {}
    names = table.attribute_names
    return {"attributes": {name: names[name][int(column[row])] for name, column in table.attributes.items()}}


def write_yolo(folder: Path, split: str, table: AnnotationTable, file_names: Sequence[str]) -> None:
    """Writes `labels/<split>/<name>.txt` for each image."""
    labels = folder / "labels" / split
    labels.mkdir(parents=True)
    lines = yolo_lines(table)
    for name, rows in zip(file_names, _rows_of_images(table), strict=True):
        text = "".join(f"{lines[row]}\n" for row in rows.tolist())
        (labels / f"{Path(name).stem}.txt").write_text(text, "utf-8")


def yolo_lines(table: AnnotationTable) -> list[str]:
    """Formats the line of each object."""
    height_width = table.image_sizes[table.image]
    x1, y1, x2, y2 = (table.boxes_px / height_width[:, [1, 0, 1, 0]]).T
    boxes = np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], axis=1)
    return [
        f"{category} {' '.join(f'{v:.8g}' for v in box)}"
        for category, box in zip(table.category.tolist(), boxes.tolist(), strict=True)
    ]


def write_data_yaml(folder: Path, splits: Sequence[str], names: Sequence[str]) -> None:
    """Writes `data.yaml` without `path`, so that tools use the folder of the file."""
    content = {**{split: f"images/{split}" for split in splits}, "names": dict(enumerate(names))}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=math.inf)
    (folder / "data.yaml").write_text(text, "utf-8")


def write_voc(folder: Path, split: str, table: AnnotationTable, file_names: Sequence[str]) -> None:
    """Writes `Annotations/<name>.xml` for each image, and the split's list."""
    annotations, lists = folder / "Annotations", folder / "ImageSets" / "Main"
    for made in (annotations, lists):
        made.mkdir(parents=True, exist_ok=True)
    boxes = voc_boxes(table).tolist()
    for image, (name, rows) in enumerate(zip(file_names, _rows_of_images(table), strict=True)):
        path = annotations / f"{Path(name).stem}.xml"
        tree = ElementTree.ElementTree(_voc_annotation(table, image, name, rows.tolist(), boxes))
        ElementTree.indent(tree)
        tree.write(path, encoding="utf-8")
    (lists / f"{split}.txt").write_text("".join(f"{Path(name).stem}\n" for name in file_names), "utf-8")


def voc_boxes(table: AnnotationTable) -> NDArray[np.int64]:
    """Returns each object's xmin, ymin, xmax and ymax in whole pixels, counted from 1, the last pixel included.

    A box without a whole pixel becomes the pixel of its centre.
    """
    low, high = np.rint(table.boxes_px[:, :2]), np.rint(table.boxes_px[:, 2:])
    centre = np.floor((table.boxes_px[:, :2] + table.boxes_px[:, 2:]) / 2)
    low = np.where(low < high, low, np.minimum(centre, table.image_sizes[table.image][:, ::-1] - 1)) + 1
    return np.concatenate([low, np.maximum(high, low)], axis=1).astype(np.int64)


def _voc_annotation(
    table: AnnotationTable, image: int, name: str, rows: list[int], boxes: list[list[int]]
) -> ElementTree.Element:
    height, width = table.image_sizes[image].tolist()
    root = ElementTree.Element("annotation")
    _add(root, {"folder": "JPEGImages", "filename": name})
    _add(ElementTree.SubElement(root, "size"), {"width": width, "height": height, "depth": 3})
    _add(root, {"segmented": 0})
    for row in rows:
        item = ElementTree.SubElement(root, "object")
        difficult = 0 if table.difficult is None else int(table.difficult[row])
        _add(item, {"name": table.category_names[int(table.category[row])], "difficult": difficult})
        box = dict(zip(("xmin", "ymin", "xmax", "ymax"), boxes[row], strict=True))
        _add(ElementTree.SubElement(item, "bndbox"), box)
    return root


def _add(element: ElementTree.Element, texts: Mapping[str, object]) -> None:
    for tag, text in texts.items():
        ElementTree.SubElement(element, tag).text = str(text)
