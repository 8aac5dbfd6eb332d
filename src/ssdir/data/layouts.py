"""Which layout a folder of images with objects has, and what reads it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ssdir.data.annotations import AnnotationTable, keep_readable
from ssdir.data.clevr import clevr_splits, is_clevr, read_clevr
from ssdir.data.clevrtex import clevrtex_splits, is_clevrtex, read_clevrtex
from ssdir.data.coco import coco_splits, is_coco, read_coco
from ssdir.data.dataset import ObjectDataset, Transform
from ssdir.data.mask_folder import is_mask_folder, mask_folder_splits, read_mask_folder
from ssdir.data.multi_object import is_record_file
from ssdir.data.split_files import find_folder, listing
from ssdir.data.voc import is_voc, read_voc, voc_splits
from ssdir.data.widerface import is_widerface, read_widerface, widerface_splits
from ssdir.data.yolo import is_yolo, read_yolo, yolo_splits
from ssdir.errors import InputError


@dataclass(frozen=True)
class Layout:
    """A way to keep images with objects in a folder.

    Attributes:
        name: what it is called.
        looks_for: what in the folder it is recognised by.
        recognises: whether a folder has it.
        read: a folder and a split to what is annotated.
        splits: the splits that a folder has.
    """

    name: str
    looks_for: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path, str], AnnotationTable]
    splits: Callable[[Path], list[str]]


LAYOUTS = (
    Layout("CLEVR", "scenes/CLEVR_*_scenes.json and images/", is_clevr, read_clevr, clevr_splits),
    Layout("COCO", "annotations/instances_*.json", is_coco, read_coco, coco_splits),
    Layout(
        "WIDER FACE",
        "wider_face_split/wider_face_*_bbx_gt.txt",
        is_widerface,
        read_widerface,
        widerface_splits,
    ),
    Layout("Pascal VOC", "Annotations/*.xml and JPEGImages/", is_voc, read_voc, voc_splits),
    Layout("YOLO", "data.yaml, or images/ and labels/ with *.txt", is_yolo, read_yolo, yolo_splits),
    Layout("CLEVRTEX", "CLEVRTEX_*_flat.png", is_clevrtex, read_clevrtex, clevrtex_splits),
    Layout("index masks", "images/ and masks/", is_mask_folder, read_mask_folder, mask_folder_splits),
)
"""In the order in which they are tried."""


def find_layout(root: str | Path) -> Layout:
    """The layout of a folder.

    Raises:
        InputError: if there is no such folder, or it has none of `LAYOUTS`.
    """
    path = Path(root)
    if is_record_file(path):
        raise InputError(
            f"'{root}' must be unpacked first: ssdir data unpack {shlex.quote(str(root))} --out FOLDER"
        )
    folder = find_folder(root)
    for layout in LAYOUTS:
        if layout.recognises(folder):
            return layout
    records = next((path for path in sorted(folder.iterdir()) if is_record_file(path)), None)
    if records is not None:
        return find_layout(records)
    around = (*sorted(path for path in folder.iterdir() if path.is_dir()), folder.resolve().parent)
    near = next(
        (f"; '{path}' looks like one" for path in around if any(layout.recognises(path) for layout in LAYOUTS)), ""
    )
    looked = "; ".join(f"{layout.name}: {layout.looks_for}" for layout in LAYOUTS)
    raise InputError(
        f"'{root}' has no layout that ssdir knows (looked for {looked}; {listing(folder, folder)}){near}"
    )


def read_table(root: str | Path, split: str) -> AnnotationTable:
    """Reads what is annotated, whatever the layout.

    Raises:
        InputError: as `find_layout`, and if the annotations are missing or broken.
    """
    return find_layout(root).read(Path(root), split)


def open_dataset(
    root: str | Path,
    split: str,
    classes: Literal["all", "object"] | Sequence[str] = "all",
    image_size: int | None = None,
    transform: Transform | None = None,
    preload: bool = False,
    min_side: float = 0.0,
    drop_empty: bool = False,
) -> ObjectDataset:
    """Opens a split of a folder in any known layout; for the arguments see `ObjectDataset` and `keep_readable`.

    Raises:
        InputError: as `read_table`, and as `ObjectDataset`; if no image is left.
    """
    table = read_table(root, split)
    if min_side or drop_empty:
        table = keep_readable(table, min_side, drop_empty)
        if not table.image_names:
            raise InputError(f"'{root}', split {split}: no image has an object of min_side {min_side:g} or more")
    return ObjectDataset(table, classes, image_size, transform, preload)
