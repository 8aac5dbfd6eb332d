"""Reads COCO folders: a JSON file per split, or one for all, and the images that it names."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssdir.data.annotations import AnnotationTable
from ssdir.data.clips import frame_rates_info
from ssdir.data.folders import find_folder, listing
from ssdir.data.images import image_size
from ssdir.data.orientation import apply_exif_orientation
from ssdir.data.readers.coco.file import CocoFile, read_coco_file
from ssdir.data.readers.coco.folder import NAMED_BY_SPLIT, ImageFinder, loose_files, split_files
from ssdir.data.readers.coco.tracks import CocoClips
from ssdir.data.readers.faults import Faults
from ssdir.data.readers.layout import Layout
from ssdir.data.readers.splits import missing_split
from ssdir.data.readers.table_builder import check_names
from ssdir.errors import EmptySplitError, InputError
from ssdir.formatting import quote

OUTSIDE = ("leave", "read")
"""The ways to treat images outside of the data set's folder."""


def is_coco(root: Path) -> bool:
    """Returns whether a folder has COCO files with standard names."""
    return bool(split_files(root))


def is_loose_coco(root: Path) -> bool:
    """Returns whether a folder has COCO files of other names."""
    return bool(loose_files(root))


def coco_splits(root: Path) -> list[str]:
    """Lists the splits that have annotations; a single file without a split in its name is the split `all`."""
    return list(_files(root))


def read_coco(root: Path, split: str, outside: str = "leave") -> AnnotationTable:
    """Reads a split. `draw_order`, `source_index`, `visible`, `track_id` and `difficult` are there if every
    annotation has these keys; clips, if every image has a `video_id`.

    Boxes refer to the image as shown, unless the given size is that of the image as stored: then their EXIF
    orientation is applied (see `orientation`). Missing sizes are read from the images, and missing boxes are those
    of the outlines.

    Args:
        root: folder of the data set.
        split: one of `coco_splits`.
        outside: whether to "read" images that are not in the folder, or "leave" them out.

    Raises:
        InputError: if a folder or file is missing, or the JSON is invalid, inconsistent or without images; if two
            of its images are the same picture.
    """
    folder = find_folder(root)
    file = _read(folder, split)
    pictures = ImageFinder(folder, file.path, split)
    names = pictures.find(file.file_names)
    _check_pictures(file, folder, names)
    left_out = pictures.outside if outside == "leave" else []
    table = replace(_table(file, folder, names), notes=(*file.notes, *_notes(pictures, left_out)))
    table = _with_tracks(table, file)
    if left_out:
        inside = np.flatnonzero(~np.isin(file.file_names, left_out))
        if not len(inside):
            raise InputError(f"{file.path}: every picture lies outside of '{root}' ({_outside(left_out)})")
        table = table.subset(np.arange(len(table.image)), inside)
    return apply_exif_orientation(_with_sizes(table, file.path))


def _read(root: Path, split: str) -> CocoFile:
    file = read_coco_file(_file_of(root, split))
    if not file.file_names:
        raise EmptySplitError(f"{file.path}: the split is empty, it has no images")
    if file.category_names:
        check_names(file.category_names, str(file.path))
    return _in_order(file)


def _check_pictures(file: CocoFile, root: Path, names: list[str]) -> None:
    """Checks that no two images are one picture, because each would lack the other's objects."""
    faults, first = Faults(str(file.path), of_one_file=True), dict[str, int]()
    for image, name in enumerate(names):
        if (earlier := first.setdefault(os.path.normpath(os.path.join(root, name)), image)) != image:
            entries = " and ".join(
                f"{quote(file.image_ids[i])} ({quote(file.file_names[i])})" for i in (earlier, image)
            )
            faults.add(f"images {entries} are both {quote(name)}: merge them, or give each its own picture")
    faults.stop_at_any()


def _table(file: CocoFile, root: Path, names: list[str]) -> AnnotationTable:
    """Makes the table of a file; `names` are those of the images, relative to the root."""
    boxes = file.boxes
    if boxes is None:
        raise InputError(f"{file.path}: not COCO annotations (it has images, but no annotations)")
    return AnnotationTable(
        root=root,
        sources=(file.path,),
        category_names=file.category_names,
        image_names=names,
        image_sizes=file.image_sizes,
        image=boxes.image,
        category=boxes.category,
        boxes_px=boxes.boxes_px,
        ignored=boxes.ignored,
        info=file.info,
        difficult=None if "difficult" not in boxes.optional else boxes.optional["difficult"] != 0,
        draw_order=boxes.optional.get("draw_order"),
        source_index=boxes.optional.get("source_index"),
        visible=boxes.optional.get("visible"),
    )


def _in_order(file: CocoFile) -> CocoFile:
    """Returns the file with the images of each clip after each other, in time."""
    if file.clips is None:
        return file
    order = file.clips.order
    place = np.argsort(order)
    return replace(
        file,
        image_ids=[file.image_ids[image] for image in order],
        file_names=[file.file_names[image] for image in order],
        image_sizes=file.image_sizes[order],
        boxes=None if file.boxes is None else replace(file.boxes, image=place[file.boxes.image]),
        clips=replace(file.clips, clip=file.clips.clip[order], order=np.arange(len(order))),
    )


def _with_tracks(table: AnnotationTable, file: CocoFile) -> AnnotationTable:
    """Adds a file's clips and tracks to its table. Images with tracks, but without videos, are one clip.

    Raises:
        InputError: if a track has two boxes in an image.
    """
    columns = {} if file.boxes is None else file.boxes.optional
    track_id, notes = columns.get("track_id"), list[str]()
    if track_id is None and file.clips is not None:
        no_objects = None if len(table.image) else np.zeros(0, dtype=np.int64)
        track_id = columns.get("instance_id", no_objects)
    clips = file.clips
    if clips is None:
        if track_id is None:
            return table
        every = np.arange(len(table.image_names))
        clips = CocoClips(np.zeros_like(every), every, [file.path.stem], {})
        notes.append(
            "objects have tracks, but images no video_id: they are taken for one clip, as they are listed"
        )
    if track_id is not None:
        if len(track_id) and (lowest := int(track_id.min())) < 1:
            track_id = track_id + (1 - lowest)
            notes.append(f"tracks are numbered from {lowest}, and read as numbered from 1")
        _check_tracks(table, track_id, file)
    return replace(
        table,
        track_id=track_id,
        clip=clips.clip,
        clip_names=clips.names,
        info={**table.info, **frame_rates_info({name: clips.frame_rates.get(name) for name in clips.names})},
        notes=(*table.notes, *clips.notes, *notes),
    )


def _check_tracks(table: AnnotationTable, track_id: NDArray[np.int64], file: CocoFile) -> None:
    faults = Faults(str(file.path), of_one_file=True)
    counted = ~table.ignored
    pairs, counts = np.unique(np.stack([table.image[counted], track_id[counted]]), axis=1, return_counts=True)
    for (image, track), count in zip(pairs.T.tolist(), counts.tolist(), strict=True):
        if count > 1:
            faults.add(f"image {quote(table.image_names[image])} has {count} boxes of track {track}")
    faults.stop_at_any()


def _files(root: Path) -> dict[str, Path]:
    return split_files(root) or loose_files(root)


def _file_of(root: Path, split: str) -> Path:
    """Finds the file of a split.

    Raises:
        MissingSplitError: if there is none.
    """
    files = _files(root)
    if split not in files:
        name = NAMED_BY_SPLIT.replace("*", split)
        existing = list(files) or [f"none: {listing((root / name).parent, root)}"]
        raise missing_split(root, split, existing, f"{name} is missing")
    return files[split]


def _notes(pictures: ImageFinder, left_out: list[str]) -> list[str]:
    notes = []
    if pictures.elsewhere:
        number, first = len(pictures.elsewhere), pictures.elsewhere[0]
        notes.append(
            f"pictures named as in another place, and taken by the end of their names: {number} ({first})"
        )
    if left_out:
        notes.append(f"pictures outside of the data set, left out: {len(left_out)} ({_outside(left_out)})")
    elif pictures.outside:
        notes.append(f"pictures outside of the data set: {len(pictures.outside)} ({quote(pictures.outside[0])})")
    return notes


def _outside(names: list[str]) -> str:
    return f"{quote(names[0])}; to read them, set outside to read"


def _with_sizes(table: AnnotationTable, source: Path) -> AnnotationTable:
    """Reads the sizes of images where the file has none."""
    unknown = np.flatnonzero(table.image_sizes[:, 0] == 0)
    if not len(unknown):
        return table
    sizes, faults = table.image_sizes.copy(), Faults(str(source), of_one_file=True)
    for image in unknown.tolist():
        try:
            sizes[image] = image_size(table.root / table.image_names[image])
        except InputError as error:
            faults.add(
                f"image {quote(table.image_names[image])} has no size, and no picture to take it from ({error})"
            )
    faults.stop_at_any()
    note = f"images without a size, which is taken from the picture: {len(unknown)} "
    return replace(
        table,
        image_sizes=sizes,
        notes=(*table.notes, note + f"({table.image_names[unknown[0]]})"),
        sizes_from_files=len(unknown) == len(sizes),
    )


LAYOUT = Layout(
    "COCO",
    is_coco,
    coco_splits,
    read_coco,
    {"outside": OUTSIDE},
)
ANY_NAME_LAYOUT = replace(LAYOUT, recognises=is_loose_coco)
