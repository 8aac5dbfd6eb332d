"""The registry of layouts: recognises the layout of a folder, and opens it as a data set.

A new layout is a module with a `LAYOUT`, and a line in `LAYOUTS`.
"""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from ssdir.data.annotations import MIN_VISIBLE, AnnotationTable, ignore_hidden, keep_readable
from ssdir.data.dataset import ObjectDataset
from ssdir.data.folders import find_folder, listing
from ssdir.data.letterbox import Resize
from ssdir.data.readers import clevrtex, mask_folder, widerface
from ssdir.data.readers.clevr import reader as clevr
from ssdir.data.readers.coco import reader as coco
from ssdir.data.readers.layout import Layout
from ssdir.data.readers.motchallenge import reader as motchallenge
from ssdir.data.readers.tfrecord.multi_object import is_record_file
from ssdir.data.readers.voc import reader as voc
from ssdir.data.readers.yolo import reader as yolo
from ssdir.errors import InputError, InputWarning

LAYOUTS = (
    clevr.LAYOUT,
    coco.LAYOUT,
    widerface.LAYOUT,
    motchallenge.LAYOUT,
    voc.LAYOUT,
    yolo.LAYOUT,
    yolo.DARKNET_LAYOUT,
    clevrtex.LAYOUT,
    mask_folder.LAYOUT,
    voc.BESIDE_IMAGES_LAYOUT,
    yolo.BESIDE_IMAGES_LAYOUT,
    coco.ANY_NAME_LAYOUT,  # Last: a JSON file may also lie beside the files of another layout.
)
"""All layouts, in the order in which they are tried."""


def find_layout(root: str | Path) -> Layout:
    """Recognises the layout of a folder.

    Raises:
        InputError: if there is no such folder, or it has none of `LAYOUTS`.
    """
    path = Path(root)
    if is_record_file(path):
        raise InputError(
            f"'{root}' must be unpacked first: ssdir data unpack {shlex.quote(str(root))} --out FOLDER"
        )
    folder = find_folder(root)
    if layout := _recognise(folder):
        return layout
    records = next((path for path in sorted(folder.iterdir()) if is_record_file(path)), None)
    if records is not None:
        return find_layout(records)
    near = next((f"; '{path}' looks like one" for path in _around(folder) if _recognise(path)), "")
    known = ", ".join(dict.fromkeys(layout.name for layout in LAYOUTS if " beside " not in layout.name))
    raise InputError(
        f"'{root}' has no layout that ssdir knows: {listing(folder, folder)}; known are {known} "
        f"(see ssdir data check --help){near}"
    )


def _recognise(folder: Path) -> Layout | None:
    return next((layout for layout in LAYOUTS if layout.recognises(folder)), None)


def _around(folder: Path) -> Iterator[Path]:
    """Yields the folders in a folder, and its parent, unless that holds several data sets."""
    yield from sorted(path for path in folder.iterdir() if path.is_dir())
    parent = folder.resolve().parent
    with suppress(OSError):  # The user may have no permission to list it.
        if not any(_recognise(path) for path in parent.iterdir() if path.is_dir()):
            yield parent


def read_annotations(root: str | Path, split: str, **options: str | None) -> AnnotationTable:
    """Reads the annotations of a split, whatever the layout: see `Layout.read`.

    Raises:
        InputError: as `find_layout` and `Layout.read`.
    """
    return find_layout(root).read(Path(root), split, **options)


def open_dataset(
    root: str | Path,
    split: str,
    classes: Literal["all", "object"] | Sequence[str] = "all",
    image_size: int | None = None,
    *,
    preload: bool = False,
    resize: Resize = "stretch",
    min_side: float = 0.0,
    drop_empty: bool = False,
    min_visible: float = MIN_VISIBLE,
    for_training: bool = False,
    **options: str | None,
) -> ObjectDataset:
    """Opens a split of a folder in any known layout; `ObjectDataset.with_transform` adds augmentations.

    Args:
        root: folder of the data set.
        split: name of the split, see `Layout.read`.
        classes: see `ObjectDataset`.
        image_size: see `ObjectDataset`.
        preload: see `ObjectDataset`.
        resize: see `ObjectDataset`.
        min_side: see `keep_readable`.
        drop_empty: see `keep_readable`.
        min_visible: see `ignore_hidden`.
        for_training: reads with `Layout.read_for_training`.
        options: options of the layout, such as CLEVR's `extent` and `vocabulary`.

    Raises:
        InputError: as `read_annotations` and `ObjectDataset`; if no image is left.

    Warns:
        InputWarning: for each remark of the layout's reader on what it corrected or left out.
    """
    layout = find_layout(root)
    read = layout.read_for_training if for_training else layout.read
    table = read(Path(root), split, **options)
    for note in table.notes:
        warnings.warn(f"'{root}': {note}", InputWarning, stacklevel=2)
    table = ignore_hidden(table, min_visible)
    if min_side or drop_empty:
        table = keep_readable(table, min_side, drop_empty)
        if not table.image_names:
            raise InputError(f"'{root}', split {split}: no image has an object of min_side {min_side:g} or more")
    return ObjectDataset(table, classes, image_size, preload=preload, resize=resize)
