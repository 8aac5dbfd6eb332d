"""Encoding of the boxes of a file, batch by batch, at their places in the images."""

from __future__ import annotations

import os
import warnings
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ssdir.console import Advance, no_progress
from ssdir.data.frame_names import file_of
from ssdir.data.orientation import fit_to_picture
from ssdir.data.readers.file_names import is_whole_path, path_parts
from ssdir.errors import InputError, InputWarning
from ssdir.formatting import counted, quote
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
    path or URI means that file. If it isn't among the files and there is no such file any more, the images have
    moved: then it means the file of the same name, unless another name means that one; an `InputWarning` says so.

    Raises:
        InputError: if a name means several files, several names mean one file, or no name means any file.
    """
    known = dict.fromkeys(map(absolute, files))
    by_name: dict[str, list[Location]] = defaultdict(list)
    for file in known:
        by_name[_last_part(file)].append(file)
    rows: dict[str, list[int]] = defaultdict(list)
    for row, image in enumerate(table.images):
        rows[image].append(row)
    imageless = rows.pop("", [])
    direct = {image: _files_named(image, known, by_name) for image in rows}
    taken = {file for found in direct.values() for file in found}
    named: dict[Location, str] = {}
    unknown, moved = list[str](), list[Location]()
    for image, found in direct.items():
        if has_moved := not found and _may_have_moved(image):
            candidates = by_name[_last_part(to_location(image))]
            found = [] if taken.issuperset(candidates) else candidates
        if not found:
            unknown.append(image)
            continue
        if len(found) > 1:
            raise InputError(
                f"{quote(image)} of '{table.source}' may be '{found[0]}' or '{found[1]}': "
                "name it with its folder, or give one of them"
            )
        if found[0] in named:
            raise InputError(
                f"{quote(named[found[0]])} and {quote(image)} of '{table.source}' are both '{found[0]}': "
                "name it in one way"
            )
        named[found[0]] = image
        moved += found if has_moved else []
    if moved:
        _warn_of_moved(table, [named[file] for file in moved], moved[0])
    if not named:
        raise InputError(
            f"none of the {len(rows)} images of '{table.source}' is among the images given, such as '{files[0]}': "
            f"the first is {quote(unknown[0])}"
        )
    placed = {
        file: np.asarray(rows[named[at]], dtype=np.int64) for file in files if (at := absolute(file)) in named
    }
    return PlacedBoxes(table, placed, unknown, imageless, [file for file in files if file not in placed])


def _parts(location: Location) -> tuple[str, ...]:
    return path_parts(str(pure_path(location)))


def _last_part(location: Location) -> str:
    return next(reversed(_parts(location)), "")


def _files_named(image: str, known: Container[Location], by_name: Mapping[str, list[Location]]) -> list[Location]:
    """Returns the files that an image's name means where it is, each as its absolute location."""
    meant = absolute(to_location(image))
    if meant in known:
        return [meant]
    if is_whole_path(image) or is_uri(image):
        return []
    parts = path_parts(image)
    return [file for file in by_name.get(_last_part(meant), ()) if _parts(file)[-len(parts) :] == parts]


def _may_have_moved(image: str) -> bool:
    """Returns whether a name that means no given file is a whole one, and of no file that is there."""
    meant = to_location(image)
    is_there = isinstance(meant, Path) and os.path.lexists(file_of(meant))
    return (is_whole_path(image) or is_uri(image)) and not is_there


def _warn_of_moved(table: BoxTable, images: list[str], file: Location) -> None:
    message = (
        f"'{table.source}' names {counted(len(images), 'image')} elsewhere, whose boxes are put on the given "
        f"images of the same names: those of {quote(images[0])} on '{file}' ..."
    )
    warnings.warn(message, InputWarning, stacklevel=3)


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
