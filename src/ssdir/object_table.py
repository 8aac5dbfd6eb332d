"""Objects as an Arrow table: the columns of the files that `ssdir encode` writes, and of `Objects.to_arrow`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ssdir.object_arrays import ObjectArrays

BOX_COLUMNS = ("box_x1", "box_y1", "box_x2", "box_y2")


@dataclass(frozen=True)
class ObjectColumn:
    """A column of stored objects.

    Attributes:
        name: the column's name.
        kind: type of a value, or of each number of a list.
        unit: unit or range of the values.
        meaning: what the values mean, as a phrase.
        length: length of the list, of which D is the size of the model's embedding; None for a single value.
        nullable: whether the column is null for models without such an output.
    """

    name: str
    kind: Literal["string", "int32", "int64", "float32"]
    unit: str
    meaning: str
    length: int | Literal["D"] | None = None
    nullable: bool = False


_PIXELS = "pixels of the image with its EXIF orientation applied"

OBJECT_COLUMNS = (
    ObjectColumn("image", "string", "path", "absolute path of the file of the image"),
    ObjectColumn(
        "image_index",
        "int64",
        "0, 1, …",
        "number of the image in the list of images; those without objects and unreadable ones count",
    ),
    ObjectColumn("image_height", "int32", _PIXELS, "height of the image"),
    ObjectColumn("image_width", "int32", _PIXELS, "width of the image"),
    ObjectColumn("box_x1", "float32", _PIXELS, "left edge of the box, clipped to the image"),
    ObjectColumn("box_y1", "float32", _PIXELS, "upper edge of the box, clipped to the image"),
    ObjectColumn("box_x2", "float32", _PIXELS, "right edge of the box, clipped to the image"),
    ObjectColumn("box_y2", "float32", _PIXELS, "lower edge of the box, clipped to the image"),
    ObjectColumn("class", "string", "name", "class of the object; `object` for models without classes"),
    ObjectColumn("label", "int32", "0 … K − 1", "index of the class among the K classes of the model"),
    ObjectColumn("score", "float32", "0 … 1", "confidence of the detector in the object"),
    ObjectColumn(
        "z_where", "float32", "share of the image", "centre x, centre y, width and height of the box", length=4
    ),
    ObjectColumn(
        "z_what",
        "float32",
        "none",
        "embedding of the appearance, comparable by its cosine within one model only",
        length="D",
    ),
    ObjectColumn(
        "z_what_scale",
        "float32",
        "as z_what",
        "standard deviation of each number of z_what",
        length="D",
        nullable=True,
    ),
    ObjectColumn("z_depth", "float32", "none", "depth within its image: larger is nearer", nullable=True),
    ObjectColumn("anchor_index", "int32", "0, 1, …", "anchor of the detector that produced the object"),
)
"""The columns of stored objects in their order: the one description of the schema."""

TRACK_COLUMNS = (
    ObjectColumn("track_id", "int64", "1, 2, …", "number of the track that the object is a view of"),
    ObjectColumn("visible", "float32", "0 … 1", "share of the object that nothing hides"),
)
"""Further columns of the objects of a clip, as `ssdir track` writes them."""

TRACK, VISIBLE = (column.name for column in TRACK_COLUMNS)

SPAN_COLUMNS = ("views", "first_frame", "last_frame")
"""Columns that a row for a whole track has besides those of its clearest view, see `ssdir.analysis.tracks`, int64:
number of views, first and last frame.
"""

ANALYSIS_COLUMNS = frozenset(
    {"row", "cluster", "distance_to_center", "cluster_prob", "predicted", "probability"}
    | {"outlier_score", "knn_distance", "reconstruction_error"}
)
"""Columns that `ssdir cluster`, `classify predict` and `outliers` add to objects, or replace."""

COLUMNS = frozenset(column.name for column in OBJECT_COLUMNS)
"""Names of `OBJECT_COLUMNS`."""


def objects_schema(latent_dim: int) -> pa.Schema:
    """Returns the schema of stored objects, whose embeddings have `latent_dim` numbers."""
    fields = []
    for column in OBJECT_COLUMNS:
        kind = pa.type_for_alias(column.kind)
        if column.length is not None:
            kind = pa.list_(kind, latent_dim if column.length == "D" else column.length)
        fields.append(pa.field(column.name, kind, nullable=column.nullable))
    return pa.schema(fields)


def track_schema() -> pa.Schema:
    """Returns the schema of `TRACK_COLUMNS`."""
    return pa.schema([pa.field(column.name, pa.type_for_alias(column.kind)) for column in TRACK_COLUMNS])


def objects_table(
    objects: ObjectArrays,
    images: Sequence[str | Path] | None = None,
    sizes: Sequence[tuple[int, int]] | None = None,
    class_names: Sequence[str] | None = None,
    numbers: Sequence[int] | None = None,
) -> pa.Table:
    """Converts objects to a table of `OBJECT_COLUMNS`, then of those of `TRACK_COLUMNS` that the objects have.

    What is not known of `OBJECT_COLUMNS` is null.

    Args:
        objects: the objects of a batch of images.
        images: path of each image of the batch.
        sizes: (height, width) of each, in pixels, without which there are no boxes in pixels.
        class_names: the classes that labels index; the class of another label is null.
        numbers: `image_index` of each image; by default from 0.

    Raises:
        ValueError: if there is not a path, a size and a number for each image.
    """
    for name, given in (("paths", images), ("sizes", sizes), ("numbers", numbers)):
        if given is not None and len(given) != objects.batch_size:
            raise ValueError(f"objects of {objects.batch_size} images need as many {name}, got {len(given)}")
    index, columns = objects.image_index, dict[str, Any]()
    if images is not None:
        columns["image"] = np.asarray([utf8(image) for image in images], dtype=object)[index]
    if sizes is not None:
        height_width = np.asarray(sizes, dtype=np.int32).reshape(-1, 2)[index]
        boxes_px = objects.boxes * height_width[:, [1, 0, 1, 0]].astype(np.float32)
        columns |= dict(zip(BOX_COLUMNS, boxes_px.T, strict=True))
        columns |= {"image_height": height_width[:, 0], "image_width": height_width[:, 1]}
    if class_names is not None and objects.labels is not None:
        columns["class"] = _named(objects.labels, class_names)
    numbered = index if numbers is None else np.asarray(numbers, dtype=np.int64)[index]
    columns |= {"image_index": numbered, "label": objects.labels, "score": objects.scores}
    for name in ("z_where", "z_what", "z_what_scale", "z_depth", "anchor_index", TRACK, VISIBLE):
        columns[name] = getattr(objects, name)
    latent_dim = 0 if objects.z_what is None else objects.z_what.shape[1]
    fields, arrays = [], []
    tracks = [field for field in track_schema() if columns[field.name] is not None]
    for field in [*objects_schema(latent_dim), *tracks]:
        values = columns.get(field.name)
        fields.append(field if values is not None else field.with_nullable(True))
        arrays.append(pa.nulls(len(objects), field.type) if values is None else to_array(values, field.type))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _named(labels: NDArray[np.int64], class_names: Sequence[str]) -> pa.Array:
    unknown = (labels < 0) | (labels >= len(class_names))
    return pa.array(list(class_names), pa.string()).take(pa.array(labels, mask=unknown))


def to_array(values: Any, kind: pa.DataType) -> pa.Array:
    """Converts numbers, names, or vectors (M, D) to an Arrow array."""
    if not pa.types.is_fixed_size_list(kind):
        is_text = isinstance(values, np.ndarray) and values.dtype == object
        return pa.array(values, type=kind) if is_text else pa.array(values).cast(kind)
    flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, type=kind)


def utf8(image: str | Path) -> str:
    """Returns a path in UTF-8, as Parquet holds it: file names may be any bytes."""
    return os.fsencode(image).decode("utf-8", "backslashreplace")
