"""Stored objects as COCO's results, with the ids and in the pixels of a data set's annotations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ssdir.data.orientation import Size, fit_to_annotation
from ssdir.data.readers.coco.file import CocoFile, read_coco_file
from ssdir.data.readers.file_names import common_end, path_parts
from ssdir.data.readers.json_entries import Id
from ssdir.errors import InputError
from ssdir.formatting import quote
from ssdir.object_table import BOX_COLUMNS, TRACK
from ssdir.storage import to_location

CLASS_AGNOSTIC = ["object"]
"""Class names of a class-agnostic model."""


def coco_results(
    table: pa.Table, class_names: Sequence[str], images: list[str], annotations: str | Path | None = None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Converts objects to COCO's results: bbox is xywh in pixels, counted from 0.

    Args:
        table: the objects, perhaps with `track_id`, int64, null where an object has no track, and
        images: path of each image, see `StoredObjects.by_image`.
        class_names: the classes that labels index.
        annotations: COCO file to take ids from, images by the end of their path and categories by name, and the
            sizes of the images that boxes refer to. Objects of a class-agnostic model get the id of the
            category `object` or, where there is none, of the first: COCOeval passes over others. Without the file,
            images count from 1 in the order of the store, categories from 1 in that of the model's classes.

    Returns:
        The list of detections, and `images` and `categories` in the form of COCO's data sets.

    Raises:
        InputError: if images or classes are not in `annotations`, or images have other proportions there.
    """
    boxes = corners(table)
    if annotations is None:
        numbered = [*range(1, len(class_names) + 1)]
        known = _Known([*range(1, len(images) + 1)], list(zip(numbered, class_names, strict=True)), [])
    else:
        known = _Known.of(read_coco_file(annotations), images, class_names)
        boxes = _as_annotated(boxes, table, known.sizes, images)
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).tolist()
    columns = (table[name].to_pylist() for name in ("image_index", "label", "score"))
    results = [
        {"image_id": known.images[image], "category_id": known.categories[label][0], "bbox": bbox, "score": score}
        for image, label, score, bbox in zip(*columns, xywh, strict=True)
    ]
    if TRACK in table.column_names:
        for result, track in zip(results, table[TRACK].to_pylist(), strict=True):
            result |= {} if track is None else {"track_id": track}
    ids = {
        "images": [{"id": i, "file_name": path} for i, path in zip(known.images, images, strict=True)],
        "categories": [{"id": i, "name": name} for i, name in known.categories],
    }
    return results, ids


def corners(table: pa.Table) -> NDArray[np.float64]:
    """Returns the boxes (M, 4), xyxy in pixels, as float64, so that differences are exact."""
    return np.stack([table[name].to_numpy() for name in BOX_COLUMNS], axis=1).astype(np.float64)


@dataclass(frozen=True)
class _Known:
    """Ids that results take from annotations.

    Attributes:
        images: id of each image.
        categories: id and name of each of the model's classes.
        sizes: (height, width) of each image in the annotations, 0 where they have none.
    """

    images: Sequence[Id]
    categories: Sequence[tuple[Id, str]]
    sizes: Sequence[Size]

    @classmethod
    def of(cls, file: CocoFile, images: Sequence[str], class_names: Sequence[str]) -> Self:
        places = _positions(file, images)
        sizes = [(height, width) for height, width in file.image_sizes[places].tolist()]
        return cls([file.image_ids[place] for place in places], _categories(file, class_names), sizes)


def _positions(file: CocoFile, images: Sequence[str]) -> list[int]:
    """Matches each image with the one of the file whose name shares the longest end with its path."""
    by_name: dict[str, list[int]] = defaultdict(list)
    named = [path_parts(name) for name in file.file_names]
    for position, parts in enumerate(named):
        by_name["".join(parts[-1:])].append(position)
    positions, taken = [], dict[int, str]()
    for image in images:
        parts = path_parts(str(Path(image).absolute()))
        candidates = by_name["".join(parts[-1:])]
        if not candidates:
            raise InputError(
                f"'{file.path}' has no image '{Path(image).name}': encode the images of that data set"
            )
        shared = [common_end(parts, named[position]) for position in candidates]
        best = [position for position, length in zip(candidates, shared, strict=True) if length == max(shared)]
        if len(best) > 1:
            same = " or ".join(quote(file.file_names[position]) for position in best[:2])
            raise InputError(
                f"'{file.path}' has images of the same name, and '{image}' may be {same}: "
                "encode the images in their folders"
            )
        if best[0] in taken:
            raise InputError(
                f"'{taken[best[0]]}' and '{image}' are both {quote(file.file_names[best[0]])} of '{file.path}'"
            )
        taken[best[0]] = image
        positions.append(best[0])
    return positions


def _categories(file: CocoFile, class_names: Sequence[str]) -> list[tuple[Id, str]]:
    known = dict(zip(file.category_names, file.category_ids, strict=True))
    if list(class_names) == CLASS_AGNOSTIC and "object" not in known:
        return [(file.category_ids[0], file.category_names[0])] if known else [(1, "object")]
    missing = next((name for name in class_names if name not in known), None)
    if missing is not None:
        raise InputError(f"'{file.path}' has no category '{missing}', which the model has")
    return [(known[name], name) for name in class_names]


def _as_annotated(
    boxes: NDArray[np.float64], table: pa.Table, annotated: Sequence[Size], images: Sequence[str]
) -> NDArray[np.float64]:
    """Converts boxes to pixels of the annotated image, which may be a copy of another size, or on its side."""
    index = table["image_index"].to_numpy()
    sizes = np.stack([table[name].to_numpy() for name in ("image_height", "image_width")], axis=1)
    first = np.unique(index, return_index=True)[1]
    fitted = boxes.copy()
    for image, (height, width) in zip(index[first].tolist(), sizes[first].tolist(), strict=True):
        if annotated[image] not in ((0, 0), (height, width)):
            rows = index == image
            location = to_location(images[image])
            fitted[rows] = fit_to_annotation(boxes[rows], (height, width), annotated[image], location)
    return fitted
