"""Files of boxes that another detector or tracker found: COCO's JSON, tables, and files of `ssdir encode`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from ssdir.documents import read_json
from ssdir.errors import InputError
from ssdir.inference.boxes import BoxUnit
from ssdir.inference.store import COLUMNS, METADATA_KEY, open_parquet, read_info

IMAGE = ("image", "file_name", "filename", "image_path", "path")
CLASS = ("class", "class_name", "category", "label", "class_id", "category_id")
SCORE = ("score", "confidence", "conf")
XYXY = (("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"), ("box_x1", "box_y1", "box_x2", "box_y2"))
XYWH = (("x", "y", "w", "h"), ("x", "y", "width", "height"), ("left", "top", "width", "height"))
"""Names of columns, the first that a table has; documented for users in docs/interop.md."""

BOX_ROW = "box_row"
NO_CLASS = "object"


@dataclass(frozen=True, eq=False)
class BoxTable:
    """The n boxes of a file, in its order.

    Attributes:
        source: the file.
        images: name or path of each box's image.
        boxes: float64 (n, 4), xyxy in `unit`, as they are in the file; NaN where it has none.
        unit: "pixels" or "relative".
        scores: float32 (n,), in [0, 1]; 1 where the file has none.
        labels: int64 (n,), which of `class_names`.
        class_names: the file's classes; "object" alone where it has none.
        given: the column `box_row`, from 0, and those of the file that say something else, row-aligned.
    """

    source: Path
    images: list[str]
    boxes: NDArray[np.float64]
    unit: BoxUnit
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    class_names: list[str]
    given: pa.Table


def read_boxes(path: str | Path, annotations: str | Path | None = None, unit: BoxUnit = "pixels") -> BoxTable:
    """Reads a file of boxes, by its suffix.

    Args:
        path: `.json`, COCO's results, or a COCO file with images and annotations; `.csv` or `.parquet`, a table
            with columns named as in `IMAGE`, `XYXY` or `XYWH`, and maybe `SCORE` and `CLASS`.
        annotations: for COCO's results, the COCO file that names their images.
        unit: of a table's boxes. COCO's and those of `ssdir encode` are in pixels.

    Raises:
        InputError: if the file can't be read, lacks a column, holds no boxes, or scores outside [0, 1].
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"boxes '{path}' is {'a folder, not a file' if path.is_dir() else 'not there'}")
    suffix = path.suffix.lower()
    if annotations is not None and suffix != ".json":
        raise InputError(f"annotations name the images of COCO's results: leave them out for '{path}'")
    if suffix == ".json":
        return _table_of(_read_coco(path, annotations), path, _pixels_only(unit, path))
    if suffix == ".csv":
        return _table_of(_read_csv(path), path, unit)
    if suffix == ".parquet":
        table = _read_parquet(path)
        if METADATA_KEY in (table.schema.metadata or {}):
            read_info(path)
            used = {"image", "class", "score", *XYXY[2]}
            table = table.select([name for name in table.column_names if name in used or name not in COLUMNS])
            unit = _pixels_only(unit, path)
        return _table_of(table, path, unit)
    raise InputError(f"boxes '{path}' must be a .json (COCO), .csv or .parquet file")


def _pixels_only(unit: BoxUnit, path: Path) -> BoxUnit:
    if unit != "pixels":
        raise InputError(f"the boxes of '{path}' are in pixels by its format: leave out the other unit")
    return unit


def _read_csv(path: Path) -> pa.Table:
    if not path.stat().st_size:
        raise InputError(f"boxes '{path}' is empty")
    # Names such as 000123 are not numbers.
    names = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys((*IMAGE, *CLASS), pa.string()))
    try:
        return pyarrow.csv.read_csv(path, convert_options=names)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"boxes '{path}' is not a CSV table ({str(error).splitlines()[0]})") from None


def _read_parquet(path: Path) -> pa.Table:
    try:
        return open_parquet(path).read()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"boxes '{path}' is damaged or not Parquet ({str(error).splitlines()[0]})") from None


def _read_coco(path: Path, annotations: str | Path | None) -> pa.Table:
    content = read_json(path)
    whole = content
    if isinstance(content, list):
        if annotations is None:
            raise InputError(
                f"boxes '{path}' are COCO's results, which don't name their images: "
                "give the COCO file that does by --annotations"
            )
        whole = read_json(Path(annotations))
    elif annotations is not None:
        raise InputError(f"boxes '{path}' name their images themselves: leave out the annotations")
    source = path if annotations is None else Path(annotations)
    try:
        images = {each["id"]: str(each["file_name"]) for each in whole["images"]}
        names = {each["id"]: str(each["name"]) for each in whole.get("categories", [])}
        boxes = content if isinstance(content, list) else content["annotations"]
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"'{source}' is not a COCO file with images and annotations") from None
    rows = [_coco_row(number, box, images, names, path) for number, box in enumerate(boxes)]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    try:
        return pa.table({name: [row.get(name) for row in rows] for name in columns})
    except pa.ArrowException as error:
        raise InputError(f"boxes '{path}' mix kinds of values ({str(error).splitlines()[0]})") from None


def _coco_row(number: int, box: Any, images: Mapping[Any, str], names: Mapping[Any, str], path: Path) -> Any:
    """A box as a row of a table; lists and objects, such as outlines, are left out."""
    try:
        image, (x, y, w, h) = box["image_id"], (float(value) for value in box["bbox"])
    except (KeyError, TypeError, ValueError):
        raise InputError(f"box {number} of '{path}' has no image_id, or no bbox of four numbers") from None
    if image not in images:
        raise InputError(f"box {number} of '{path}' is of image {image!r}, which the annotations don't have")
    kept = {name: value for name, value in box.items() if not isinstance(value, (list, dict))}
    category = (
        {} if "category_id" not in box else {"class": names.get(box["category_id"], str(box["category_id"]))}
    )
    return {**kept, "image": images[image], **category, **dict(zip(XYWH[0], (x, y, w, h), strict=True))}


def _table_of(table: pa.Table, source: Path, unit: BoxUnit) -> BoxTable:
    if not len(table):
        raise InputError(f"boxes '{source}' holds no boxes")
    twice = next((name for name, number in Counter(table.column_names).items() if number > 1), None)
    if twice is not None:
        raise InputError(f"boxes '{source}' has two columns '{twice}': remove one of them")
    image = _first(table, IMAGE)
    corners = next((names for names in (*XYXY, *XYWH) if set(names) <= set(table.column_names)), None)
    if image is None or corners is None:
        wanted = f"the image ({', '.join(IMAGE)})" if image is None else "the box (x1, y1, x2, y2 or x, y, w, h)"
        raise InputError(f"boxes '{source}' has no columns for {wanted}: it has {', '.join(table.column_names)}")
    boxes = np.stack([_numbers(table, name, source) for name in corners], axis=1)
    if corners in XYWH:
        boxes[:, 2:] += boxes[:, :2]
    score, kind = _first(table, SCORE), _first(table, CLASS)
    names = [NO_CLASS] * len(table) if kind is None else [str(value) for value in table[kind].to_pylist()]
    class_names = list(dict.fromkeys(names))
    number = {name: label for label, name in enumerate(class_names)}
    used = {image, *corners} | {name for name in (score, kind) if name is not None and name in COLUMNS}
    return BoxTable(
        source,
        [str(name) for name in table[image].to_pylist()],
        boxes,
        unit,
        np.ones(len(table), np.float32) if score is None else _scores(table, score, source),
        np.asarray([number[name] for name in names], dtype=np.int64),
        class_names,
        _given(table, used),
    )


def _given(table: pa.Table, used: set[str]) -> pa.Table:
    """The other columns, but for lists and the like; those that ssdir has too are named `given_…`."""
    kept: dict[str, Any] = {BOX_ROW: pa.array(np.arange(len(table)))}
    for name in table.column_names:
        if name not in used and not pa.types.is_nested(table.schema.field(name).type):
            own = name in COLUMNS or name in kept
            kept[f"given_{name}" if own else name] = table[name]
    return pa.table(kept)


def _first(table: pa.Table, names: Sequence[str]) -> str | None:
    return next((name for name in names if name in table.column_names), None)


def _numbers(table: pa.Table, name: str, source: Path) -> NDArray[np.float64]:
    try:
        return np.array(table[name].cast(pa.float64()).to_numpy(), dtype=np.float64)
    except pa.ArrowException:
        raise InputError(f"column '{name}' of '{source}' holds something other than numbers") from None


def _scores(table: pa.Table, name: str, source: Path) -> NDArray[np.float32]:
    scores = _numbers(table, name, source)
    wrong = np.flatnonzero(~((scores >= 0) & (scores <= 1)))
    if len(wrong):
        raise InputError(f"row {wrong[0]} of '{source}' has {name} {scores[wrong[0]]:g}, expected 0 ... 1")
    return scores.astype(np.float32)
