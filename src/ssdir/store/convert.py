"""Stored objects for other tools: COCO results, FiftyOne, NumPy, CSV, or one Parquet file of a folder of parts."""

from __future__ import annotations

import warnings
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from ssdir.data.frame_names import split_frame_name
from ssdir.documents import json_text
from ssdir.errors import InputError, InputWarning
from ssdir.formatting import counted, quote
from ssdir.identity import Identity
from ssdir.object_table import COLUMNS, TRACK, objects_schema
from ssdir.outputs import atomic_file, claim
from ssdir.storage import Location
from ssdir.store.coco_results import CLASS_AGNOSTIC, coco_results, corners
from ssdir.store.columns import is_scalar, json_values, numbers, plain
from ssdir.store.info import StoreInfo, read_info
from ssdir.store.join import join_parts
from ssdir.store.objects_file import StoredObjects, find_picture, read_stored, rows_schema, stream_rows
from ssdir.store.track_columns import track_ids

SUFFIXES = {"coco": ".json", "csv": ".csv", "fiftyone": ".json", "npz": ".npz", "parquet": ".parquet"}
"""Suffix of each format's file."""

_DETECTION = (
    "_cls",
    "id",
    "label",
    "bounding_box",
    "mask",
    "mask_path",
    "confidence",
    "index",
    "tags",
    "attributes",
)
_TAKEN = {"fiftyone": _DETECTION, "npz": ("images", "class_names", "file", "allow_pickle")}
"""Names that further columns can't have, as the fields of FiftyOne's `Detection` or arguments of `numpy.savez`."""


def convert_objects(
    path: str | Path,
    to: str,
    out: str | Path,
    annotations: str | Path | None = None,
    identity: Identity | None = None,
    force: bool = False,
) -> int:
    """Writes what `ssdir encode` wrote in another format, whole or not at all.

    CSV and Parquet are written while objects are read, other formats from all objects in memory. An `InputWarning`
    names columns that the format can't hold, and says where images without objects are not known, where images may
    have the same number, where images are frames of videos, which FiftyOne can't open, or where categories of a
    COCO file mean nothing.

    Args:
        path: the Parquet file, or folder of parts.
        to: one of `SUFFIXES`; `parquet` joins parts.
        out: file to write; COCO results get their ids beside them, see `sidecar`.
        annotations: for COCO results, the COCO file whose ids of images and categories they are to have.
        identity: of the model that encoded, where the file no longer names it, see `read_info`.
        force: replace existing files.

    Returns:
        The number of objects.

    Raises:
        InputError: as `check_output`; if a file can't be read, or images or classes are not in `annotations`.
    """
    check_output(to, out, force)
    if annotations is not None and to != "coco":
        raise InputError("annotations give COCO results their ids: leave them out for other formats")
    if to == "parquet":
        info = join_parts(path, out, force, identity)
    elif to == "csv":
        info = read_info(path, identity)
        with atomic_file(out, force) as temporary:
            _write_csv(info, _kept(info, to), temporary)
    else:
        info = _convert_whole(read_stored(path, identity), to, out, annotations, force)
    if info.images_seen is None and to != "csv":  # which has rows for objects alone
        _warn(
            f"'{path}' was written again by another tool, which leaves out the list of images, so those without "
            "objects are not known: convert the file that ssdir wrote if you need them"
        )
    if info.images_seen is None and len(info.parts) > 1 and to in ("csv", "parquet"):
        _warn(
            f"images of different files of '{path}' may have the same image_index, since another tool wrote the "
            "files again: distinguish images by the column image"
        )
    if annotations is not None and info.class_names == CLASS_AGNOSTIC:
        _warn(
            "the model is class-agnostic, so all objects have the id of one category of the annotations: compare "
            "boxes alone (of pycocotools, COCOeval's params.useCats = 0)"
        )
    return info.objects


def _convert_whole(
    stored: StoredObjects, to: str, out: str | Path, annotations: str | Path | None, force: bool
) -> StoreInfo:
    """Writes formats in which one thing, such as a list of all images, follows from all rows."""
    info, (table, images) = stored.info, stored.by_image()
    table = table.select(_kept(info, to))
    if TRACK in table.column_names and to in ("coco", "fiftyone"):
        tracks = track_ids(table, info.path)
        place = table.column_names.index(TRACK)
        table = table.set_column(place, TRACK, pa.array(tracks, pa.int64(), mask=tracks == 0))
    with atomic_file(out, force) as temporary:
        if to == "coco":
            results, ids = coco_results(table, info.class_names, images, annotations)
            _write_json(results, temporary, info.path)
            with atomic_file(sidecar(out), force) as beside:
                _write_json(ids, beside, info.path)
        elif to == "fiftyone":
            frames = [image for image in images if split_frame_name(image) is not None]
            if frames:
                _warn(
                    f"'{info.path}' has {counted(len(frames), 'frame')} of videos, such as {quote(frames[0])}, "
                    "and FiftyOne opens image files alone: track images of the frames instead"
                )
            pictures = [str(find_picture(image, Path.cwd(), info.around.absolute())) for image in images]
            _write_json(fiftyone_samples(table, pictures), temporary, info.path)
        else:
            _write_npz(table, info.class_names, images, temporary)
    return info


def _kept(info: StoreInfo, to: str) -> list[str]:
    """Returns the columns that a format keeps; an `InputWarning` names the others."""
    schema = objects_schema(info.latent_dim)
    taken = {*_TAKEN.get(to, ()), *_plain_columns(pa.RecordBatch.from_pylist([], schema=schema)).column_names}
    kept = [
        field.name
        for field in info.further
        if is_scalar(field.type) and field.name not in taken and (to != "coco" or field.name == TRACK)
    ]
    left = [name for name in info.further.names if name not in kept]
    if left:
        names = ", ".join(map(quote, left))
        _warn(f"left out: {names} of '{info.path}', for which {to} has no place: --to parquet keeps everything")
    return [*schema.names, *kept]


def check_output(to: str, out: str | Path, force: bool = False) -> None:
    """Checks, before any work is done, that `convert_objects` can write its files.

    Raises:
        InputError: if there is no such format, the suffix is another format's, or a file is there already.
    """
    if to not in SUFFIXES:
        raise InputError(f"unknown format '{to}': expected one of {', '.join(SUFFIXES)}")
    claim(out, force, (SUFFIXES[to],))
    if to == "coco":
        claim(sidecar(out), force)


def how_to_read(to: str, out: Path, annotations: Path | None = None) -> str:
    """Returns how another tool reads a converted file, as code or a sentence."""
    ids = str(annotations or sidecar(out))
    return {
        "coco": f"from pycocotools.coco import COCO; COCO({ids!r}).loadRes({str(out)!r})",
        "csv": f"import pandas; pandas.read_csv({str(out)!r})",
        "fiftyone": f"add the samples of {out} to a FiftyOne dataset, see docs/interop.md",
        "npz": f"import numpy; numpy.load({str(out)!r})",
        "parquet": f"import pandas; pandas.read_parquet({str(out)!r})",
    }[to]


def sidecar(out: str | Path) -> Path:
    """Returns where the ids of COCO results are written: `results.json` has `results.ids.json` beside it."""
    return Path(out).with_suffix(".ids.json")


def fiftyone_samples(table: pa.Table, images: list[str]) -> dict[str, Any]:
    """Returns the `samples` of FiftyOne's `FiftyOneDataset` layout, in which every class is named by `_cls`.

    Boxes are xywh relative to the image; `z_what`, `z_what_scale`, `z_depth` and further columns are attributes of
    each detection, but `track_id` is its `index`.
    """
    names = [name for name in table.column_names if name not in COLUMNS]
    further = {"index" if name == TRACK else name: json_values(table[name]) for name in names}
    detections: list[list[dict[str, Any]]] = [[] for _ in images]
    scale = np.stack([table[name].to_numpy() for name in ("image_width", "image_height")] * 2, axis=1)
    relative = corners(table) / scale
    for number, (box, row) in enumerate(
        zip(relative.tolist(), table.drop_columns(names).to_pylist(), strict=True)
    ):
        detections[row["image_index"]].append(
            {
                "_cls": "Detection",
                "label": row["class"],
                "bounding_box": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                "confidence": row["score"],
                **{name: row[name] for name in ("z_what", "z_what_scale", "z_depth")},
                **{name: values[number] for name, values in further.items()},
            }
        )
    samples = [
        {"filepath": path, "tags": [], "objects": {"_cls": "Detections", "detections": found}}
        for path, found in zip(images, detections, strict=True)
    ]
    return {"samples": samples}


def _write_npz(table: pa.Table, class_names: list[str], images: list[str], out: Path) -> None:
    """Writes an array per column, and `images`, `class_names`, without pickle; columns of nulls are left out."""
    arrays: dict[str, Any] = {
        name: _column(table, name)
        for name in table.column_names
        if not (len(table) and table[name].null_count == len(table))
    }
    arrays["images"] = np.asarray(images, dtype=str)
    arrays["class_names"] = np.asarray(class_names, dtype=str)
    with out.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def _write_csv(info: StoreInfo, names: list[str], out: Path) -> None:
    """Writes a row per object, piece by piece; vectors become columns `z_what_0`, `z_what_1`, …."""
    pieces = (piece.select(names) for piece in stream_rows(info))
    first = next(pieces, None)
    if first is None:
        first = pa.RecordBatch.from_pylist([], schema=rows_schema(info)).select(names)
    with pyarrow.csv.CSVWriter(out, _plain_columns(first).schema) as file:
        for piece in chain([first], pieces):
            file.write(_plain_columns(piece))


def _plain_columns(piece: pa.RecordBatch) -> pa.Table:
    """Returns a column per number of a vector; vectors that are null are left out."""
    columns: dict[str, Any] = {}
    for name, column in zip(piece.schema.names, piece.columns, strict=True):
        if not pa.types.is_fixed_size_list(column.type):
            columns[name] = plain(column)
        elif not column.null_count:
            values = numbers(column)
            columns |= {f"{name}_{i}": values[:, i] for i in range(values.shape[1])}
    return pa.table(columns)


def _warn(text: str) -> None:
    warnings.warn(InputWarning(text), stacklevel=3)


def _column(table: pa.Table, name: str) -> Any:
    """Returns a column as an array that needs no pickle: missing text is empty, missing numbers are NaN."""
    column = plain(table[name])
    if pa.types.is_decimal(column.type) or (pa.types.is_boolean(column.type) and column.null_count):
        column = column.cast(pa.float64())
    if pa.types.is_string(column.type) or pa.types.is_time(column.type) or pa.types.is_null(column.type):
        return np.asarray(column.cast(pa.string()).fill_null("").to_pylist(), dtype=str)
    return numbers(column)


def _write_json(content: object, path: Path, what: Location) -> None:
    try:
        path.write_text(json_text(content, None), encoding="utf-8")
    except ValueError:
        raise InputError(f"'{what}' holds numbers that are not finite, which JSON has no place for") from None
