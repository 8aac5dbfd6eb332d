"""COCO folders: `annotations/instances_<split>.json`, and images in `<split>/`, `images/<split>/` or `images/`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssdir.data.annotations import AnnotationTable
from ssdir.data.coco_writer import write_scatter
from ssdir.data.split_files import find_split, list_splits
from ssdir.data.table_builder import check_names
from ssdir.data.upright import turn_upright
from ssdir.documents import read_json
from ssdir.errors import EmptySplitError, InputError

_ANNOTATIONS = "annotations/instances_*.json"


def is_coco(root: str | Path) -> bool:
    """Whether a folder has COCO's layout."""
    return bool(coco_splits(root))


def coco_splits(root: str | Path) -> list[str]:
    """The splits that have annotations."""
    return list_splits(root, _ANNOTATIONS)


def read_coco(root: str | Path, split: str) -> AnnotationTable:
    """Reads a split. `draw_order`, `source_index` and `difficult` are there if every annotation has these keys.

    Boxes refer to the upright picture, unless the size given is that of the picture as stored, on its side: then
    they are turned, and the table has the upright size (see `upright`).

    Raises:
        InputError: if a folder or file is missing, or the JSON is invalid, inconsistent or without images.
    """
    folder = Path(root)
    path = find_split(root, _ANNOTATIONS, split)
    content, name = _read_object(path), str(path)
    try:
        categories = sorted(content["categories"], key=lambda entry: int(entry["id"]))
        images, annotations = content["images"], content["annotations"]
        category_of = {entry["id"]: i for i, entry in enumerate(categories)}
        image_of = {entry["id"]: i for i, entry in enumerate(images)}
        sizes = [tuple(int(_value(entry, key, "image")) for key in ("height", "width")) for entry in images]
        names = (
            [str(_value(entry, "name", "category")) for entry in categories],
            [str(_value(entry, "file_name", "image")) for entry in images],
        )
        crowd = [bool(entry.get("iscrowd", 0)) for entry in annotations]
        difficult, draw_order, source_index = (
            _optional_column(annotations, key) for key in ("difficult", "draw_order", "source_index")
        )
        image_sizes = np.array(sizes, dtype=np.int64)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        problem = f"key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{name}: not COCO annotations ({problem})") from None
    if not images:
        raise EmptySplitError(f"{name}: the split is empty, it has no images")
    if len(image_of) < len(images) or len(category_of) < len(categories):
        raise InputError(f"{name}: two images or two categories share an id")
    if categories:
        check_names(names[0], name)
    if min(min(size) for size in sizes) < 1:
        raise InputError(f"{name}: an image has no width or no height")
    place = _image_folder(folder, split, names[1])
    table = AnnotationTable(
        root=folder,
        sources=(path,),
        category_names=names[0],
        image_names=[f"{place}/{name}" if place and not Path(name).is_absolute() else name for name in names[1]],
        image_sizes=image_sizes,
        image=_references(annotations, "image_id", image_of, name),
        category=_references(annotations, "category_id", category_of, name),
        boxes_px=_boxes(annotations, name),
        ignored=np.array(crowd, dtype=np.bool_),
        difficult=None if difficult is None else difficult != 0,
        draw_order=draw_order,
        source_index=source_index,
        info=content["info"] if isinstance(content.get("info"), dict) else {},
    )
    return turn_upright(table)


def _value(entry: dict[str, Any], key: str, what: str) -> Any:
    if key not in entry:
        raise ValueError(f"{what} {entry['id']} has no {key}")
    return entry[key]


def _references(
    annotations: list[dict[str, Any]], key: str, positions: dict[Any, int], name: str
) -> NDArray[np.int64]:
    """Where the annotations' ids point to."""
    column = np.empty(len(annotations), dtype=np.int64)
    for i, entry in enumerate(annotations):
        value = entry.get(key)
        position = positions.get(value) if isinstance(value, str | int | float) else None
        if position is None:
            what = key.removesuffix("_id")
            raise InputError(f"{name}: annotation {entry.get('id', i)} is for unknown {what} {value!r:.60}")
        column[i] = position
    return column


def _boxes(annotations: list[dict[str, Any]], name: str) -> NDArray[np.float64]:
    """The boxes as xyxy (N, 4)."""
    boxes = np.empty((len(annotations), 4))
    for i, entry in enumerate(annotations):
        box = entry.get("bbox")
        # NumPy would spread a single number over the row.
        if not (isinstance(box, list) and len(box) == 4 and all(isinstance(side, int | float) for side in box)):
            problem = f"annotation {entry.get('id', i)} has no bbox of four numbers (got {box})"
            raise InputError(f"{name}: {problem}")
        try:
            boxes[i] = box
        except OverflowError:
            boxes[i] = np.nan  # No box in any image: left out, and counted.
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def _optional_column(annotations: list[dict[str, Any]], key: str) -> NDArray[np.int64] | None:
    """The values of a key that every annotation has, else None."""
    if not annotations or not all(isinstance(entry.get(key), int) for entry in annotations):
        return None
    return np.array([entry[key] for entry in annotations], dtype=np.int64)


def _read_object(path: Path) -> dict[str, Any]:
    """Reads a JSON object; InputError names the line of a mistake."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: not COCO annotations (a {type(content).__name__} instead of an object)")
    return content


def _image_folder(root: Path, split: str, file_names: Sequence[str]) -> str:
    """Where under the root the split's images are: there, where the first found is; else the usual place."""
    candidates = (split, f"images/{split}", "images", "")
    places = (place for name in file_names for place in candidates if (root / place / name).is_file())
    return next(places, candidates[0])


__all__ = ["coco_splits", "is_coco", "read_coco", "write_scatter"]
