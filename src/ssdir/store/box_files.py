"""Files of boxes from another detector or tracker: COCO's JSON, tables, and files of `ssdir encode`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from ssdir.data.readers.coco.file import read_coco_boxes
from ssdir.errors import InputError
from ssdir.formatting import first_line, quote
from ssdir.object_arrays import BoxUnit
from ssdir.object_table import ANALYSIS_COLUMNS, COLUMNS, SPAN_COLUMNS
from ssdir.store.box_columns import CLASS, CLASS_OF_NUMBER, IMAGE, XYXY, BoxColumns, normal_name
from ssdir.store.info import read_info
from ssdir.store.metadata import METADATA_KEY, open_parquet

BOX_ROW = "box_row"
NO_CLASS = "object"


@dataclass(frozen=True, eq=False)
class BoxTable:
    """The n boxes of a file, in the file's order.

    Attributes:
        source: the file.
        images: name or path of each box's image; empty where it is missing.
        boxes: float64 (n, 4), xyxy in `unit`, as they are in the file; NaN where it has none.
        unit: "pixels" or "relative".
        scores: float32 (n,), in [0, 1]; 1 where the file has none.
        labels: int64 (n,), index into `class_names`.
        class_names: the file's classes; "object" alone where it has none.
        given: the column `box_row`, from 0, and those of the file that say something else, row-aligned.
        sizes: int64 (n, 2), the (height, width) of the image that a box in pixels refers to; 0 where the file does
            not say: then it is the image's own.
        missing: by row, what it lacks: such rows are no boxes.
    """

    source: Path
    images: list[str]
    boxes: NDArray[np.float64]
    unit: BoxUnit
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    class_names: list[str]
    given: pa.Table
    sizes: NDArray[np.int64]
    missing: Mapping[int, str] = field(default_factory=dict)


def read_boxes(path: str | Path, annotations: str | Path | None = None, unit: BoxUnit = "pixels") -> BoxTable:
    """Reads a file of boxes, by its suffix.

    Args:
        path: `.json`, COCO's results, or a COCO file with images and annotations; `.csv` or `.parquet`, a table
            with columns as in `ssdir.store.box_columns`.
        annotations: for COCO's results, the COCO file that names their images.
        unit: of a table's boxes. COCO's and those of `ssdir encode` are in pixels.

    Raises:
        InputError: if the file can't be read, lacks a column, holds no boxes, or scores outside [0, 1].
    """
    path = Path(path)
    if not path.is_file():
        is_folder = "a folder, not a file: ssdir convert --to parquet joins parts to one"
        raise InputError(f"boxes '{path}' is {is_folder if path.is_dir() else 'not there'}")
    suffix = path.suffix.lower()
    if annotations is not None and suffix != ".json":
        raise InputError(f"annotations name the images of COCO's results: leave them out for '{path}'")
    if suffix == ".json":
        return _of_coco(path, annotations, _pixels_only(unit, path))
    if suffix == ".csv":
        return _of_table(_read_csv(path), path, unit)
    if suffix == ".parquet":
        table = _read_parquet(path)
        if METADATA_KEY in (table.schema.metadata or {}):
            read_info(path)
            used = {"image", "class", "score", "image_height", "image_width", *XYXY[-1]}
            table = table.select([name for name in table.column_names if name in used or name not in COLUMNS])
            return _of_table(table, path, _pixels_only(unit, path), classes=("class",))
        return _of_table(table, path, unit)
    raise InputError(f"boxes '{path}' must be a .json (COCO), .csv or .parquet file")


def _pixels_only(unit: BoxUnit, path: Path) -> BoxUnit:
    if unit != "pixels":
        raise InputError(f"the boxes of '{path}' are in pixels by its format: leave out the other unit")
    return unit


def _read_csv(path: Path) -> pa.Table:
    if not path.stat().st_size:
        raise InputError(f"boxes '{path}' is empty")
    try:
        with pyarrow.csv.open_csv(path) as file:
            names = file.schema.names
        # Names such as 000123 are not numbers.
        as_text = [name for name in names if normal_name(name) in (*IMAGE, *CLASS, CLASS_OF_NUMBER)]
        options = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(as_text, pa.string()))
        table = pyarrow.csv.read_csv(path, convert_options=options)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"boxes '{path}' is not a CSV table ({first_line(error)})") from None
    # A space after a comma is no part of a name, and would make another class or image of it.
    columns = [pc.utf8_trim_whitespace(each) if pa.types.is_string(each.type) else each for each in table.columns]
    return pa.Table.from_arrays(columns, [name.strip() for name in table.column_names])


def _read_parquet(path: Path) -> pa.Table:
    with open_parquet(path) as file:
        return file.read()


def _of_coco(path: Path, annotations: str | Path | None, unit: BoxUnit) -> BoxTable:
    file = read_coco_boxes(path, annotations)
    boxes = file.boxes
    if boxes is None or not len(boxes.image):
        raise InputError(f"boxes '{path}' holds no boxes")
    columns = list(dict.fromkeys(name for row in boxes.others for name in row))
    others = {name: _column([row.get(name) for row in boxes.others], name, path) for name in columns}
    has_classes = (boxes.category >= 0).any()
    classes = [file.category_names[i] if i >= 0 else None for i in boxes.category.tolist()]
    return _box_table(
        source=path,
        images=[file.file_names[i] for i in boxes.image.tolist()],
        boxes=boxes.boxes_px,
        unit=unit,
        scores=boxes.scores,
        classes=classes if has_classes else None,
        sizes=file.image_sizes[boxes.image],
        given={name: column for name, column in others.items() if name != "score"},
    )


def _column(values: list[Any], name: str, path: Path) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        raise InputError(
            f"boxes '{path}' have values of several kinds as {quote(name)}, or numbers too large for a column"
        ) from None


def _of_table(
    table: pa.Table, source: Path, unit: BoxUnit, classes: Sequence[str] = (*CLASS, CLASS_OF_NUMBER)
) -> BoxTable:
    columns = BoxColumns.of(table, source, classes)
    if not len(table):
        raise InputError(f"boxes '{source}' holds no boxes")
    used = columns.used(own=COLUMNS)
    given = {name: table[name] for name in table.column_names if name not in used}
    return _box_table(
        source=source,
        images=columns.texts(columns.image),
        boxes=columns.boxes(),
        unit=unit,
        scores=None if columns.score is None else columns.numbers(columns.score),
        classes=None if columns.category is None else columns.texts(columns.category),
        sizes=columns.sizes(),
        given={name: column for name, column in given.items() if not pa.types.is_nested(column.type)},
    )


def _box_table(
    source: Path,
    images: Sequence[str | None],
    boxes: NDArray[np.float64],
    unit: BoxUnit,
    scores: NDArray[np.float64] | None,
    classes: Sequence[str | None] | None,
    sizes: NDArray[np.int64],
    given: Mapping[str, pa.Array],
) -> BoxTable:
    """Builds a table from columns that are None or NaN where a row lacks something."""
    missing = {row: "image" for row, image in enumerate(images) if not image}
    missing |= dict.fromkeys(np.flatnonzero(np.isnan(boxes).any(axis=1)).tolist(), "box")
    if scores is not None:
        missing = {**dict.fromkeys(np.flatnonzero(np.isnan(scores)).tolist(), "score"), **missing}
    if classes is not None:
        missing = {**{row: "class" for row, name in enumerate(classes) if not name}, **missing}
    if len(missing) == len(images):
        raise InputError(f"boxes '{source}' holds no boxes: row 0 has no {missing[0]}, and so on")
    names = [NO_CLASS] * len(images) if classes is None else [name or "" for name in classes]
    class_names = list(dict.fromkeys(name for row, name in enumerate(names) if row not in missing))
    number = {name: label for label, name in enumerate(class_names)}
    return BoxTable(
        source=source,
        images=[image or "" for image in images],
        boxes=boxes,
        unit=unit,
        scores=np.ones(len(images), np.float32) if scores is None else _checked(scores, source),
        labels=np.asarray([number.get(name, 0) for name in names], dtype=np.int64),
        class_names=class_names,
        given=_renamed(given, len(images)),
        sizes=sizes,
        missing=missing,
    )


def _checked(scores: NDArray[np.float64], source: Path) -> NDArray[np.float32]:
    wrong = np.flatnonzero((scores < 0) | (scores > 1))
    if len(wrong):
        raise InputError(f"row {wrong[0]} of '{source}' has score {scores[wrong[0]]:g}, expected 0 ... 1")
    return np.nan_to_num(scores, nan=0.0).astype(np.float32)


def _renamed(given: Mapping[str, Any], count: int) -> pa.Table:
    """Names the further columns of the boxes: those with a name of a column that ssdir writes become `given_…`."""
    kept: dict[str, Any] = {BOX_ROW: pa.array(np.arange(count))}
    for name, column in given.items():
        kept[free_name(name, COLUMNS | {*SPAN_COLUMNS} | ANALYSIS_COLUMNS | kept.keys())] = column
    return pa.table(kept)


def free_name(name: str, taken: Set[str]) -> str:
    """Returns a name for a column of a given file: with `given_` before it, as often as names are taken."""
    return free_name(f"given_{name}", taken) if name in taken else name
