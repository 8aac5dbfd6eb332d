"""COCO annotation files, checked and turned into columns."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssdir.errors import InputError


@dataclass(frozen=True)
class AnnotationTable:
    """A COCO file as columns; images and categories by position instead of id."""

    category_names: list[str]
    file_names: list[str]
    image_sizes: NDArray[np.int64]
    """(n, 2): height, width."""
    image: NDArray[np.int64]
    category: NDArray[np.int64]
    boxes_px: NDArray[np.float64]
    """(N, 4), xyxy."""
    crowd: NDArray[np.bool_]
    draw_order: NDArray[np.int64] | None
    source_index: NDArray[np.int64] | None
    depth: NDArray[np.float64] | None = None
    """(N,), the distance along the viewing direction, in the scene's units: smaller is nearer."""
    visible: NDArray[np.float64] | None = None
    """(N,), the share of the object's pixels that nothing covers, in [0, 1]."""
    attributes: dict[str, NDArray[np.int64]] | None = None
    """By name, (N,): index into `attribute_names`."""
    attribute_names: dict[str, list[str]] | None = None
    mask_names: list[str] | None = None
    """One file per image, of one channel: each object's visible pixels have its `mask_value`."""
    mask_value: NDArray[np.int64] | None = None

    @classmethod
    def parse(cls, content: dict[str, Any], name: str) -> AnnotationTable:
        """Checks and converts a file's content."""
        try:
            categories = sorted(content["categories"], key=lambda entry: int(entry["id"]))
            images, annotations = content["images"], content["annotations"]
            category_of = {entry["id"]: i for i, entry in enumerate(categories)}
            image_of = {entry["id"]: i for i, entry in enumerate(images)}
            sizes = [(int(entry["height"]), int(entry["width"])) for entry in images]
            names = (
                [str(entry["name"]) for entry in categories],
                [str(entry["file_name"]) for entry in images],
            )
            crowd = [bool(entry.get("iscrowd", 0)) for entry in annotations]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problem = f"key {error} is missing" if isinstance(error, KeyError) else str(error)
            raise InputError(f"{name}: not COCO annotations ({problem})") from None
        if not images:
            raise InputError(f"{name}: the split is empty, it has no images")
        if len(image_of) < len(images) or len(category_of) < len(categories):
            raise InputError(f"{name}: two images or two categories share an id")
        if min(min(size) for size in sizes) < 1:
            raise InputError(f"{name}: an image has no width or no height")
        return cls(
            *names,
            image_sizes=np.array(sizes, dtype=np.int64),
            image=_references(annotations, "image_id", image_of, name),
            category=_references(annotations, "category_id", category_of, name),
            boxes_px=_boxes(annotations, name),
            crowd=np.array(crowd, dtype=np.bool_),
            draw_order=_optional_column(annotations, "draw_order"),
            source_index=_optional_column(annotations, "source_index"),
        )


def _references(
    annotations: list[dict[str, Any]], key: str, positions: dict[Any, int], name: str
) -> NDArray[np.int64]:
    """Where the annotations' ids point to."""
    column = np.empty(len(annotations), dtype=np.int64)
    for i, entry in enumerate(annotations):
        position = positions.get(entry.get(key))
        if position is None:
            what = key.removesuffix("_id")
            raise InputError(f"{name}: annotation {entry.get('id', i)} is for unknown {what} {entry.get(key)}")
        column[i] = position
    return column


def _boxes(annotations: list[dict[str, Any]], name: str) -> NDArray[np.float64]:
    """The boxes as xyxy (N, 4)."""
    boxes = np.empty((len(annotations), 4))
    for i, entry in enumerate(annotations):
        try:
            boxes[i] = entry["bbox"]
        except (KeyError, TypeError, ValueError):
            problem = f"annotation {entry.get('id', i)} has no bbox of four numbers (got {entry.get('bbox')})"
            raise InputError(f"{name}: {problem}") from None
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def _optional_column(annotations: list[dict[str, Any]], key: str) -> NDArray[np.int64] | None:
    """The values of a key that every annotation has, else None."""
    if not annotations or not all(isinstance(entry.get(key), int) for entry in annotations):
        return None
    return np.array([entry[key] for entry in annotations], dtype=np.int64)


def clip_boxes(
    boxes_px: NDArray[np.float64], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Clips boxes to their images; returns them relative to these, and which have an area."""
    height_width = sizes[:, [1, 0, 1, 0]]
    relative = np.clip(boxes_px / height_width, 0, 1)
    with np.errstate(invalid="ignore"):
        has_area = np.isfinite(boxes_px).all(axis=1) & (relative[:, 2:] > relative[:, :2]).all(axis=1)
    return relative, np.asarray(has_area, dtype=np.bool_)


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object; InputError names the line of a mistake."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not valid JSON at line {error.lineno} ({error.msg})") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable ({error})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: not COCO annotations (a {type(content).__name__} instead of an object)")
    return content
