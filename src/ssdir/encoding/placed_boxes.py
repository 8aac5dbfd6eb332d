"""Encoding of the boxes of a file, batch by batch, at their places in the images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ssdir.console import Advance, no_progress
from ssdir.data.orientation import fit_to_picture
from ssdir.data.readers.file_names import is_whole_path, path_parts
from ssdir.errors import InputError
from ssdir.formatting import quote
from ssdir.inference.files import READERS, EncodedBatch, ImageBatch, RefusedBox, read_image_batches
from ssdir.inference.given_boxes import clip_boxes
from ssdir.inference.predictor import Predictor
from ssdir.objects import Objects
from ssdir.ops.boxes import to_cxcywh
from ssdir.storage import Location, absolute, is_uri, pure_path, to_location
from ssdir.store.box_files import BoxTable

NO_ROWS = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class PlacedBoxes:
    """Boxes by image file.

    Attributes:
        table: the boxes.
        rows: rows of the table of each image file that has boxes, in the table's order.
        unknown: images of the table that are not among the files.
        imageless: rows of the table that name no image.
        without: files that have no boxes.
    """

    table: BoxTable
    rows: dict[Location, NDArray[np.int64]]
    unknown: list[str]
    imageless: list[int]
    without: list[Location]


def place(table: BoxTable, files: Sequence[Location]) -> PlacedBoxes:
    """Finds the image file of each box.

    A name or relative path means the one file whose path ends with it, in slashes or backslashes; an absolute
    path or URI means that file or, if the images have moved, the file of the same name.

    Raises:
        InputError: if a name means several files, several names mean one file, or no name means any file.
    """
    by_name: dict[str, list[Location]] = defaultdict(list)
    for file in files:
        by_name[pure_path(file).name].append(file)
    rows: dict[str, list[int]] = defaultdict(list)
    for row, image in enumerate(table.images):
        rows[image].append(row)
    imageless = rows.pop("", [])
    named: dict[Location, str] = {}
    unknown = []
    for image in rows:
        match = _file_of(image, by_name[_last_part(image)], table.source)
        if match is None:
            unknown.append(image)
        elif match in named:
            raise InputError(
                f"{quote(named[match])} and {quote(image)} of '{table.source}' are both '{match}': "
                "name it in one way"
            )
        else:
            named[match] = image
    if not named:
        raise InputError(
            f"none of the {len(rows)} images of '{table.source}' is among the images given, such as '{files[0]}': "
            f"the first is {quote(unknown[0])}"
        )
    placed = {file: np.asarray(rows[image], dtype=np.int64) for file, image in named.items()}
    return PlacedBoxes(table, placed, unknown, imageless, [file for file in files if file not in placed])


def _last_part(image: str) -> str:
    return next(reversed(path_parts(image)), "")


def _file_of(image: str, candidates: list[Location], source: Path) -> Location | None:
    full = {file: absolute(file) for file in candidates}
    meant = absolute(to_location(image))
    exact = [file for file, location in full.items() if location == meant]
    if is_whole_path(image) or is_uri(image):
        found = exact or candidates
    else:
        parts = path_parts(image)
        found = exact or [file for file, at in full.items() if pure_path(at).parts[-len(parts) :] == parts]
    if len(found) > 1:
        raise InputError(
            f"{quote(image)} of '{source}' may be '{found[0]}' or '{found[1]}': "
            "name it with its folder, or give one of them"
        )
    return found[0] if found else None


def encode_placed_boxes(
    predictor: Predictor,
    placed: PlacedBoxes,
    paths: Sequence[Location],
    batch_size: int = 32,
    strict: bool = False,
    on_progress: Advance = no_progress,
    readers: int = READERS,
) -> Iterator[EncodedBatch[Objects]]:
    """Encodes the boxes of image files batch by batch; for the other arguments see `encode_files`.

    Boxes are clipped to their image; those without area there are `refused`.

    Raises:
        InputError: as `encode_files`; with `strict`, for the first box without area, or image that has no file.
    """
    if strict and placed.unknown:
        raise InputError(
            f"image {quote(placed.unknown[0])} of '{placed.table.source}' is not among the images given"
        )
    if strict and placed.imageless:
        raise InputError(f"row {placed.imageless[0]} of '{placed.table.source}' has no image")
    how = predictor.image_size, predictor.resize
    for read in read_image_batches(paths, *how, batch_size, strict, on_progress, readers):
        boxes, kept, refused = boxes_of(placed, read)
        if strict and refused:
            raise InputError(refused[0].reason)
        objects = predictor.encode_pixels(read.pixels, boxes=read.letterbox.to_square(boxes))
        objects = objects.replace(z_where=boxes.z_where)
        given = placed.table.given.take(kept)
        yield EncodedBatch(read.paths, read.indices, read.sizes, objects, read.skipped, given, refused)


def boxes_of(placed: PlacedBoxes, read: ImageBatch) -> tuple[Objects, NDArray[np.int64], list[RefusedBox]]:
    """Returns the boxes of a batch, their rows in the table, and the boxes that are left out."""
    table = placed.table
    parts, kept, refused = [], [NO_ROWS], list[RefusedBox]()
    for path, index, size in zip(read.paths, read.indices, read.sizes, strict=True):
        reasons = dict[int, str]()
        rows, boxes = _rows_of(placed, path, size, reasons)
        clipped, inside = clip_boxes(torch.from_numpy(boxes), size, table.unit)
        for row in rows[~inside.numpy()].tolist():
            corners = ", ".join(f"{value:g}" for value in table.boxes[row])
            reasons[row] = (
                f": the box ({corners}) has no area inside '{path}' ({size[1]}×{size[0]} px, "
                f"boxes in {table.unit})"
            )
        for row, reason in sorted(reasons.items()):
            refused.append(RefusedBox(path, index, row, f"row {row} of '{table.source}'{reason}"))
        rows = rows[inside.numpy()]
        kept.append(rows)
        parts.append(
            Objects(
                torch.zeros(len(rows), dtype=torch.int64),
                1,
                to_cxcywh(clipped[inside]).float(),
                scores=torch.from_numpy(table.scores[rows]),
                labels=torch.from_numpy(table.labels[rows]),
            )
        )
    return Objects.cat(parts), np.concatenate(kept), refused


def _rows_of(
    placed: PlacedBoxes, path: Location, size: tuple[int, int], reasons: dict[int, str]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Returns the rows of an image that are boxes, and the boxes in its pixels; adds the reasons for others."""
    table = placed.table
    every = placed.rows.get(path, NO_ROWS).tolist()
    reasons |= {row: f" has no {table.missing[row]}" for row in every if row in table.missing}
    rows = np.array([row for row in every if row not in table.missing], dtype=np.int64)
    boxes = table.boxes[rows]
    if table.unit == "relative":
        return rows, boxes
    fits = np.ones(len(rows), dtype=np.bool_)
    for annotated in {(height, width) for height, width in table.sizes[rows].tolist() if height}:
        of_size = (table.sizes[rows] == annotated).all(axis=1)
        try:
            boxes[of_size] = fit_to_picture(boxes[of_size], annotated, size, path)
        except InputError as error:
            reasons |= dict.fromkeys(rows[of_size].tolist(), f": {error}")
            fits &= ~of_size
    return rows[fits], boxes[fits]
